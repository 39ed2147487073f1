"""What every way to measure a candidate has in common: candidates in, one measurement each out, in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tvm import tirx

from ..errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel at one point of its design space.

    func       the canonical, unscheduled function
    decisions  a value for every knob of its space; a mapping without entries where the space has no knobs
    """

    func: tirx.PrimFunc
    decisions: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one candidate took: one number for each round, or why there is none.

    seconds  seconds of one call on one thread, a number a round; of an emulator its cost units times 1e-9
    error    what went wrong, in one or a few lines; None if and only if `seconds` has numbers
    """

    seconds: tuple[float, ...]
    error: str | None = None

    def __post_init__(self) -> None:
        assert bool(self.seconds) == (self.error is None), self

    @property
    def ok(self) -> bool:
        """Whether there are numbers."""
        return self.error is None


class MeasurerLost(UserError):
    """The device that measures is gone: no further batch can be measured before it is back.

    measurements  those of the batch under way: what was measured before the loss, and errors for the rest
    """

    def __init__(self, message: str, measurements: Sequence[Measurement] = ()) -> None:
        super().__init__(message)
        self.measurements = tuple(measurements)


class Measurer(Protocol):
    """A way to measure candidates.

    name      "local", "ssh", "emulator" or "rpc"
    unit      "s", or "instructions" where the numbers are a cost times 1e-9 and no time
    parallel  how many candidates it measures at the same time: batches of a multiple of this waste nothing
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def parallel(self) -> int: ...

    def describe(self) -> dict[str, Any]:
        """How it measures (processor, governor, temperature, flags), as JSON values, for logs and manifests.

        MeasurerLost if that needs a device that cannot be reached.
        """

    def measure(self, batch: Sequence[Candidate]) -> list[Measurement]:
        """One measurement for each candidate of `batch`, in its order.

        A candidate that cannot be built, crashes, or does not end in time gets an error, and the rest is measured.
        Candidates of one batch may be compared best: they run in turn, so that drift hits all alike. MeasurerLost if
        the device is gone.
        """

    def notes(self) -> Sequence[str]:
        """What a user should know of the measuring so far, a line each, such as devices that were lost."""

    def close(self) -> None:
        """Give back what it holds: processes, connections, temporary files. It cannot measure afterwards."""
