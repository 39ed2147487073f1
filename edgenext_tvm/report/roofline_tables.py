"""A roofline as tables: what the core can do, totals by kind of kernel, and layers by their gap."""

from __future__ import annotations

from rich import box
from rich.table import Table

from edgenext_tvm.report.host_peak import HostPeak
from edgenext_tvm.report.roofline import Roofline, Total

SHOWN_LAYERS = 25


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
    table = _table(held, title, "kernel", "steps")
    for total in held.kinds:
        _add(table, held, total, str(total.steps))
    table.add_section()
    for total in (held.pointwise, held.total):
        _add(table, held, total, str(total.steps))
    return table


def layers(held: Roofline, limit: int = SHOWN_LAYERS) -> Table:
    """The `limit` layers of the largest gaps."""
    table = _table(held, "largest gaps", "layer", "kernel", "bound by")
    for layer in held.by_gap[:limit]:
        named = Total(layer.layer, 1, layer.macs, layer.floor, layer.measured)
        _add(table, held, named, layer.kernel, layer.bound)
    return table


def _table(held: Roofline, title: str, *first: str) -> Table:
    unit = "us" if held.unit == "us" else "k instr."
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for index, heading in enumerate(first):
        table.add_column(heading, overflow="fold", no_wrap=index > 0)
    for heading in ("M MACs", f"floor {unit}", f"measured {unit}", f"gap {unit}", "of all gaps", "of roofline"):
        table.add_column(heading, justify="right")
    return table


def _add(table: Table, held: Roofline, total: Total, *texts: str) -> None:
    divisor = 1 if held.unit == "us" else 1e3
    share = total.gap / held.total.gap if held.total.gap else 0.0
    table.add_row(
        total.name,
        *texts,
        f"{total.macs / 1e6:.2f}",
        *(f"{value / divisor:.1f}" for value in (total.floor, total.measured, total.gap)),
        f"{share:.1%}",
        f"{total.share_of_roofline:.1%}",
    )
