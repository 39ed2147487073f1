"""A roofline as tables: what the core can do, totals by kind of kernel, and layers by their gap."""

from __future__ import annotations

from rich import box
from rich.table import Table

from edgenext_tvm.report.host_peak import HostPeak
from edgenext_tvm.report.roofline import LayerGap, Roofline, Total

SHOWN_LAYERS = 25
LEAST_NAME_WIDTH = 25


def all_tables(held: Roofline, build: str) -> list[Table]:
    """Totals, then layers."""
    return [totals(held, f"{build}: floor and gap by kind of kernel"), layers(held)]


def sentences(held: Roofline) -> list[str]:
    """What the floors are made of, and what the pointwise layers reach."""
    peak, pointwise = held.peak, held.pointwise
    reached = f"pointwise layers: {pointwise.share_of_roofline:.1%} of the roofline"
    if isinstance(peak, HostPeak):
        levels = ", ".join(f"{level.name} {level.bytes_per_s / 1e9:.0f}" for level in peak.levels)
        rate = pointwise.macs / pointwise.measured / 1e3 if pointwise.measured else 0.0
        return [
            f"peak of one core, measured now: {peak.macs_per_s / 1e9:.1f} GMAC/s ({peak.instruction}); GB/s: {levels}",
            f"{reached}, {rate:.1f} GMAC/s",
        ]
    rest = f"outside of kernels: {held.rest / 1e3:.1f} k instructions"
    return [
        f"at most {peak.macs_per_instruction:g} multiply-adds or {peak.bytes_per_instruction:g} bytes an instruction",
        f"{reached}; {rest}",
    ]


def totals(held: Roofline, title: str) -> Table:
    """By kind of kernel, largest gap first; then pointwise layers and everything."""
    table = _table(held, title, "kernel", "steps", "M MACs")
    for section in (held.kinds, [held.pointwise, held.total]):
        for total in section:
            table.add_row(total.name, str(total.steps), f"{total.macs / 1e6:.2f}", *_cells(held, total))
        table.add_section()
    return table


def layers(held: Roofline, limit: int = SHOWN_LAYERS) -> Table:
    """The `limit` layers of the largest gaps."""
    table = _table(held, f"the {min(limit, len(held.layers))} largest gaps", "layer", "kernel", "bound by")
    for layer in held.by_gap[:limit]:
        table.add_row(layer.layer, layer.kernel, layer.bound, *_cells(held, layer))
    return table


def _table(held: Roofline, title: str, *first: str) -> Table:
    unit = "us" if held.unit == "us" else "thousands of instructions"
    table = Table(title=f"{title}, {unit}", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for index, heading in enumerate(first):
        is_number = heading in ("steps", "M MACs")
        table.add_column(
            heading,
            overflow="fold",
            justify="right" if is_number else "left",
            no_wrap=is_number,
            # in 80 columns a kernel's name folds before a layer's does
            min_width=LEAST_NAME_WIDTH if index == 0 else None,
        )
    for heading in ("floor", "took", "gap", "of gaps", "of roof"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(held: Roofline, row: LayerGap | Total) -> list[str]:
    divisor = 1 if held.unit == "us" else 1e3
    share = row.gap / held.total.gap if held.total.gap else 0.0
    values = (f"{value / divisor:.1f}" for value in (row.floor, row.measured, row.gap))
    return [*values, f"{share:.1%}", f"{row.share_of_roofline:.1%}"]
