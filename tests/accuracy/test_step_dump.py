"""What the dump program hands out is what the NumPy twins compute, step by step and bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgenext_tvm.accuracy.measure_layers import StoredTensor, written_channels
from edgenext_tvm.accuracy.open_model import MeasuredModel, open_measured
from edgenext_tvm.accuracy.step_dump import step_dump
from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize import open_images
from edgenext_tvm.verify.golden import image_input
from edgenext_tvm.verify.quantization import input_quantization
from edgenext_tvm.verify.reference import ReferenceProgram
from edgenext_tvm.verify.runner import Finished, HostRunner, choose_runner


def inputs_of(model: MeasuredModel, count: int) -> np.ndarray:
    images = open_images(f"synthetic:{count}")
    quantization = input_quantization(model.lowered)
    return np.concatenate([image_input(images.image(i), model.preprocessing, quantization) for i in range(count)])


def assert_equals_the_twins(model: MeasuredModel, runner) -> None:
    inputs = inputs_of(model, 2)
    with step_dump(model.build, model.lowered) as dump:
        values = dump.run(runner, inputs)
    twins = ReferenceProgram(model.lowered)
    for index in range(len(inputs)):
        expected = twins.values(inputs[index : index + 1])
        for number, step in enumerate(dump.program.steps):
            place = StoredTensor(0, step.results[0], number, written_channels(dump.program, step))
            found = place.elements(values[place.value][index : index + 1])
            wanted = place.elements(expected[place.value].reshape(1, *dump.program.values[place.value].shape))
            assert found.dtype == wanted.dtype and np.array_equal(found, wanted), f"step {number}, {step.layer}"


@pytest.mark.slow
def test_every_step_of_the_bundled_model_on_this_machine(bundled: MeasuredModel) -> None:
    assert_equals_the_twins(bundled, HostRunner())


def test_wide_tensors_too(small: MeasuredModel) -> None:
    assert_equals_the_twins(small, HostRunner())


@pytest.mark.slow
@pytest.mark.qemu
def test_every_step_on_another_board(rpi4_build: Path) -> None:
    model = open_measured(rpi4_build)
    assert_equals_the_twins(model, choose_runner(model.build.board, None))


class _Short(HostRunner):
    """A board whose disk takes nothing."""

    def run(self, program, arguments, inputs=(), outputs=(), timeout_s=3600.0) -> Finished:
        for path in outputs:
            path.write_bytes(b"")
        return Finished(0, "", "")


def test_a_cut_file_is_told(small: MeasuredModel) -> None:
    with (
        step_dump(small.build, small.lowered) as dump,
        pytest.raises(UserError, match=r"dump_steps on host wrote 0 bytes, expected \d+: the disk may be full"),
    ):
        dump.run(_Short(), inputs_of(small, 1))


def test_the_build_folder_is_left_alone_and_nothing_stays(small: MeasuredModel) -> None:
    before = sorted(small.build.path.rglob("*"))
    with step_dump(small.build, small.lowered) as dump:
        path = dump.path
        assert path.is_file()
    assert not path.parent.exists()
    assert sorted(small.build.path.rglob("*")) == before
