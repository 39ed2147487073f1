"""Which inputs a kernel's first output may overwrite, proven from the unscheduled function.

An input qualifies if it is read only by the block that writes the output, at exactly the indices that the block writes,
and that block writes each element once. Schedules keep this: they recompute producers, never the block that writes an
output.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm_ffi import structural_equal, structural_walk

_SPATIAL = 0


def _collect(block: s_tir.SBlock, node_type: type) -> list:
    found: list = []
    structural_walk(block.body, (node_type, found.append))
    if block.init is not None:
        structural_walk(block.init, (node_type, found.append))
    return found


def _same_indices(first: list, second: list) -> bool:
    return len(first) == len(second) and all(structural_equal(a, b) for a, b in zip(first, second, strict=True))


def overwritable_inputs(func: tirx.PrimFunc, num_inputs: int) -> tuple[int, ...]:
    """Indices of the inputs of `func` whose memory output 0 may take over; () if none can be proven.

    func  unscheduled, parameters: num_inputs inputs, then the outputs
    """
    if num_inputs >= len(func.params):
        return ()
    blocks: list[s_tir.SBlock] = []
    structural_walk(func.body, (s_tir.SBlock, blocks.append))
    blocks = [block for block in blocks if block.iter_vars]
    output = func.params[num_inputs]
    writers = [
        (block, store)
        for block in blocks
        for store in _collect(block, tirx.BufferStore)
        if store.buffer.same_as(output)
    ]
    if len(writers) != 1 or any(int(v.iter_type) != _SPATIAL for v in writers[0][0].iter_vars):
        return ()
    writer, store = writers[0]
    loads = {True: _collect(writer, TensorLoad), False: []}
    for block in blocks:
        if not block.same_as(writer):
            loads[False] += _collect(block, TensorLoad)
    everywhere = loads[True] + loads[False]
    if any(load.source.same_as(output) for load in everywhere):
        return ()

    def qualifies(buffer: tirx.Buffer) -> bool:
        here = [load for load in loads[True] if load.source.same_as(buffer)]
        elsewhere = any(load.source.same_as(buffer) for load in loads[False])
        same_type = str(buffer.dtype) == str(output.dtype) and _same_indices(buffer.shape, output.shape)
        return (
            bool(here)
            and not elsewhere
            and same_type
            and all(_same_indices(load.indices, store.indices) for load in here)
        )

    return tuple(index for index in range(num_inputs) if qualifies(func.params[index]))
