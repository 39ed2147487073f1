"""A design space: the choices that a schedule leaves open, their hand-picked point, and the code at any point.

Every point computes the same bits. Tuning picks a point by measurement; without tuning the defaults are used.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

from tvm import tirx

from ..errors import UserError

Decisions = Mapping[str, int]
"""A value for every knob of a space."""


@dataclasses.dataclass(frozen=True)
class Knob:
    """One choice: a name, the values it may take, ascending, and the hand-picked one."""

    name: str
    values: tuple[int, ...]
    default: int

    def __post_init__(self) -> None:
        assert self.default in self.values, (self.name, self.default, self.values)
        assert tuple(sorted(set(self.values))) == self.values, (self.name, self.values)


def _always(_: Decisions) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Space:
    """The choices of one kernel on one instruction set.

    family    whose choices these are, such as "x86_vnni.dense": decisions of another family mean nothing here
    build     decisions -> the scheduled function; pure: equal decisions give equal functions
    fits      whether values of the knobs go together, such as a tile that must fit into registers
    """

    family: str
    build: Callable[[Decisions], tirx.PrimFunc]
    knobs: tuple[Knob, ...] = ()
    fits: Callable[[Decisions], bool] = _always

    @property
    def default(self) -> dict[str, int]:
        """The hand-picked point."""
        return {knob.name: knob.default for knob in self.knobs}

    def points(self) -> Iterator[dict[str, int]]:
        """Yield every valid point, in the order of the knobs' values."""
        names = [knob.name for knob in self.knobs]
        for values in itertools.product(*(knob.values for knob in self.knobs)):
            point = dict(zip(names, values, strict=True))
            if self.fits(point):
                yield point

    def check(self, decisions: Decisions) -> None:
        """Raise UserError unless `decisions` is a point of this space."""
        allowed = {knob.name: knob.values for knob in self.knobs}
        if decisions.keys() != allowed.keys():
            raise UserError(f"{self.family} has the knobs {sorted(allowed)}, but {sorted(decisions)} were given")
        for name, value in decisions.items():
            if value not in allowed[name]:
                raise UserError(f"{self.family}: {name} is {value}; allowed: {', '.join(map(str, allowed[name]))}")
        if not self.fits(decisions):
            raise UserError(f"{self.family}: {dict(decisions)} do not go together; see the space's definition")

    def at(self, decisions: Decisions | None = None) -> tirx.PrimFunc:
        """Return the function at a point, by default the hand-picked one. UserError if it is none of this space."""
        if decisions is None:
            return self.build(self.default)
        self.check(decisions)
        return self.build(decisions)
