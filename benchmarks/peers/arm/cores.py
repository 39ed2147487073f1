"""The cores that instructions are counted for: a board of this project each, and how the core describes itself."""

from __future__ import annotations

from dataclasses import dataclass

from edgenext_tvm.errors import UserError

PROCESSORS = 4
_IMPLEMENTER_ARM = 0x41


@dataclass(frozen=True)
class ArmCore:
    """name: QEMU's -cpu model. board: whose build runs on it. part, variant, revision: of the main ID register.

    flags: the kernel's names of its features; runtimes choose their kernels by them and by the part.
    """

    name: str
    board: str
    part: int
    variant: int
    revision: int
    flags: tuple[str, ...]

    @property
    def has_dotprod(self) -> bool:
        return "asimddp" in self.flags

    def cpuinfo(self) -> str:
        """/proc/cpuinfo as Linux prints it on a board with four such cores."""
        return "\n".join(
            f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {' '.join(self.flags)}\n"
            f"CPU implementer\t: {_IMPLEMENTER_ARM:#x}\nCPU architecture: 8\nCPU variant\t: {self.variant:#x}\n"
            f"CPU part\t: {self.part:#x}\nCPU revision\t: {self.revision}\n"
            for index in range(PROCESSORS)
        )


_ARMV8 = ("fp", "asimd", "evtstrm", "crc32", "cpuid")
_ARMV8_2 = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid")

CORES = (
    ArmCore("cortex-a76", "rpi5", 0xD0B, 4, 1, (*_ARMV8_2, "asimdrdm", "lrcpc", "dcpop", "asimddp")),
    ArmCore("cortex-a72", "rpi4", 0xD08, 0, 3, _ARMV8),
    ArmCore("cortex-a53", "rpi3", 0xD03, 0, 4, _ARMV8),
)


def choose_cores(names: str) -> tuple[ArmCore, ...]:
    """The cores of a comma-separated list. UserError names an unknown one and the allowed."""
    known = {core.name: core for core in CORES}
    for name in names.split(","):
        if name not in known:
            raise UserError(f"core '{name}' is unknown; allowed: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names.split(",")))
