"""The twins execute a lowered module: small ones worked out by hand, and the errors of everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm

from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels.base import KERNEL_ATTR
from edgenext_tvm.verify.build_folder import LOWERED_FILE
from edgenext_tvm.verify.reference import NoTwinError, ReferenceProgram, load_lowered, run_reference


@pytest.fixture(scope="module")
def lowered(host_build: Path) -> tvm.IRModule:
    return load_lowered(host_build / LOWERED_FILE)


def test_logits_depend_on_the_input_and_on_nothing_else(lowered: tvm.IRModule) -> None:
    program = ReferenceProgram(lowered)
    grey = np.zeros(program.input_shape, np.int8)
    noise = np.random.default_rng(1).integers(-128, 128, program.input_shape).astype(np.int8)
    first, other = program(grey), program(noise)
    assert first.shape == (1, 10) and first.dtype == np.float32
    assert not np.array_equal(first, other)
    # the same program again, and a fresh one: nothing is left behind by a run
    assert np.array_equal(program(grey), first)
    assert np.array_equal(run_reference(lowered, noise), other)


def test_an_input_of_another_shape_or_type_is_refused(lowered: tvm.IRModule) -> None:
    program = ReferenceProgram(lowered)
    with pytest.raises(UserError, match=r"reference input is int8 \[1, 32, 32, 3\]; expected int8 \[1, 64, 64, 3\]"):
        program(np.zeros((1, 32, 32, 3), np.int8))
    with pytest.raises(UserError, match=r"reference input is float32"):
        program(np.zeros(program.input_shape, np.float32))


def test_a_kernel_without_a_twin_names_its_layer(lowered: tvm.IRModule) -> None:
    name, kernel = next((v.name_hint, f) for v, f in lowered.functions.items() if v.name_hint != "main")
    stripped = tvm.IRModule(
        {**dict(lowered.functions.items()), lowered.get_global_var(name): kernel.without_attr(KERNEL_ATTR)}
    )
    with pytest.raises(NoTwinError, match=rf"layer '.+' runs the generated kernel '{name}', which has no NumPy twin"):
        ReferenceProgram(stripped)


def test_a_missing_or_damaged_module_file_says_to_compile_again(tmp_path: Path, host_build: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*lowered\.json: No such file.*compile the model again"):
        load_lowered(tmp_path / LOWERED_FILE)
    damaged = tmp_path / LOWERED_FILE
    damaged.write_text((host_build / LOWERED_FILE).read_text()[:1000])
    with pytest.raises(UserError, match=r"is no module of this TVM version .*compile the model again"):
        load_lowered(damaged)
