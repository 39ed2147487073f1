"""Valid arguments for any kernel: random ones, and the extremes where integer arithmetic goes wrong first."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import qparams
from .base import Kernel
from .wide import QRANGE, levels

PATTERNS = ("random", "lowest", "highest", "opposed", "ties")
"""lowest, highest: every activation at an end of its range (weights -127, 127), zero points at the other; opposed: both
ends mixed; ties: exact halves."""

_ENDS = {"lowest": (1, 0), "highest": (0, 1), "opposed": (0, 0)}
"""Which end of their ranges the zero points of input and output stand at."""


def sample_inputs(kernel: Kernel, seed: int = 0, pattern: str = "random") -> list[np.ndarray]:
    """Return the kernel's inputs; equal arguments give equal arrays. Accumulators stay inside int32."""
    return _Sampler(kernel, seed, pattern).inputs()


def _step(int8_scale: float, dtype: str) -> float:
    """The scale of a tensor that covers the same range in `dtype`."""
    return int8_scale * 256 / levels(dtype)


class _Sampler:
    def __init__(self, kernel: Any, seed: int, pattern: str) -> None:
        assert pattern in PATTERNS, pattern
        self.kernel = kernel
        self.pattern = pattern
        self.rng = np.random.default_rng(seed)
        self.types = kernel.input_types()
        self.out_dtype = kernel.output_types()[0][1]

    def inputs(self) -> list[np.ndarray]:
        arrays = getattr(self, f"_{self.kernel.kind}")()
        assert [(array.shape, array.dtype.name) for array in arrays] == self.types
        return arrays

    def _activation(self, index: int) -> np.ndarray:
        return self._integers(index, *QRANGE[self.types[index][1]])

    def _integers(self, index: int, low: int, high: int) -> np.ndarray:
        shape, dtype = self.types[index]
        ends = {"lowest": (low, low), "highest": (high, high), "opposed": (low, high)}
        if self.pattern in ends:
            return self.rng.choice(np.array(ends[self.pattern], dtype), shape)
        bound = 8 if self.pattern == "ties" else high + 1
        return self.rng.integers(max(low, -bound), bound, shape).astype(dtype)

    def _zero_points(self) -> tuple[int, int]:
        """Zero points of input 0 and of output 0 (logits have none)."""
        source, target = QRANGE[self.types[0][1]], QRANGE.get(self.out_dtype, QRANGE["int8"])
        if self.pattern == "ties":
            return 3, 1
        if self.pattern in _ENDS:
            first, second = _ENDS[self.pattern]
            return source[first], target[second]
        return int(self.rng.integers(source[0], source[1] + 1)), int(self.rng.integers(-20, 20))

    def _table(self) -> np.ndarray:
        return self.rng.integers(-128, 128, 256).astype(np.int8)

    def _matmul(self) -> list[np.ndarray]:
        kernel = self.kernel
        x, w = self._activation(0), self._integers(1, -127, 127)
        channels = w.shape[-1]
        zp_in, zp_out = self._zero_points()
        products = kernel.macs // (int(np.prod(kernel.output_types()[0][0])) or 1) or 1
        in_high, out_high = QRANGE[self.types[0][1]][1], QRANGE.get(self.out_dtype, QRANGE["int8"])[1]
        spread = 40.0 * (out_high + 1) / 128 / ((in_high + 1) * 127 * max(products, 1) ** 0.5 / 3)
        mult = (spread * self.rng.uniform(0.5, 2.0, channels)).astype(np.float32)
        if self.pattern == "ties":
            mult = np.full(channels, 0.5, np.float32)
        bias = self.rng.integers(-2000, 2000, channels) - zp_in * w.reshape(-1, channels).astype(np.int64).sum(0)
        arrays = [x, w, bias.astype(np.int32), mult, np.array([zp_in, zp_out], np.int32)]
        if kernel.epilogue == "lut":
            arrays.append(self._table())
        if kernel.epilogue == "residual":
            params = self._residual(mult, zp_in)
            arrays += [self._activation(5), params.rp, params.rs]
            arrays[3] = params.mult
        return arrays

    def _residual(self, mult: np.ndarray, zp_in: int) -> qparams.ResidualParams:
        r_dtype = self.types[5][1]
        s_out, s_r = _step(0.03, self.out_dtype), _step(0.02, r_dtype)
        zp_r = int(np.clip(zp_in, *QRANGE[r_dtype]))
        return qparams.residual_params(mult, s_out, s_r, zp_r, self.out_dtype, r_dtype)

    def _inverted_bottleneck(self) -> list[np.ndarray]:
        widen, narrow = (_Sampler(part, 0, self.pattern) for part in (self.kernel.widen, self.kernel.narrow))
        widen.rng = narrow.rng = self.rng
        return [*widen.inputs(), *narrow.inputs()[1:]]

    _dense = _matmul
    _conv2d = _matmul

    def _depthwise(self) -> list[np.ndarray]:
        arrays = self._matmul()
        return [*arrays, self._activation(len(arrays))] if self.kernel.inplace else arrays

    def _lut(self) -> list[np.ndarray]:
        return [self._activation(0), self._table(), *([self._activation(2)] if self.kernel.inplace else [])]

    def _rescale(self) -> list[np.ndarray]:
        kernel = self.kernel
        s_in, s_out = _step(0.04, kernel.x_dtype), _step(0.03, kernel.out_dtype)
        mult = np.array([0.5], np.float32) if self.pattern == "ties" else qparams.rescale_params(s_in, s_out)
        arrays = [self._activation(0), mult, np.array(self._zero_points(), np.int32)]
        return [*arrays, self._activation(3)] if kernel.inplace else arrays

    def _add(self) -> list[np.ndarray]:
        kernel = self.kernel
        zp_a, zp_out = self._zero_points()
        zp_b = int(np.clip(zp_out, *QRANGE[kernel.b_dtype]))
        dtypes = (kernel.a_dtype, kernel.b_dtype, kernel.out_dtype)
        if self.pattern == "ties":
            ap, rs = np.array([zp_a, 1, zp_b, 1, 5], np.int32), np.array([0.5], np.float32)
        else:
            s_a, s_b, s_out = map(_step, (0.02, 0.05, 0.06), dtypes)
            ap, rs = qparams.add_params(s_a, zp_a, s_b, zp_b, s_out, zp_out, dtypes)
        return [self._activation(0), self._activation(1), ap, rs]

    def _layer_norm(self) -> list[np.ndarray]:
        c = self.kernel.c
        gamma = self.rng.normal(1, 0.3, c) if self.kernel.affine else None
        beta = self.rng.normal(0, 0.3, c) if self.kernel.affine else None
        x_dtype, out_dtype = self.kernel.x_dtype, self.kernel.out_dtype
        s_out = _step(0.025, out_dtype)
        params = qparams.layer_norm_params(1e-6, 0.04, s_out, c, gamma, beta, x_dtype, out_dtype)
        arrays = [self._activation(0), params.ln, np.array([self._zero_points()[1]], np.int32)]
        return arrays + [array for array in params[1:] if array is not None]

    def _global_avg_pool(self) -> list[np.ndarray]:
        mult = np.array([0.5], np.float32)
        if self.pattern != "ties":
            s_out = _step(0.03, self.out_dtype)
            mult = qparams.pool_params(_step(0.04, self.types[0][1]), s_out, self.kernel.h, self.kernel.w)
        return [self._activation(0), mult, np.array(self._zero_points(), np.int32)]

    def _xca_scores(self) -> list[np.ndarray]:
        tau, table = qparams.xca_params(self.rng.uniform(0.5, 8.0, self.kernel.heads))
        return [self._activation(0), np.array([self._zero_points()[0]], np.int32), tau, table]

    def _xca_apply(self) -> list[np.ndarray]:
        scores = self.rng.integers(0, 128, self.types[1][0]).astype(np.int8)
        if self.pattern == "highest":
            scores[:] = 127
        # The kernel that writes the scores gives every query a largest one of 127.
        scores[:, 0, :] = 127
        scale = qparams.xca_apply_params(0.05, 0.04)
        return [self._activation(0), scores, np.array(self._zero_points(), np.int32), scale]
