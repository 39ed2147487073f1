"""HoistWorkspaces: scratch too large for the stack becomes pointer parameters that the memory plan places in the arena.

Before:
    for t in T.parallel(4):
        acc = T.alloc_buffer((1024,), "float32")
        ...
After:
    def kernel(..., ws: T.Buffer((4096,), "float32")):          # 4 slots of 4 KiB
        for t in T.parallel(4):
            acc = T.decl_buffer((1024,), "float32", data=address_of(ws[t * 1024]))
            ...
Why here: after CompactBufferAllocation and StorageRewrite, so only what is really needed counts, and before
built-ins are lowered, which would turn large allocations into calls of a runtime allocator. A slot per iteration of
the parallel loop keeps threads apart.
Leaves alone: allocations of at most MAX_STACK_BYTES, which live on the stack or in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx import Stmt

# TVM's LowerTVMBuiltin keeps constant allocations strictly below 1024 bytes on the stack.
MAX_STACK_BYTES = 1023
# Vector loads assume that every buffer starts at this alignment.
SLOT_ALIGN_BYTES = 64


@dataclass(frozen=True)
class ParallelScope:
    """The parallel loop around a statement: slot number of its iteration and number of slots."""

    slot: tirx.Expr
    slots: int


def map_children(stmt: Stmt, visit: Callable[[Stmt], Stmt]) -> Stmt:
    """`stmt` with `visit` applied to the statements directly inside it."""
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([visit(child) for child in stmt.seq], stmt.span)
    if isinstance(stmt, tirx.For):
        return tirx.For(
            stmt.loop_var,
            stmt.min,
            stmt.extent,
            stmt.kind,
            visit(stmt.body),
            stmt.thread_binding,
            stmt.annotations,
            stmt.step,
        )
    if isinstance(stmt, tirx.IfThenElse):
        other = visit(stmt.else_case) if stmt.else_case is not None else None
        return tirx.IfThenElse(stmt.condition, visit(stmt.then_case), other)
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, visit(stmt.body))
    if isinstance(stmt, tirx.While):
        return tirx.While(stmt.condition, visit(stmt.body))
    return stmt


def _alloc_elements(buffer: tirx.Buffer) -> int:
    return math.prod(int(dim) for dim in buffer.shape)


def _element_bytes(dtype: str) -> int:
    base, _, lanes = dtype.partition("x")
    return (1 if base == "bool" else np.dtype(base).itemsize) * int(lanes or 1)


def hoist_workspaces(func: tirx.PrimFunc) -> tuple[tirx.PrimFunc, tuple[int, ...]]:
    """(`func` with one more parameter per large allocation, the bytes of each); the result allocates nothing large."""
    workspaces: list[tirx.Buffer] = []
    sizes: list[int] = []

    def replace(alloc: tirx.AllocBuffer, scope: ParallelScope | None) -> Stmt:
        buffer = alloc.buffer
        dtype = str(buffer.dtype)
        size = _alloc_elements(buffer) * _element_bytes(dtype)
        if size <= MAX_STACK_BYTES:
            return alloc
        slots = scope.slots if scope else 1
        slot_bytes = -(-size // SLOT_ALIGN_BYTES) * SLOT_ALIGN_BYTES
        # A buffer of vectors (StorageRewrite makes them) is a pointer to their elements in the function's signature.
        scalar = dtype.partition("x")[0]
        slot_elements = slot_bytes // _element_bytes(scalar)
        workspace = tirx.decl_buffer((slots * slot_elements,), scalar, name=f"{buffer.name}_ws")
        workspaces.append(workspace)
        sizes.append(slots * slot_bytes)
        start = scope.slot * slot_elements if scope else tirx.IntImm("int32", 0)
        return tirx.DeclBuffer(buffer, data=tirx.address_of(workspace[start]))

    def visit(stmt: Stmt, scope: ParallelScope | None) -> Stmt:
        if isinstance(stmt, tirx.AllocBuffer):
            return replace(stmt, scope)
        if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL and scope is None:
            scope = ParallelScope(stmt.loop_var - stmt.min, int(stmt.extent))
        return map_children(stmt, lambda child: visit(child, scope))

    body = visit(func.body, None)
    if not workspaces:
        return func, ()
    return tirx.PrimFunc([*func.params, *workspaces], body, func.ret_type, func.attrs), tuple(sizes)
