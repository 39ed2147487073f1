"""The machine's peak is measured by the best instruction that it has, and memory gets slower with distance."""

from __future__ import annotations

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.report.host_peak import HostPeak, measure_host_peak


@pytest.fixture(scope="module")
def peak() -> HostPeak:
    return measure_host_peak(load_board("host"))


def test_the_instruction_is_the_best_that_this_machine_has(peak: HostPeak) -> None:
    features = load_board("host").cpu.features
    if "avx512vnni" in features:
        assert peak.instruction == "vpdpbusd zmm"
    elif "avxvnni" in features:
        assert peak.instruction == "vpdpbusd ymm"
    elif "avx2" in features:
        assert peak.instruction.startswith("vpmaddubsw")
    elif "dotprod" in features:
        assert peak.instruction == "sdot"


def test_figures_are_those_of_a_core_of_this_century(peak: HostPeak) -> None:
    assert 1e8 < peak.macs_per_s < 1e13
    assert [level.name for level in peak.levels] == ["L1", "L2", "beyond L2", "memory"]
    assert all(1e8 < level.bytes_per_s < 1e13 for level in peak.levels)
    assert peak.levels[0].bytes_per_s > peak.levels[-1].bytes_per_s


def test_capacities_are_the_machine_s_caches(peak: HostPeak) -> None:
    cpu = load_board("host").cpu
    assert [level.capacity_bytes for level in peak.levels[:2]] == [cpu.l1d_bytes, cpu.l2_bytes]
    assert peak.bandwidth(cpu.l1d_bytes).name == "L1"
    assert peak.bandwidth(cpu.l1d_bytes + 1).name == "L2"
    assert peak.bandwidth(1 << 40).name == "memory"


def test_a_compiler_that_fails_is_one_error_with_its_words() -> None:
    board = load_board("host")
    broken = board.model_copy(update={"toolchain": board.toolchain.model_copy(update={"cc": "false"})})
    with pytest.raises(UserError, match="cannot be measured; command failed: .*false"):
        measure_host_peak(broken)
