"""Cross-covariance attention (arXiv 2106.09681, eq. 1) becomes two integer kernels: scores and their application.

Before::

    q, k, v = ...                                  # movement of one int8 tensor qkv [T, 3C]
    lv = R.matmul(q / |q|, R.permute_dims(k / |k|))
    lv1 = R.nn.softmax(R.multiply(lv, temperature))
    lv2 = R.quantize(R.matmul(lv1, v), so, zo)

After::

    e = R.call_tir(xca_scores, (qkv, zp, tau, table))        # int8 [heads, d, d], unnormalised softmax
    lv2 = R.call_tir(xca_apply, (qkv, e, qp, scale))         # int8 [T, C]

Why here: after CanonicalizeQDQ, which puts all movement between qkv and the products on int8. The L2 norm
commutes with the product, so nothing normalised is ever stored.

Leaves alone: attention whose q, k or v is not the expected third of one tensor in [q|k|v], [heads, d] order, or
whose norm does not run over the tokens; the order is checked element by element, however it was written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst as Constant
from tvm_ffi import structural_equal

from edgenext_tvm.kernels.qparams import xca_apply_params, xca_params
from edgenext_tvm.kernels.xca_apply import XcaApply
from edgenext_tvm.kernels.xca_scores import XcaScores
from edgenext_tvm.passes.movement import element_indices
from edgenext_tvm.passes.qdq import Quantized, dequantized, is_per_tensor, quantization_of
from edgenext_tvm.passes.rewrite import Rewriter, layer_of, op_name, shape_of

MOVES = ("reshape", "permute_dims", "broadcast_to", "squeeze", "expand_dims")


def fuse_cross_covariance_attention(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with every cross-covariance attention as calls of its two kernels."""
    return _AttentionFuser(mod).run()


@dataclass(frozen=True)
class _Attention:
    qkv: Quantized
    tokens: int
    heads: int
    channels: int
    temperature: np.ndarray
    layer: str


class _AttentionFuser(Rewriter):
    def rewrite(self, value: relax.Expr, var: relax.Var) -> relax.Expr | None:
        if op_name(value) != "quantize" or not is_per_tensor(value):
            return None
        target = quantization_of(value)
        found = self.match(target.data)
        if found is None or (found.qkv.dtype, target.dtype) != ("int8", "int8"):
            return None
        self.layer = found.layer or self.layer
        shape = {"t": found.tokens, "c": found.channels, "heads": found.heads}
        qkv = self.reshape(found.qkv.data, (found.tokens, 3 * found.channels))
        tau, table = xca_params(found.temperature)
        zero_point = np.array([found.qkv.zero_point], np.int32)
        scores = self.call_kernel(XcaScores(**shape), [qkv, zero_point, tau, table])
        qp = np.array([found.qkv.zero_point, target.zero_point], np.int32)
        scale = xca_apply_params(found.qkv.scale, target.scale)
        result = self.call_kernel(XcaApply(**shape), [qkv, scores, qp, scale])
        depth = found.channels // found.heads
        by_head = self.reshape(result, (found.tokens, found.heads, depth))
        return self.reshape(self.emit(relax.op.permute_dims(by_head, [1, 2, 0])), shape_of(var))

    def match(self, expr: relax.Expr) -> _Attention | None:
        product = self.lookup(expr)
        if op_name(product) != "matmul":
            return None
        softmax = self.lookup(self.stationary(product.args[0]))
        if op_name(softmax) != "nn.softmax" or int(softmax.attrs.axis) not in (-1, len(shape_of(softmax.args[0])) - 1):
            return None
        *batch, depth, width = shape_of(softmax.args[0])
        heads = int(np.prod(batch))
        if depth != width:
            return None
        logits, temperature = self.split_temperature(softmax.args[0], heads)
        covariance = self.lookup(self.stationary(logits))
        if op_name(covariance) != "matmul" or temperature is None:
            return None
        sources = [
            self.normalised(covariance.args[0], token_axis=-1),
            self.normalised(covariance.args[1], token_axis=-2),
            self.plain(product.args[1]),
        ]
        if any(source is None for source in sources):
            return None
        return self.checked([s for s in sources if s is not None], heads, depth, temperature, layer_of(softmax))

    def checked(
        self,
        sources: list[tuple[Quantized, relax.Expr, np.ndarray]],
        heads: int,
        depth: int,
        tau: np.ndarray,
        layer: str,
    ) -> _Attention | None:
        """Compare where every element of q, k and v comes from with the layout that the kernels read."""
        (first, base, _), *others = sources
        channels = heads * depth
        if any(not b.same_as(base) or not s.same_parameters(first) for s, b, _ in others):
            return None
        tokens, rest = divmod(int(np.prod(shape_of(base))), 3 * channels)
        if rest:
            return None
        column = np.arange(channels).reshape(heads, depth, 1) + 3 * channels * np.arange(tokens)
        views = [sources[0][2], np.swapaxes(sources[1][2], -1, -2), sources[2][2]]
        for third, indices in enumerate(views):
            if indices.size != column.size or (indices.reshape(column.shape) != column + third * channels).any():
                return None
        return _Attention(first.with_data(base), tokens, heads, channels, tau, layer)

    def stationary(self, expr: relax.Expr) -> relax.Expr:
        """Skip reshapes that only add or drop batch axes."""
        while op_name(self.lookup(expr)) in ("reshape", "broadcast_to") and (
            shape_of(expr)[-2:] == shape_of(self.lookup(expr).args[0])[-2:]
        ):
            expr = self.lookup(expr).args[0]
        return expr

    def split_temperature(self, expr: relax.Expr, heads: int) -> tuple[relax.Expr, np.ndarray | None]:
        bound = self.lookup(expr)
        if op_name(bound) != "multiply":
            return expr, np.ones(heads, np.float32)
        for logits, factor in (bound.args, bound.args[::-1]):
            factor = self.lookup(factor)
            if not isinstance(factor, Constant):
                continue
            values = factor.value.numpy().astype(np.float32)
            # One value per head, the same for the whole [d, d] matrix: the last two axes must be 1.
            if values.size == 1 or (values.size == heads and values.shape[-2:] == (1, 1)):
                return logits, np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (heads,)))
        return expr, None

    def plain(self, expr: relax.Expr) -> tuple[Quantized, relax.Expr, np.ndarray] | None:
        source = self.quantized_source(expr)
        if source is None:
            return None
        base, indices = element_indices(self, expr)
        return source, base, indices

    def quantized_source(self, expr: relax.Expr) -> Quantized | None:
        while op_name(self.lookup(expr)) in MOVES:
            expr = self.lookup(expr).args[0]
        return dequantized(self, expr)

    def normalised(self, expr: relax.Expr, token_axis: int) -> tuple[Quantized, relax.Expr, np.ndarray] | None:
        """Match movement of x / max(|x|, eps), the norm over the axis that `token_axis` of `expr` comes from."""
        quotient = expr
        while op_name(self.lookup(quotient)) in MOVES:
            quotient = self.lookup(quotient).args[0]
        division = self.lookup(quotient)
        if op_name(division) != "divide":
            return None
        numerator, denominator = division.args
        source = self.plain(numerator)
        norm_axis = None if source is None else self.norm_axis(denominator, numerator, source[0].scale)
        if source is None or norm_axis is None:
            return None
        outer = self.indices_from(expr, quotient)
        shape = shape_of(quotient)
        position = np.broadcast_to(
            np.arange(shape[norm_axis]).reshape([-1] + [1] * (len(shape) - 1 - norm_axis)), shape
        )
        along_tokens = position.reshape(-1)[outer]
        steps = np.arange(outer.shape[token_axis]).reshape((-1, 1) if token_axis == -2 else (-1,))
        if (along_tokens != steps).any():
            return None
        params, base, inner = source
        return params, base, inner.reshape(-1)[outer]

    def indices_from(self, expr: relax.Expr, stop: relax.Expr) -> np.ndarray:
        """Return where the elements of `expr` stand in `stop`, movement only in between."""
        source, indices = element_indices(self, expr)
        assert source.same_as(stop), "movement ends at the quotient, which is not movement"
        return indices

    def norm_axis(self, denominator: relax.Expr, numerator: relax.Expr, scale: float) -> int | None:
        """Return the axis over which `denominator` is the L2 norm of `numerator`, or None if it is no such norm.

        A lower bound of the norm is ignored where only a vector of zeros, whose norm is 0, can be below it.
        """
        shape = list(shape_of(numerator))
        root = denominator
        while (bound := self.lookup(root)) is not None and op_name(bound) in (*MOVES, "clip", "maximum"):
            if op_name(bound) == "permute_dims" or not self.is_small_bound(bound, scale):
                return None
            root = bound.args[0]
        if not ((op_name(bound) == "power" and _scalar(self.lookup(bound.args[1])) == 0.5) or op_name(bound) == "sqrt"):
            return None
        total = self.lookup(bound.args[0])
        if op_name(total) != "sum" or len(total.attrs.axis) != 1:
            return None
        axis = int(total.attrs.axis[0]) % len(shape)
        before_broadcast = denominator
        while op_name(self.lookup(before_broadcast)) == "broadcast_to":
            before_broadcast = self.lookup(before_broadcast).args[0]
        if list(shape_of(before_broadcast)) != [*shape[:axis], 1, *shape[axis + 1 :]]:
            return None
        return axis if self.is_square_of(self.lookup(total.args[0]), numerator) else None

    def is_small_bound(self, bound: relax.Call, scale: float) -> bool:
        """Return whether clip or maximum bounds only from below, by at most one step of the int8 tensor."""
        if op_name(bound) == "maximum":
            low = _scalar(self.lookup(bound.args[1]))
            return low is not None and 0.0 <= low <= scale
        if op_name(bound) == "clip":
            low, high = (float(arg.value) for arg in bound.args[1:3])
            return low <= scale and high >= 1e30
        return True

    def is_square_of(self, square: relax.Expr, x: relax.Expr) -> bool:
        if op_name(square) == "multiply":
            return all(self.same_value(arg, x) for arg in square.args)
        if op_name(square) == "square" or (op_name(square) == "power" and _scalar(self.lookup(square.args[1])) == 2.0):
            inner = self.lookup(square.args[0])
            return self.same_value(inner.args[0] if op_name(inner) == "abs" else square.args[0], x)
        return False

    def same_value(self, a: relax.Expr, b: relax.Expr) -> bool:
        return a.same_as(b) or structural_equal(self.lookup(a), self.lookup(b))


def _scalar(expr: relax.Expr) -> float | None:
    if isinstance(expr, Constant) and expr.value.numpy().size == 1:
        return float(expr.value.numpy().reshape(-1)[0])
    return None
