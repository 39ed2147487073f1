"""One rich table per result; units in every heading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from edgenext_tvm.report import tuning_tables

if TYPE_CHECKING:
    from edgenext_tvm.api import CompileResult
    from edgenext_tvm.board import Board
    from edgenext_tvm.tune.emulator import InstructionCounts
    from edgenext_tvm.verify.device import Timing
    from edgenext_tvm.verify.verify import VerifyReport


def _table(*headings: str, title: str | None = None, wrap: bool = False) -> Table:
    """First column to the left, the others to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for index, heading in enumerate(headings):
        first = index == 0
        table.add_column(heading, justify="left" if first else "right", overflow="fold", no_wrap=first and not wrap)
    return table


def _pairs(rows: Sequence[tuple[str, str]], title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def binary_size(size_bytes: int) -> str:
    """Bytes with a binary unit: KiB below 1 MiB, MiB below 1 GiB, else GiB."""
    if size_bytes < 1 << 20:
        return f"{size_bytes / (1 << 10):.1f} KiB"
    return f"{size_bytes / (1 << 20):.2f} MiB" if size_bytes < 1 << 30 else f"{size_bytes / (1 << 30):.2f} GiB"


def _clock(hertz: int) -> str:
    return f"{hertz / 1e9:.2f}" if hertz else "unknown"


def boards(found: Sequence[Board]) -> Table:
    """Name, core, instruction set, cores, clock, RAM and how its programs run from here."""
    table = Table(box=box.SIMPLE)
    for heading in ("board", "core", "isa", "cores", "GHz", "RAM", "runs on"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "board")
    for board in found:
        table.add_row(
            board.name,
            board.cpu.core,
            board.isa,
            str(board.cpu.cores),
            _clock(board.cpu.clock_hz),
            binary_size(board.memory.ram_bytes),
            board.run.qemu if board.run.runner == "qemu" else board.run.runner,
        )
    return table


def models(rows: Sequence[dict[str, Any]]) -> Table:
    """Parameters and multiply-adds at 1000 classes and 256x256 pixels; the checkpoint that comes along, if any."""
    table = _table("model", "parameters", "M MAdds at 256x256", "bundled weights")
    for row in rows:
        table.add_row(
            row["model"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['madds_256'] / 1e6:.1f}",
            row["bundled_checkpoint"] or "",
        )
    return table


def compiled(result: CompileResult) -> Table:
    """What the device needs and what was built."""
    manifest = result.manifest
    tested = {True: "PASS", False: "FAIL", None: "not run"}[result.selftest]
    return _pairs(
        [
            ("input", f"{'x'.join(map(str, manifest.input_shape))} {manifest.input_dtype}"),
            ("classes", str(manifest.num_classes)),
            ("RAM (arena)", binary_size(manifest.arena_bytes)),
            ("flash (code and weights)", binary_size(manifest.flash_bytes)),
            ("multiply-adds", f"{manifest.macs / 1e6:.1f} M"),
            ("kernels", f"{manifest.distinct_kernels}, called {manifest.kernel_calls} times"),
            ("tuning", tuning_tables.tuning_text(manifest.tuning)),
            *tuning_tables.float_row(result.float_check, result.float_check_origin),
            ("selftest", tested),
            ("time to compile", f"{sum(result.stages.values()):.1f} s"),
        ],
        f"{manifest.model} {manifest.precision} for {result.board.name}",
    )


def files(build_dir: Path, name: str) -> Table:
    """Where to find what."""
    return _pairs(
        [
            ("program", str(build_dir / "bin" / name)),
            ("library", str(build_dir / "lib" / f"lib{name}.a")),
            ("header", str(build_dir / "include" / f"{name}.h")),
            ("C sources", str(build_dir / "c")),
            ("manifest", str(build_dir / "manifest.json")),
        ],
        "files",
    )


def _share(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.2%}"


def _bits(value: bool | None) -> str:
    return {True: "identical", False: "DIFFERENT", None: "not compared"}[value]


def verified(report: VerifyReport) -> Table:
    """How close the device comes to the float model, and whether its bits are the promised ones."""
    return _pairs(
        [
            ("images", f"{report.images} of {report.image_source}"),
            ("selftest", "PASS" if report.selftest else "FAIL"),
            ("bits against the NumPy twins", _bits(report.bit_identical_to_reference)),
            ("bits against the host", _bits(report.bit_identical_to_host)),
            (f"relative L2 error to {report.compared_with}", f"{report.relative_l2:.4f}"),
            ("cosine", f"{report.cosine:.6f}"),
            ("largest error of a logit", f"{report.max_abs_error:.4f}"),
            ("top-1 agreement", _share(report.top1_agreement)),
            ("top-5 agreement", _share(report.top5_agreement)),
            (f"top-1 accuracy, {report.compared_with}", _share(report.top1_float)),
            ("top-1 accuracy, this build", _share(report.top1_int8)),
        ],
        f"{report.board} on {report.runner}: {'PASS' if report.passed else 'FAIL'}",
    )


def classified(results: Sequence[dict[str, Any]]) -> Table:
    """The best classes of each image."""
    table = _table("image", "class", "logit", "probability", wrap=True)
    for result in results:
        for rank, best in enumerate(result["top"]):
            table.add_row(
                Path(result["file"]).name if rank == 0 else "",
                best.get("name", str(best["class"])),
                f"{best['logit']:.3f}",
                f"{best['probability']:.1%}",
            )
        table.add_section()
    return table


def timed(build_dir: str, timing: Timing) -> Table:
    """Median and least time of one inference."""
    table = _table("build", "median ms", "least ms", "threads", "inferences", wrap=True)
    table.add_row(build_dir, f"{timing.median_ms:.3f}", f"{timing.min_ms:.3f}", str(timing.threads), str(timing.repeat))
    return table


def profiled(layers: dict[str, Any]) -> Table:
    """Time per layer, longest first."""
    table = _table("layer", "us", "share", "M MAdds", title=f"{layers['total_us']:.0f} us a run")
    for row in layers["layers"]:
        table.add_row(row["layer"], f"{row['us']:.1f}", f"{row['share']:.1%}", f"{row['macs'] / 1e6:.2f}")
    return table


def counted(build_dir: str, counts: InstructionCounts) -> Table:
    """Executed instructions of one inference by function, most first."""
    table = _table("function", "M instructions", "share", title=f"{build_dir}: {counts.total / 1e6:.2f} M an inference")
    for name, count in sorted(counts.by_function.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{count / 1e6:.3f}", f"{count / counts.total:.1%}")
    return table
