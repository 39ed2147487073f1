"""The cores that instructions are counted for describe themselves as such boards do."""

from __future__ import annotations

import pytest

from benchmarks.peers.arm.cores import CORES, PROCESSORS, ArmCore, choose_cores
from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.native import AARCH64_FLAGS


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_a_core_is_its_board_s_with_equal_features(core: ArmCore) -> None:
    board = load_board(core.board)
    assert board.run.qemu_cpu == core.name
    assert {name for name, flag in AARCH64_FLAGS.items() if flag in core.flags} - {"fullfp16"} == set(
        board.cpu.features
    )


def test_there_is_a_core_with_and_one_without_dotprod() -> None:
    assert {core.name: core.has_dotprod for core in CORES} == {
        "cortex-a76": True,
        "cortex-a72": False,
        "cortex-a53": False,
    }


def test_cpuinfo_names_implementer_and_part_of_every_processor() -> None:
    (core,) = choose_cores("cortex-a72")
    processors = [block.splitlines() for block in core.cpuinfo().strip().split("\n\n")]
    assert len(processors) == PROCESSORS
    for index, lines in enumerate(processors):
        fields = {key.strip(): value.strip() for key, value in (line.split(":") for line in lines)}
        assert fields["processor"] == str(index)
        assert (fields["CPU implementer"], fields["CPU part"], fields["CPU variant"]) == ("0x41", "0xd08", "0x0")
        assert "asimddp" not in fields["Features"].split()


def test_cores_are_chosen_in_the_order_given_each_once() -> None:
    assert [core.name for core in choose_cores("cortex-a53,cortex-a76,cortex-a53")] == ["cortex-a53", "cortex-a76"]


def test_an_unknown_core_is_named_with_the_allowed() -> None:
    with pytest.raises(UserError, match="core 'm7' is unknown; allowed: cortex-a76, cortex-a72, cortex-a53"):
        choose_cores("cortex-a76,m7")
