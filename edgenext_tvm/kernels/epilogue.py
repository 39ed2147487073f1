"""What follows an int32 accumulator: requantize, requantize then look up, or add a residual before the one rounding.

Arguments after `bias` and `mult` are qp int32[2] = (zp_in, zp_out), then by epilogue
  none      nothing;
  lut       lut int8[256]: out = lut[requant(acc, mult_c, zp_out) + 128];
  residual  r int8 (shaped like the output), rp int32[2] = (zp_r, m_r), rs float32[1] = 2^-F:
            out = requant(fixed(acc, mult_c) + (r - zp_r) * m_r, rs, zp_out), with mult and m_r scaled by 2^F.

The output may be wide (int16, see `wide`), and so may the residual. Then out = requant(fixed(acc, mult_c) * 2^G +
(r - zp_r) * m_r, rs, zp_out) with G = WIDE_RESIDUAL_BITS, mult scaled by 2^F, m_r by 2^(F + G) and rs = 2^-(F + G):
`fixed` keeps to 2^21, which leaves too few bits to m_r, a factor of up to 4095 levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx

from . import requantize as rq
from .base import TensorType
from .blocks import block, scratch, store

WIDE_RESIDUAL_BITS = 8


def epilogue_types(epilogue: str, output_shape: tuple[int, ...], r_dtype: str = "int8") -> list[TensorType]:
    """Return the types of the arguments that the epilogue adds."""
    if epilogue == "lut":
        return [((256,), "int8")]
    if epilogue == "residual":
        return [(output_shape, r_dtype), ((2,), "int32"), ((1,), "float32")]
    return []


def residual_expr(
    acc: tirx.Expr,
    multiplier: tirx.Expr,
    r: tirx.Expr,
    residual_qp: tirx.Buffer,
    residual_scale: tirx.Buffer,
    zero_point: tirx.Expr,
    dtype: str = "int8",
) -> tirx.Expr:
    """Return int8 (or int16: wide): the accumulator and the residual added in fixed point, then requantized once."""
    scaled_residual = (rq.to_int32(r) - residual_qp[0]) * residual_qp[1]
    branch = rq.fixed_expr(acc, multiplier)
    if "int16" in (dtype, str(r.ty.dtype)):
        # A shift, as TVM would distribute a factor over the difference that rounding ends in, beyond int32; of an
        # unsigned value, as C does not define it for a negative one.
        shifted = tirx.shift_left(branch.astype("uint32"), tirx.const(WIDE_RESIDUAL_BITS, "uint32"))
        branch = rq.to_int32(shifted)
    return rq.requant_expr(branch + scaled_residual, residual_scale[0], zero_point, dtype)


def reference_epilogue(
    epilogue: str,
    acc: np.ndarray,
    mult: np.ndarray,
    qp: np.ndarray,
    extra: tuple[np.ndarray, ...],
    dtype: str = "int8",
) -> np.ndarray:
    """NumPy twin of all epilogues; `extra` are the arguments that `epilogue_types` lists."""
    if epilogue == "residual":
        r, residual_qp, residual_scale = extra
        scaled = (r.astype(np.int32) - residual_qp[0]) * residual_qp[1]
        branch = rq.fixed(acc, mult)
        if "int16" in (dtype, r.dtype.name):
            branch = branch * (1 << WIDE_RESIDUAL_BITS)
        return rq.requant(branch + scaled, residual_scale[0], qp[1], dtype)
    q = rq.requant(acc, mult, qp[1], dtype)
    return rq.lut(extra[0], q) if epilogue == "lut" else q


def epilogue_names(epilogue: str) -> list[str]:
    """Return the names of the arguments that the epilogue adds."""
    return {"lut": ["lut"], "residual": ["r", "rp", "rs"]}.get(epilogue, [])


def emit_epilogue(
    epilogue: str,
    acc: tirx.Buffer,
    mult: tirx.Buffer,
    qp: tirx.Buffer,
    extra: Sequence[tirx.Buffer],
    y: tirx.Buffer,
    y_offset: int = 0,
) -> None:
    """Emit block "out" (after block "q" for a table) from acc [..., C] to channels [y_offset, y_offset + C) of y.

    The table is read from a second block so that a schedule may vectorise the arithmetic and not the look-ups.
    """
    shape = [int(extent) for extent in acc.shape]
    axes = "S" * len(shape)
    if epilogue == "lut":
        q = scratch("q", shape, "int8")
        with block("q", axes, shape) as v:
            store(q, v, rq.requant_expr(acc[tuple(v)], mult[v[-1]], qp[1]))
        with block("out", axes, shape) as v:
            store(y, [*v[:-1], v[-1] + y_offset], rq.lut_expr(extra[0], q[tuple(v)]))
        return
    with block("out", axes, shape) as v:
        value = acc[tuple(v)]
        if epilogue == "residual":
            r, residual_qp, residual_scale = extra
            residual = r[tuple(v)]
            out = residual_expr(value, mult[v[-1]], residual, residual_qp, residual_scale, qp[1], str(y.dtype))
        else:
            out = rq.requant_expr(value, mult[v[-1]], qp[1], str(y.dtype))
        store(y, [*v[:-1], v[-1] + y_offset], out)
