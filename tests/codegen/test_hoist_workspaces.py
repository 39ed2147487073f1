from __future__ import annotations

import tvm
from tvm.script import tirx as T
from tvm_ffi import structural_walk

from edgenext_tvm.codegen.hoist_workspaces import MAX_STACK_BYTES, hoist_workspaces


def allocations(func) -> list:
    found: list = []
    structural_walk(func.body, (tvm.tirx.AllocBuffer, found.append))
    return found


def test_a_large_allocation_becomes_a_parameter():
    @T.prim_func
    def before(x: T.Buffer((512,), "float32"), y: T.Buffer((512,), "float32")):
        big = T.alloc_buffer((512,), "float32")
        for i in range(512):
            big[i] = x[i]
        for i in range(512):
            y[i] = big[511 - i]

    after, sizes = hoist_workspaces(before)
    assert sizes == (2048,)
    assert allocations(after) == []
    assert len(after.params) == 3
    assert (str(after.params[2].dtype), [int(d) for d in after.params[2].shape]) == ("float32", [512])


def test_inside_the_parallel_loop_each_iteration_has_its_own_aligned_slot():
    @T.prim_func
    def before(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
        for t in T.parallel(4):
            big = T.alloc_buffer((300,), "float32")
            for i in range(300):
                big[i] = x[t]
            y[t] = big[299]

    after, sizes = hoist_workspaces(before)
    # 300 floats are 1200 bytes, a slot 1216
    assert sizes == (4 * 1216,)
    assert "t * 304" in after.script()
    assert allocations(after) == []


def test_small_allocations_stay():
    elements = MAX_STACK_BYTES // 4

    @T.prim_func
    def before(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
        small = T.alloc_buffer((elements,), "float32")
        for i in range(8):
            small[i] = x[i]
        for i in range(8):
            y[i] = small[7 - i]

    after, sizes = hoist_workspaces(before)
    assert sizes == ()
    assert after.same_as(before)


def test_a_buffer_of_vectors_is_a_pointer_to_their_elements():
    @T.prim_func
    def before(x: T.Buffer((100,), "int8x16"), y: T.Buffer((100,), "int8x16")):
        for t in T.parallel(2):
            big = T.alloc_buffer((100,), "int8x16")
            for i in range(100):
                big[i] = x[i]
            for i in range(50):
                y[t * 50 + i] = big[99 - i]

    after, sizes = hoist_workspaces(before)
    # 100 vectors are 1600 bytes, a slot 1600
    assert sizes == (2 * 1600,)
    assert (str(after.params[2].dtype), [int(d) for d in after.params[2].shape]) == ("int8", [3200])
    assert "t * 1600" in after.script()
    assert allocations(after) == []
