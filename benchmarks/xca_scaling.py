"""Shows that cross-covariance attention (XCA) costs linearly in the number of tokens T, where
self-attention costs quadratically.

Counted multiply-adds of one attention layer at equal channels and heads, and measured float32 times in
PyTorch: the median of several runs on one thread.
Run `python benchmarks/xca_scaling.py [--channels C --heads N] [--json]`.

XCA mixes channels: two products of d x d x T per head (d = C/N). Self-attention mixes tokens: two of T x T x
d. The linear layers around both are the same, 4*T*C*C.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from edgenext_tvm.model.layers import CrossCovarianceAttention
from edgenext_tvm.model.madds import count_madds

TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
LINEAR_LAYERS = ("qkv", "proj")


class SpatialSelfAttention(nn.Module):
    """Ordinary multi-head self-attention over tokens, [B,T,C] -> [B,T,C], with the linear layers of XCA."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        d = c // self.heads
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (torch.matmul(q, k.transpose(-2, -1)) * d**-0.5).softmax(dim=-1)
        return self.proj(torch.matmul(weights, v).permute(0, 2, 1, 3).reshape(b, t, c))


@dataclass(frozen=True)
class Row:
    """One number of tokens: multiply-adds of each whole layer and of its attention products, and times."""

    tokens: int
    xca_madds: int
    xca_products_madds: int
    self_attention_madds: int
    self_attention_products_madds: int
    xca_latency_us: float | None = None
    self_attention_latency_us: float | None = None


def count(attention: nn.Module, tokens: int, channels: int) -> tuple[int, int]:
    """Returns the multiply-adds of the whole layer and of its attention products alone, at batch 1."""
    report = count_madds(attention, (1, tokens, channels))
    return report.total, report.total - sum(report.under(name) for name in LINEAR_LAYERS)


@torch.inference_mode()
def measure_latency_us(attention: nn.Module, tokens: int, channels: int, runs: int) -> float:
    """Returns the median wall time of one forward pass in microseconds, after one to warm up."""
    x = torch.randn(1, tokens, channels, generator=torch.Generator().manual_seed(0))
    attention(x)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        attention(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(channels: int, heads: int, tokens: tuple[int, ...], runs: int) -> list[Row]:
    """Counts, and where runs > 0 also times, both layers at each number of tokens."""
    xca = CrossCovarianceAttention(channels, heads).eval()
    spatial = SpatialSelfAttention(channels, heads).eval()
    rows = []
    for t in tokens:
        times = [measure_latency_us(a, t, channels, runs) if runs else None for a in (xca, spatial)]
        rows.append(Row(t, *count(xca, t, channels), *count(spatial, t, channels), *times))
    return rows


def _print_table(rows: list[Row]) -> None:
    def growth(now: float, before: float) -> str:
        return f"x{now / before:.2f}" if before else ""

    print("   tokens | attention products, M MAdds            | whole layer, M MAdds | time, us")
    print("        T |      XCA          self-attention       |    XCA   self-att.   |     XCA  self-att.")
    before: Row | None = None
    for r in rows:
        a, b = r.xca_products_madds, r.self_attention_products_madds
        a0 = before.xca_products_madds if before else 0
        b0 = before.self_attention_products_madds if before else 0
        times = "       -          -"
        if r.xca_latency_us is not None and r.self_attention_latency_us is not None:
            times = f"{r.xca_latency_us:8.0f} {r.self_attention_latency_us:10.0f}"
        print(
            f"{r.tokens:9d} | {a / 1e6:8.2f} {growth(a, a0):>6} "
            f"{b / 1e6:10.2f} {growth(b, b0):>6}      | "
            f"{r.xca_madds / 1e6:7.1f} {r.self_attention_madds / 1e6:10.1f}   | {times}"
        )
        before = r


def main(arguments: list[str] | None = None) -> int:
    """Prints the table, or with --json one object with the settings and a row per number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--channels", type=int, default=160, help="C, a multiple of the heads (default 160)")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--runs", type=int, default=9, help="timed runs per point; 0 counts only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.heads < 1 or options.channels < 1 or options.channels % options.heads:
        parser.error(f"{options.channels} channels do not divide into {options.heads} heads; try 160 and 8")
    if options.runs < 0:
        parser.error(f"--runs {options.runs} is not possible; give 0 or more")
    torch.set_num_threads(1)
    rows = measure(options.channels, options.heads, TOKENS, options.runs)
    if options.json:
        settings = {"channels": options.channels, "heads": options.heads, "threads": 1, "runs": options.runs}
        print(json.dumps({**settings, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(f"XCA against self-attention: C={options.channels}, {options.heads} heads, batch 1, 1 thread")
        _print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
