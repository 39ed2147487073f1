"""The rows of a product's left operand on the stack, widened once for all panels of channels, and broadcast from there.

A broadcast of 32 bits from memory costs a load and nothing else; widening after it would cost two more instructions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Expr
from tvm.tirx.script.builder import ir as T

from ...intrinsics import x86_avx2 as avx2
from ..x86.emit import load, store
from .epilogue import LANES
from .products import Products

PART_BYTES = 992
"""Of one stack buffer: below what code generation would move to the arena, and whole vectors."""
MAX_UNROLLED = 4
"""Vectors of a run that are widened without a loop."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows of `segments` runs of `length` int8, contiguous in x from `start(row, segment)`."""

    x: tirx.Buffer
    segments: int
    length: int
    start: Callable[[Expr, Expr | int], list[Expr | int]]

    @property
    def size(self) -> int:
        """Inputs of a row."""
        return self.segments * self.length


@dataclasses.dataclass(frozen=True)
class Part:
    """Words of one row, from some step of the reduction on: the last axis of `buffer` at `prefix`."""

    buffer: tirx.Buffer
    prefix: tuple[int, ...]
    steps: int

    def store(self, offset: Expr | int, value: Expr, lanes: int) -> None:
        """Emit the store of `lanes` widened inputs."""
        store(self.buffer, [*self.prefix, offset], value, lanes)


@dataclasses.dataclass(frozen=True)
class WideRows:
    """Rows as words of widened inputs, each row cut into the same parts; inputs beyond `size` are zero."""

    products: Products
    size: int
    rows: list[list[Part]]

    def word(self, row: int, part: int, step: Expr | int) -> Expr:
        """Return int32x8: eight copies of a row's word number `step` of `part`."""
        group, found = self.products.group, self.rows[row][part]
        word = tirx.reinterpret("int32", load(found.buffer, [*found.prefix, step * group], group))
        return avx2.splat(word, "int32", LANES)

    def clear_rest(self) -> None:
        """Emit the zeros that fill the last word of each row."""
        for row in self.rows:
            whole = sum(part.steps for part in row) * self.products.group
            for missing in range(whole - self.size):
                row[-1].store(row[-1].steps * self.products.group - 1 - missing, tirx.const(0, self.products.dtype), 1)


def rows_in_arena(products: Products, count: int, size: int) -> WideRows:
    """Return rows that something else fills, in one buffer of any size; code generation may place it in the arena."""
    steps = -(-size // products.group)
    buffer = T.alloc_buffer((count, steps * products.group), products.dtype)
    IRBuilder.name("hidden", buffer)
    return WideRows(products, size, [[Part(buffer, (row,), steps)] for row in range(count)])


def expand_rows(products: Products, source: Source, numbers: Sequence[Expr]) -> WideRows:
    """Emit the widening of rows `numbers` of `source` into buffers on the stack and return them."""
    capacity = PART_BYTES * products.group // 4
    steps = [-(-min(capacity, source.size - at) // products.group) for at in range(0, source.size, capacity)]
    wide = WideRows(products, source.size, [[_stack_part(products, count) for count in steps] for _ in numbers])
    for row, parts in zip(numbers, wide.rows, strict=True):
        for segment in range(source.segments):
            begin, end = segment * source.length, (segment + 1) * source.length
            at = begin
            while at < end:
                part, offset = divmod(at, capacity)
                count = min(end - at, capacity - offset)
                *outer, first = source.start(row, segment)
                _expand_run(products, source.x, [*outer, first + at - begin], parts[part], offset, count)
                at += count
    wide.clear_rest()
    return wide


def _stack_part(products: Products, steps: int) -> Part:
    buffer = T.alloc_buffer((steps * products.group,), products.dtype)
    IRBuilder.name("wide", buffer)
    return Part(buffer, (), steps)


def _expand_run(
    products: Products, x: tirx.Buffer, indices: list[Expr | int], part: Part, offset: int, count: int
) -> None:
    *outer, first = indices
    lanes = LANES * products.group
    whole = count // lanes

    def piece(at: Expr | int, lanes: int) -> None:
        part.store(offset + at, products.widened(load(x, [*outer, first + at], lanes)), lanes)

    if whole <= MAX_UNROLLED:
        for k in range(whole):
            piece(k * lanes, lanes)
    else:
        with T.serial(whole) as k:
            piece(k * lanes, lanes)
    done = whole * lanes
    while done < count:
        lanes //= 2
        if count - done >= lanes:
            piece(done, lanes)
            done += lanes
