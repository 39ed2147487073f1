"""The memory plan: every tensor of a program at a fixed byte offset of one arena, live ranges never overlapping.

Tensors that share memory on purpose (in-place kernels, and outputs that take over the slot of an input which dies in
the same step) form one `Buffer`. Placement is greedy best fit over several orders, each improved by moving what lies
highest to the front; the smallest total wins. The
optimum is NP-hard (dynamic storage allocation); greedy by size is within a few percent of the lower bound on networks
(Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgenext_tvm.codegen.program import Program, Step, ValueRef
from edgenext_tvm.errors import UserError

ALIGN_BYTES = 64
IMPROVEMENT_ROUNDS = 200


@dataclass(frozen=True)
class Buffer:
    """Bytes needed during the steps first_step..last_step, both included. Step -1 is the filling of the input."""

    size_bytes: int
    first_step: int
    last_step: int

    def overlaps(self, other: Buffer) -> bool:
        return self.first_step <= other.last_step and other.first_step <= self.last_step


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets in the arena, each a multiple of ALIGN_BYTES.

    value_offsets     by value id (workspaces that kernels declare as outputs are values too)
    hoisted_offsets   by step index: one offset per workspace that lowering added to that step's kernel
    lower_bound_bytes the largest sum of sizes alive at one step: no plan can be smaller
    """

    value_offsets: Mapping[int, int]
    hoisted_offsets: Mapping[int, tuple[int, ...]]
    arena_bytes: int
    lower_bound_bytes: int


def _aligned(size_bytes: int) -> int:
    return max(1, -(-size_bytes // ALIGN_BYTES)) * ALIGN_BYTES


def lower_bound_bytes(buffers: Sequence[Buffer]) -> int:
    """The largest sum of aligned sizes alive at one step."""
    steps = {buffer.first_step for buffer in buffers}
    return max(
        (sum(_aligned(b.size_bytes) for b in buffers if b.first_step <= s <= b.last_step) for s in steps),
        default=0,
    )


def _place_in_order(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    offsets = [0] * len(buffers)
    placed: list[int] = []
    total = 0
    for index in order:
        size = _aligned(buffers[index].size_bytes)
        conflicts = sorted(
            (offsets[i], offsets[i] + _aligned(buffers[i].size_bytes))
            for i in placed
            if buffers[i].overlaps(buffers[index])
        )
        best: tuple[int, int] | None = None
        gap_start = 0
        for start, end in conflicts:
            gap = start - gap_start
            if gap >= size and (best is None or gap < best[0]):
                best = (gap, gap_start)
            gap_start = max(gap_start, end)
        offsets[index] = best[1] if best else gap_start
        total = max(total, offsets[index] + size)
        placed.append(index)
    return offsets, total


def _improve(
    buffers: Sequence[Buffer], order: list[int], placed: tuple[list[int], int], bound: int
) -> tuple[list[int], int]:
    """Moves the buffer that ends highest to the front of the order, again and again; the best placement seen."""
    best = placed
    seen = {tuple(order)}
    for _ in range(IMPROVEMENT_ROUNDS):
        offsets, total = placed
        if best[1] == bound:
            break
        highest = next(i for i in order if offsets[i] + _aligned(buffers[i].size_bytes) == total)
        order = [highest, *(i for i in order if i != highest)]
        if tuple(order) in seen:
            break
        seen.add(tuple(order))
        placed = _place_in_order(buffers, order)
        if placed[1] < best[1]:
            best = placed
    return best


def place_buffers(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """(offset per buffer, total bytes): buffers alive at the same step never share a byte; deterministic."""
    steps = {buffer.first_step for buffer in buffers}
    alive_at = {s: sum(_aligned(b.size_bytes) for b in buffers if b.first_step <= s <= b.last_step) for s in steps}
    pressure = [max(alive_at[s] for s in steps if b.first_step <= s <= b.last_step) for b in buffers]
    duration = [b.last_step - b.first_step + 1 for b in buffers]
    size = [b.size_bytes for b in buffers]
    orders: list[Callable[[int], tuple]] = [
        lambda i: (-size[i], -duration[i], i),
        lambda i: (-size[i] * duration[i], i),
        lambda i: (-pressure[i], -size[i], i),
        lambda i: (buffers[i].first_step, -size[i], i),
    ]
    bound = lower_bound_bytes(buffers)
    best: tuple[list[int], int] | None = None
    for key in orders:
        order = sorted(range(len(buffers)), key=key)
        placed = _improve(buffers, order, _place_in_order(buffers, order), bound)
        if best is None or placed[1] < best[1]:
            best = placed
        if best[1] == bound:
            break
    assert best is not None
    return best


def _last_uses(program: Program) -> dict[int, int]:
    last = {value.id: -1 for value in program.values}
    for index, step in enumerate(program.steps):
        for ref in step.inputs:
            if isinstance(ref, ValueRef):
                last[ref.id] = index
        for output in step.outputs:
            last[output] = max(last[output], index)
    last[program.output] = len(program.steps)
    return last


class _Sharing:
    """Union-find over values that occupy the same bytes."""

    def __init__(self, program: Program) -> None:
        self.parent = list(range(len(program.values)))
        self.last_use = _last_uses(program)

    def root(self, value: int) -> int:
        while self.parent[value] != value:
            value = self.parent[value]
        return value

    def join(self, value: int, into: int) -> None:
        value, into = self.root(value), self.root(into)
        self.parent[value] = into
        self.last_use[into] = max(self.last_use[into], self.last_use[value])


def _required_sharing(program: Program, index: int, step: Step, sharing: _Sharing) -> dict[int, int]:
    shared = {}
    for output, source in step.inplace:
        operand = step.inputs[source]
        if not isinstance(operand, ValueRef):
            raise UserError(
                f"step '{step.name}' ({step.layer}) overwrites a constant; an in-place kernel needs a "
                "tensor computed before"
            )
        if sharing.last_use[sharing.root(operand.id)] > index:
            name = program.values[operand.id].name
            raise UserError(
                f"step '{step.name}' ({step.layer}) overwrites '{name}' in place, but a later step "
                f"still reads '{name}'; "
                "the step must be the last reader"
            )
        if program.values[operand.id].size_bytes != program.values[step.outputs[output]].size_bytes:
            raise UserError(f"step '{step.name}' ({step.layer}): the in-place output and its input differ in size")
        # Other operands that are the same tensor must go through the same pointer: pointers never alias.
        root = sharing.root(operand.id)
        for other, ref in enumerate(step.inputs):
            if isinstance(ref, ValueRef) and sharing.root(ref.id) == root:
                shared[other] = output
    return shared


def _optional_sharing(program: Program, index: int, step: Step, sharing: _Sharing) -> dict[int, int]:
    roots = [sharing.root(ref.id) if isinstance(ref, ValueRef) else None for ref in step.inputs]
    result = step.outputs[0]
    for candidate in step.may_alias:
        root = roots[candidate]
        operand = step.inputs[candidate]
        if (
            isinstance(operand, ValueRef)
            and root is not None
            and sharing.last_use[root] == index
            and roots.count(root) == 1
            and program.values[operand.id].size_bytes == program.values[result].size_bytes
        ):
            return {candidate: 0}
    return {}


def share_memory(program: Program) -> list[dict[int, int]]:
    """Per step: {input index: output index} of operands that share bytes.

    Required for in-place steps (UserError if the overwritten tensor is read later); taken where the kernel allows it
    (`Step.may_alias`) and the input, read once, dies in the step.
    """
    sharing = _Sharing(program)
    result = []
    for index, step in enumerate(program.steps):
        shared = _required_sharing(program, index, step, sharing) or _optional_sharing(program, index, step, sharing)
        for source, output in shared.items():
            operand = step.inputs[source]
            assert isinstance(operand, ValueRef)
            sharing.join(step.outputs[output], operand.id)
        result.append(shared)
    return result


def plan_memory(
    program: Program,
    shared: Sequence[Mapping[int, int]],
    hoisted_bytes: Mapping[int, Sequence[int]] | None = None,
) -> MemoryPlan:
    """Offsets for all values and for `hoisted_bytes[step]`, the sizes of workspaces that lowering added to a step."""
    hoisted_bytes = hoisted_bytes or {}
    sharing = _Sharing(program)
    first = {program.input: -1}
    for index, step in enumerate(program.steps):
        for output in step.outputs:
            first[output] = index
        for source, output in shared[index].items():
            operand = step.inputs[source]
            assert isinstance(operand, ValueRef)
            sharing.join(step.outputs[output], operand.id)
    members: dict[int, list[int]] = {}
    for value in first:
        members.setdefault(sharing.root(value), []).append(value)
    buffers = [
        Buffer(
            size_bytes=max(program.values[v].size_bytes for v in values),
            first_step=min(first[v] for v in values),
            last_step=sharing.last_use[root],
        )
        for root, values in members.items()
    ]
    extra = [(step, Buffer(size, step, step)) for step in sorted(hoisted_bytes) for size in hoisted_bytes[step]]
    everything = buffers + [buffer for _, buffer in extra]
    offsets, total = place_buffers(everything)
    value_offsets = {v: offsets[i] for i, values in enumerate(members.values()) for v in values}
    hoisted: dict[int, list[int]] = {}
    for (step_index, _), offset in zip(extra, offsets[len(buffers) :], strict=True):
        hoisted.setdefault(step_index, []).append(offset)
    return MemoryPlan(
        value_offsets=value_offsets,
        hoisted_offsets={step: tuple(found) for step, found in hoisted.items()},
        arena_bytes=total,
        lower_bound_bytes=lower_bound_bytes(everything),
    )
