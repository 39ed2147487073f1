from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import relax as R
from tvm.script import tirx as T

from edgenext_tvm.codegen.program import ConstantRef, ValueRef, read_program
from edgenext_tvm.errors import UserError


def double_kernel(rows: int, columns: int):
    @T.prim_func(s_tir=True)
    def double(x: T.Buffer((rows, columns), "int8"), y: T.Buffer((rows, columns), "int8")):
        for i, j in T.grid(rows, columns):
            with T.sblock("double"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = x[vi, vj] * T.int8(2)

    return double


def module(build, shape=(4, 6)) -> tvm.IRModule:
    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor(shape, "int8"))
    with bb.function("main", [x]):
        with bb.dataflow():
            out = bb.emit_output(build(bb, x))
        bb.emit_func_output(out)
    return bb.finalize()


def test_steps_carry_layer_kind_operands_and_macs(small_model):
    program = read_program(small_model.mod)
    assert [(s.layer, s.kind) for s in program.steps] == [
        ("stem", "dense"),
        ("block0.expand", "dense"),
        ("block0.project", "dense"),
        ("block1.expand", "dense"),
        ("block1.project", "dense"),
        ("mix", "negate"),
        ("head.pool", "pool"),
        ("head.peak", "peak"),
    ]
    stem, project, mix, pool = (program.steps[i] for i in (0, 2, 5, 6))
    assert stem.macs == 16 * 3 * 8
    assert [type(o) for o in stem.inputs] == [ValueRef, ConstantRef, ConstantRef, ConstantRef]
    assert project.may_alias == (4,)
    assert mix.inplace == ((0, 1),)
    assert (len(pool.results), len(pool.workspaces)) == (1, 1)


def test_a_reshape_is_the_same_value(small_model):
    program = read_program(small_model.mod)
    assert program.steps[0].inputs[0] == ValueRef(program.input)


def test_an_operator_that_was_not_lowered_is_named_with_its_layer():
    mod = module(lambda bb, x: bb.emit(relax.op.add(x, x), name_hint="sum"))
    main = mod["main"].with_attr("enx.layers", '{"sum": "stages.1.blocks.0"}')
    mod.update_func(mod.get_global_var("main"), main)
    with pytest.raises(
        UserError, match=r"layer 'stages.1.blocks.0' still contains the operator 'relax.add'.*R.call_tir"
    ):
        read_program(mod)


def test_a_model_that_returns_its_input_is_refused():
    mod = module(lambda bb, x: bb.emit(relax.op.reshape(x, (24,))))
    with pytest.raises(UserError, match="main returns its input or a constant"):
        read_program(mod)


def test_two_inputs_are_refused():
    bb = relax.BlockBuilder()
    x, z = (relax.Var(n, R.Tensor((4, 6), "int8")) for n in "xz")
    with bb.function("main", [x, z]):
        gv = bb.add_func(double_kernel(4, 6), "double")
        bb.emit_func_output(bb.emit(relax.call_tir(gv, [x], R.Tensor((4, 6), "int8"))))
    with pytest.raises(UserError, match="main takes 2 inputs; a compiled model takes exactly one"):
        read_program(bb.finalize())


def test_a_symbolic_shape_is_refused():
    n = tvm.tirx.Var("n", "int64")
    mod = module(lambda bb, x: bb.emit(relax.op.reshape(x, (n * 6,))), shape=(n, 6))
    with pytest.raises(UserError, match="tensor 'x' has the symbolic dimension n; shapes must be static"):
        read_program(mod)


def test_parameters_that_do_not_fit_the_call_are_refused():
    def build(bb, x):
        gv = bb.add_func(double_kernel(4, 6).with_attr("enx.inplace", -1), "double")
        types = [R.Tensor((4, 6), "int8"), R.Tensor((4, 6), "int8")]
        return bb.emit(relax.TupleGetItem(bb.emit(relax.call_tir(gv, [x], types), name_hint="both"), 0))

    with pytest.raises(
        UserError, match=r"kernel 'double' has 2 parameters, but step 'both' passes 1 inputs and 2 outputs"
    ):
        read_program(module(build))


def test_constants_keep_their_bytes(small_model):
    program = read_program(small_model.mod)
    ref = program.steps[0].inputs[1]
    np.testing.assert_array_equal(program.constants[ref.index], small_model.weights["stem.w"])
