"""Valid arguments for any kernel: random ones, and the extremes where integer arithmetic goes wrong first."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import qparams
from .base import Kernel

PATTERNS = ("random", "lowest", "highest", "opposed", "ties")
"""lowest, highest: every activation -128 or 127 (weights -127, 127); opposed: both ends mixed; ties: exact halves."""

_ZERO_POINTS = {"lowest": (127, -128), "highest": (-128, 127), "opposed": (-128, -128), "ties": (3, 1)}


def sample_inputs(kernel: Kernel, seed: int = 0, pattern: str = "random") -> list[np.ndarray]:
    """Return the kernel's inputs; equal arguments give equal arrays. Accumulators stay inside int32."""
    return _Sampler(kernel, seed, pattern).inputs()


class _Sampler:
    def __init__(self, kernel: Any, seed: int, pattern: str) -> None:
        assert pattern in PATTERNS, pattern
        self.kernel = kernel
        self.pattern = pattern
        self.rng = np.random.default_rng(seed)
        self.types = kernel.input_types()

    def inputs(self) -> list[np.ndarray]:
        arrays = getattr(self, f"_{self.kernel.kind}")()
        assert [(array.shape, array.dtype.name) for array in arrays] == self.types
        return arrays

    def _int8(self, index: int, low: int = -128) -> np.ndarray:
        shape = self.types[index][0]
        ends = {"lowest": (low, low), "highest": (127, 127), "opposed": (low, 127)}
        if self.pattern in ends:
            return self.rng.choice(np.array(ends[self.pattern], np.int8), shape)
        bound = 8 if self.pattern == "ties" else 128
        return self.rng.integers(max(low, -bound), bound, shape).astype(np.int8)

    def _zero_points(self) -> tuple[int, int]:
        if self.pattern in _ZERO_POINTS:
            return _ZERO_POINTS[self.pattern]
        return int(self.rng.integers(-128, 128)), int(self.rng.integers(-20, 20))

    def _table(self) -> np.ndarray:
        return self.rng.integers(-128, 128, 256).astype(np.int8)

    def _matmul(self) -> list[np.ndarray]:
        kernel = self.kernel
        x, w = self._int8(0), self._int8(1, low=-127)
        channels = w.shape[-1]
        zp_in, zp_out = self._zero_points()
        products = kernel.macs // (int(np.prod(kernel.output_types()[0][0])) or 1) or 1
        spread = 40.0 / (128 * 127 * max(products, 1) ** 0.5 / 3)
        mult = (spread * self.rng.uniform(0.5, 2.0, channels)).astype(np.float32)
        if self.pattern == "ties":
            mult = np.full(channels, 0.5, np.float32)
        bias = self.rng.integers(-2000, 2000, channels) - zp_in * w.reshape(-1, channels).astype(np.int64).sum(0)
        arrays = [x, w, bias.astype(np.int32), mult, np.array([zp_in, zp_out], np.int32)]
        if kernel.epilogue == "lut":
            arrays.append(self._table())
        if kernel.epilogue == "residual":
            params = qparams.residual_params(mult, 0.03, 0.02, zp_in)
            arrays += [self._int8(5), params.rp, params.rs]
            arrays[3] = params.mult
        return arrays

    def _inverted_bottleneck(self) -> list[np.ndarray]:
        widen, narrow = (_Sampler(part, 0, self.pattern) for part in (self.kernel.widen, self.kernel.narrow))
        widen.rng = narrow.rng = self.rng
        return [*widen.inputs(), *narrow.inputs()[1:]]

    _dense = _matmul
    _conv2d = _matmul

    def _depthwise(self) -> list[np.ndarray]:
        arrays = self._matmul()
        return [*arrays, self._int8(len(arrays))] if self.kernel.inplace else arrays

    def _lut(self) -> list[np.ndarray]:
        return [self._int8(0), self._table(), *([self._int8(2)] if self.kernel.inplace else [])]

    def _add(self) -> list[np.ndarray]:
        zp_a, zp_b = self._zero_points()
        if self.pattern == "ties":
            ap, rs = np.array([zp_a, 1, zp_b, 1, 5], np.int32), np.array([0.5], np.float32)
        else:
            ap, rs = qparams.add_params(0.02, zp_a, 0.05, zp_b, 0.06, zp_b)
        return [self._int8(0), self._int8(1), ap, rs]

    def _layer_norm(self) -> list[np.ndarray]:
        c = self.kernel.c
        gamma = self.rng.normal(1, 0.3, c) if self.kernel.affine else None
        beta = self.rng.normal(0, 0.3, c) if self.kernel.affine else None
        params = qparams.layer_norm_params(1e-6, 0.04, 0.025, c, gamma, beta)
        arrays = [self._int8(0), params.ln, np.array([self._zero_points()[1]], np.int32)]
        return arrays + [array for array in params[1:] if array is not None]

    def _global_avg_pool(self) -> list[np.ndarray]:
        mult = np.array([0.5], np.float32)
        if self.pattern != "ties":
            mult = qparams.pool_params(0.04, 0.03, self.kernel.h, self.kernel.w)
        return [self._int8(0), mult, np.array(self._zero_points(), np.int32)]

    def _xca_scores(self) -> list[np.ndarray]:
        tau, table = qparams.xca_params(self.rng.uniform(0.5, 8.0, self.kernel.heads))
        return [self._int8(0), np.array([self._zero_points()[0]], np.int32), tau, table]

    def _xca_apply(self) -> list[np.ndarray]:
        scores = self.rng.integers(0, 128, self.types[1][0]).astype(np.int8)
        if self.pattern == "highest":
            scores[:] = 127
        # The kernel that writes the scores gives every query a largest one of 127.
        scores[:, 0, :] = 127
        scale = qparams.xca_apply_params(0.05, 0.04)
        return [self._int8(0), scores, np.array(self._zero_points(), np.int32), scale]
