"""The integer kernels: each one a frozen description, a TIR builder and a naive NumPy twin that agree bit for bit."""

from __future__ import annotations

from .add import Add
from .base import INPLACE_ATTR, KERNEL_ATTR, NUM_WORKSPACES_ATTR, Kernel, TensorType, kernel_of
from .conv2d import Conv2d
from .dense import Dense
from .depthwise import Depthwise
from .global_avg_pool import GlobalAvgPool
from .inverted_bottleneck import InvertedBottleneck
from .layer_norm import LayerNorm
from .lut import Lut
from .rescale import Rescale
from .xca_apply import XcaApply
from .xca_scores import XcaScores

__all__ = [
    "INPLACE_ATTR",
    "KERNEL_ATTR",
    "NUM_WORKSPACES_ATTR",
    "Add",
    "Conv2d",
    "Dense",
    "Depthwise",
    "GlobalAvgPool",
    "InvertedBottleneck",
    "Kernel",
    "LayerNorm",
    "Lut",
    "Rescale",
    "TensorType",
    "XcaApply",
    "XcaScores",
    "kernel_of",
]
