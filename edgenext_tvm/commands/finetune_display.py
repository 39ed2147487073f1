"""What `edgenext-tvm finetune` shows: settings, a progress bar, a line an epoch, on stderr; at the end a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgenext_tvm.finetune.finetune import FinetuneResult
from edgenext_tvm.finetune.train import EpochReport, TrainingInterrupted
from edgenext_tvm.finetune.train import Progress as TrainingProgress

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    TimeRemainingColumn(),
    TextColumn("{task.fields[note]}"),
)


class FinetuneDisplay:
    """A context: while entered the bar is on the screen. quiet: no table on stdout."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._progress = Progress(*COLUMNS, console=console, transient=True)
        self._task: Any = None
        self._name = ""

    def __enter__(self) -> FinetuneDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def settings(self, values: dict[str, Any]) -> None:
        """The resolved settings, one a line."""
        self.console.print("[bold]finetune[/bold]")
        for key, value in values.items():
            if value is not None:
                self.console.print(f"  {key.replace('_', '-'):<16} {value}", markup=False)

    def say(self, line: str) -> None:
        """One line that stays."""
        self.console.print(f"  {line}", markup=False)

    def decoding(self, name: str, done: int, total: int) -> None:
        """How many of the images called `name` are decoded."""
        self._show(f"decode {name}", done, total, "")

    def progress(self, now: TrainingProgress) -> None:
        """After each step."""
        note = f"{now.input_size} px  loss {now.loss:.3f}  {now.images_per_second:.0f} images/s"
        self._show(f"epoch {now.epoch}/{now.epochs}", now.step, now.steps, note, "train")

    def report(self, epoch: EpochReport) -> None:
        """A line that stays."""
        top1 = "" if epoch.top1 is None else f"  top-1 {epoch.top1:.2%}"
        line = f"epoch {epoch.epoch:>3}/{epoch.epochs}  {epoch.input_size} px  loss {epoch.loss:.4f}{top1}"
        self.say(f"{line}  {epoch.seconds:.1f} s")

    def interrupted(self, why: TrainingInterrupted) -> None:
        """Says what is safe and how to go on."""
        self.say(f"interrupted at step {why.step} of {why.steps}; the state is saved in {why.state_file}")
        self.say("go on with the same command and --resume")

    def result(self, result: FinetuneResult, following: str) -> None:
        """The table on stdout, and the command that comes next."""
        table = Table(title=result.model, title_justify="left", show_header=False, box=box.SIMPLE)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        shown = ", ".join(result.classes[:4]) + (", ..." if len(result.classes) > 4 else "")
        top1 = "not judged" if result.top1 is None else f"{result.top1:.2%} of {result.validation_images} images"
        quantized: tuple[tuple[str, str], ...] = ()
        if result.qat is not None:
            change = f"{result.qat.kl_before:.5f} -> {result.qat.kl_after:.5f} nats, simulated"
            quantized = (("quantization-aware", f"{result.qat.epochs} epochs"), ("int8 from float", change))
        for row in (
            ("checkpoint", str(result.checkpoint)),
            ("classes", f"{len(result.classes)}: {shown}"),
            ("input", f"{result.input_size}x{result.input_size} pixels"),
            ("training images", f"{result.images}, {result.epochs} epochs"),
            ("top-1 in float", top1),
            *quantized,
            ("time", f"{result.seconds:.0f} s"),
        ):
            table.add_row(*row)
        output = Console(soft_wrap=True, highlight=False)
        output.print(table)
        output.print(f"next: {following}", markup=False)

    def _show(self, description: str, done: int, total: int, note: str, name: str = "") -> None:
        name = name or description
        if name != self._name:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._name, self._task = name, self._progress.add_task(description, total=total, note=note)
        self._progress.update(self._task, completed=done, description=description, note=note)
