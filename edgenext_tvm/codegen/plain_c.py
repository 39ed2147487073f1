"""Scheduled PrimFuncs become plain functions `int32_t NAME(pointers..., int32_t begin, int32_t end)`, free of TVM.

Before:
    def kernel(x: T.Buffer((32, 16), "int8"), y: T.Buffer((32, 16), "int8")):
        for t in T.parallel(32): ...
After:
    def kernel(x: T.handle("int8"), y: T.handle("int8"), begin: T.int32, end: T.int32) -> T.int32:
        for t in range(begin, end): ...
        return 0
Why here: this replaces TVM's MakePackedAPI. The caller (the runtime's thread pool) splits [0, extent) into ranges; a
kernel without a parallel loop has extent 1. Parameters that share memory become one pointer, so that no two pointers
alias.
Leaves alone: the loops inside, except that parallel loops below the outermost one become serial.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx
from tvm.s_tir import transform as s_tir_transform
from tvm.target import Target
from tvm.tirx import Stmt
from tvm.tirx import transform as tirx_transform

from edgenext_tvm.codegen.hoist_workspaces import hoist_workspaces, map_children

ALIGN_BYTES = 64


@dataclass(frozen=True)
class Pointer:
    """One pointer parameter: C element type by TVM dtype; `is_const` if the kernel only reads through it."""

    name: str
    dtype: str
    is_const: bool


@dataclass(frozen=True)
class PlainKernel:
    """A lowered kernel.

    func           the PrimFunc with pointer parameters, begin and end
    pointers       its pointer parameters in order
    arguments      for each pointer, the index of the original parameter that it stands for; hoisted workspaces follow
                   as indices >= the number of original parameters
    extent         upper bound of `end`
    hoisted_bytes  sizes of the workspaces that lowering added
    """

    name: str
    func: tirx.PrimFunc
    pointers: tuple[Pointer, ...]
    arguments: tuple[int, ...]
    extent: int
    hoisted_bytes: tuple[int, ...]


def lowering_passes(vectorize: bool, has_blocks: bool = True) -> tvm.ir.transform.Pass:
    """TVM's default lowering up to the point where it would build the packed calling convention.

    has_blocks: False for functions written without schedulable blocks; their buffers have their final size, and
    looking for smaller ones takes seconds.
    """
    s, x = s_tir_transform, tirx_transform
    blocks = [
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.CompactBufferAllocation(),
        s.LowerMatchBuffer(),
        s.StmtSimplify(),
        s.LowerOpaqueBlock(),
    ]
    return tvm.ir.transform.Sequential(
        [
            s.CanonicalizeLoop(),
            *(blocks if has_blocks else [s.StmtSimplify()]),
            x.FlattenBuffer(),
            x.NarrowDataType(32),
            s.LoopPartition(),
            x.VectorizeLoop(vectorize),
            x.StorageRewrite(),
            s.HoistIfThenElse(),
            x.UnrollLoop(),
            s.RenormalizeSplitPattern(),
            x.StmtSimplify(),
            x.RemoveNoOp(),
            s.RewriteUnsafeSelect(),
            x.CommonSubexprElim(),
        ]
    )


def _top_parallel_loop(stmt: Stmt) -> tirx.For | None:
    """The only parallel loop that covers all work of `stmt`, or None: bindings and declarations may stand before it."""
    if isinstance(stmt, tirx.For):
        return stmt if stmt.kind == tirx.ForKind.PARALLEL else None
    if isinstance(stmt, tirx.AttrStmt):
        return _top_parallel_loop(stmt.body)
    if isinstance(stmt, tirx.SeqStmt):
        work = [s for s in stmt.seq if not isinstance(s, tirx.Bind | tirx.DeclBuffer | tirx.AllocBuffer)]
        return _top_parallel_loop(work[0]) if len(work) == 1 else None
    return None


def _serial(stmt: Stmt) -> Stmt:
    if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL:
        stmt = tirx.For(
            stmt.loop_var,
            stmt.min,
            stmt.extent,
            tirx.ForKind.SERIAL,
            stmt.body,
            None,
            stmt.annotations,
            stmt.step,
        )
    return map_children(stmt, _serial)


def _normalize_parallel(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """At most one parallel loop remains, the one around all work."""
    top = _top_parallel_loop(func.body)

    def visit(stmt: Stmt) -> Stmt:
        if top is not None and stmt.same_as(top):
            return map_children(stmt, _serial)
        if isinstance(stmt, tirx.For):
            return _serial(stmt)
        return map_children(stmt, visit)

    return func.with_body(visit(func.body))


def _bound_by_range(stmt: Stmt, begin: tirx.Var, end: tirx.Var) -> Stmt:
    def visit(stmt: Stmt) -> Stmt:
        if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL:
            return tirx.For(stmt.loop_var, stmt.min + begin, end - begin, tirx.ForKind.SERIAL, stmt.body)
        return map_children(stmt, visit)

    return visit(stmt)


def _free_name(name: str, taken: Sequence[str]) -> str:
    """`name`, numbered if another parameter has it already (outputs of one operator share their name)."""
    candidates = [name, *(f"{name}_{number}" for number in range(1, len(taken) + 1))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _to_plain_function(
    func: tirx.PrimFunc, name: str, merged: Mapping[int, int], written: Sequence[int], num_original: int
) -> tuple[tirx.PrimFunc, list[Pointer], list[int]]:
    variables: dict[int, tirx.Var] = {}
    pointers: list[Pointer] = []
    arguments: list[int] = []
    for index, param in enumerate(func.params):
        if index in merged:
            continue
        dtype = str(param.dtype)
        pointer_type = tvm.ir.PointerType(tvm.ir.PrimType(dtype), "global")
        free = _free_name(param.name, [pointer.name for pointer in pointers])
        variables[index] = tirx.Var(free, pointer_type)
        pointers.append(Pointer(free, dtype, index not in written and index < num_original))
        arguments.append(index)
    begin, end = tirx.Var("begin", "int32"), tirx.Var("end", "int32")
    top = _top_parallel_loop(func.body)
    body = func.body if top is None else _bound_by_range(func.body, begin, end)
    if top is None:
        body = tirx.IfThenElse(begin < end, body, None)
    declarations: list[Stmt] = []
    for index, param in enumerate(func.params):
        declarations.append(tirx.DeclBuffer(param, data=variables[merged.get(index, index)]))
    for variable in reversed(variables.values()):
        body = tirx.AttrStmt(variable, "storage_alignment", tirx.IntImm("int32", ALIGN_BYTES), body)
    body = tirx.SeqStmt([*declarations, body, tirx.Return(tirx.IntImm("int32", 0))])
    plain = tirx.PrimFunc([*variables.values(), begin, end], body, tvm.ir.PrimType("int32"), func.attrs)
    plain = plain.with_attr("global_symbol", name).with_attr("tirx.noalias", True)
    return plain, pointers, arguments


def lower_kernel(
    func: tirx.PrimFunc,
    name: str,
    target: Target,
    written: Sequence[int],
    merged: Mapping[int, int] | None = None,
) -> PlainKernel:
    """The plain function `name` of a scheduled `func`.

    written  indices of the parameters that the kernel writes (outputs, workspaces, overwritten inputs)
    merged   {parameter: parameter}: the first is the same memory as the second and is dropped from the signature
    """
    merged = merged or {}
    vectorize = target.kind.name != "c"
    mod = tvm.IRModule({name: func.with_attr("target", target).with_attr("global_symbol", name)})
    with tvm.transform.PassContext(opt_level=3):
        mod = lowering_passes(vectorize, has_blocks="s_tir" in func.attrs)(mod)
    num_original = len(func.params)
    lowered = _normalize_parallel(mod[name])
    lowered, hoisted_bytes = hoist_workspaces(lowered)
    top = _top_parallel_loop(lowered.body)
    extent = 1 if top is None else int(top.extent)
    plain, pointers, arguments = _to_plain_function(lowered, name, merged, written, num_original)
    mod = tvm.IRModule({name: plain})
    with tvm.transform.PassContext(opt_level=3):
        mod = tirx_transform.LowerIntrin()(tirx_transform.LowerTVMBuiltin()(mod))
    return PlainKernel(name, mod[name], tuple(pointers), tuple(arguments), extent, hoisted_bytes)


def object_bytes(kernels: Sequence[PlainKernel], target: Target) -> bytes:
    """One relocatable object with all `kernels`, through LLVM: the same bytes for the same input."""
    mod = tvm.IRModule({kernel.name: kernel.func for kernel in kernels})
    with tvm.transform.PassContext(opt_level=3):
        lib = tvm.get_global_func("target.build.llvm")(mod, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        lib.write_to_file(str(path))
        return path.read_bytes()
