"""Describes the machine this runs on, for board files whose fields say "native".

LLVM names the CPU model and lists the model's features; the kernel (/proc/cpuinfo) says which of them this
machine really offers. A hypervisor may mask some, so a feature counts only when both agree.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from edgenext_tvm.errors import UserError

# LLVM feature -> flag in /proc/cpuinfo, for every feature that a kernel or LLVM's vectoriser may rely on
X86_FLAGS = {
    "sse4.1": "sse4_1",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avxvnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512ifma": "avx512ifma",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
}
AARCH64_FLAGS = {"neon": "asimd", "dotprod": "asimddp", "fullfp16": "asimdhp", "i8mm": "i8mm", "sve": "sve"}

_ISA_OF_MACHINE = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def isa() -> str:
    """x86_64 or aarch64. Raises UserError on any other machine."""
    machine = platform.machine().lower()
    if machine not in _ISA_OF_MACHINE:
        raise UserError(
            f"this machine is '{machine}', which the board 'host' does not support "
            "(supported: x86_64, aarch64); choose another board with --board"
        )
    return _ISA_OF_MACHINE[machine]


def _proc_cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu_flags() -> set[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _proc_cpuinfo(), re.M)
    return set(found.group(1).split()) if found else set()


def cpu_model() -> str:
    """LLVM's name of this CPU, for example "znver4"."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


def _known_features() -> dict[str, str]:
    return X86_FLAGS if isa() == "x86_64" else AARCH64_FLAGS


def _model_features() -> set[str]:
    from tvm.target import Target, codegen

    listed = codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": llvm_triple(), "mcpu": cpu_model()}))
    return {str(feature) for feature in listed}


def features() -> list[str]:
    """Vector features that both the CPU model and this machine have, in a fixed order."""
    flags, model = _cpu_flags(), _model_features()
    return [name for name, flag in _known_features().items() if flag in flags and name in model]


def llvm_attributes() -> list[str]:
    """-feature for all that LLVM takes for granted on this model but this machine does not offer."""
    flags, model = _cpu_flags(), _model_features()
    if not flags:
        return []
    return [f"-{name}" for name, flag in _known_features().items() if name in model and flag not in flags]


def llvm_triple() -> str:
    return f"{isa()}-linux-gnu"


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def clock_hz() -> int:
    """Highest clock in Hz; 0 where the machine does not tell."""
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()) * 1000
    except (OSError, ValueError):
        found = re.search(r"^cpu MHz\s*:\s*([0-9.]+)", _proc_cpuinfo(), re.M)
        return int(float(found.group(1)) * 1e6) if found else 0


def cache_bytes(level: int) -> int:
    """Bytes of the data cache of this level; 32 KiB (L1) or 256 KiB (L2) where the machine does not tell."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if int((index / "level").read_text()) != level:
                continue
            if (index / "type").read_text().strip() == "Instruction":
                continue
            size = re.fullmatch(r"(\d+)([KM]?)", (index / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if size:
            return int(size.group(1)) * {"": 1, "K": 1 << 10, "M": 1 << 20}[size.group(2)]
    return (32 << 10) if level == 1 else (256 << 10)


def ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# board field -> how to find its value here
DETECT = {
    ("cpu", "core"): cpu_model,
    ("cpu", "isa"): isa,
    ("cpu", "features"): features,
    ("cpu", "cores"): cores,
    ("cpu", "clock_hz"): clock_hz,
    ("cpu", "l1d_bytes"): lambda: cache_bytes(1),
    ("cpu", "l2_bytes"): lambda: cache_bytes(2),
    ("memory", "ram_bytes"): ram_bytes,
    ("llvm", "mtriple"): llvm_triple,
    ("llvm", "mcpu"): cpu_model,
    ("llvm", "mattr"): llvm_attributes,
}
