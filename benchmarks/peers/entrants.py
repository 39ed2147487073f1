"""Who races: every engine, its precisions, and the settings that it is given (README.md says why)."""

from __future__ import annotations

from dataclasses import dataclass

from edgenext_tvm.errors import UserError

OURS = "edgenext_tvm"
INT8_MARK = "int8"


@dataclass(frozen=True)
class Engine:
    """An inference engine. requirements: its pinned packages, None for this project's own environment.

    worker: the module that converts for it and runs it. packages: whose versions the results name.
    """

    name: str
    worker: str
    precisions: tuple[str, ...]
    requirements: str | None
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Entrant:
    """One line of the table: an engine at a precision and a number of threads."""

    engine: Engine
    precision: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.engine.name} {self.precision}"

    @property
    def least_cosine(self) -> float:
        """What the logits must reach against the float model, else the entrant does not race."""
        return 0.9 if INT8_MARK in self.precision else 0.99


ENGINES = (
    Engine(OURS, "ours", ("int8", "float32"), None, ("apache-tvm",)),
    Engine(
        "onnxruntime", "onnx_runtime", ("float32", "int8"), "onnxruntime.txt", ("onnxruntime", "torch", "onnxscript")
    ),
    Engine(
        "openvino", "open_vino", ("float32", "bfloat16", "int8", "int8+bfloat16"), "openvino.txt", ("openvino", "nncf")
    ),
    Engine("ncnn", "ncnn_pnnx", ("float32", "bfloat16", "int8", "int8+bfloat16"), "ncnn.txt", ("ncnn", "pnnx")),
    Engine(
        "litert",
        "lite_rt",
        ("float32", "int8", "int8-dynamic"),
        "litert.txt",
        ("ai-edge-litert", "litert-torch", "ai-edge-quantizer"),
    ),
    Engine("executorch", "executorch_xnnpack", ("float32", "int8"), "executorch.txt", ("executorch", "torchao")),
    Engine("pytorch", "pytorch_eager", ("float32",), None, ("torch",)),
)


def choose_engines(names: str | None) -> tuple[Engine, ...]:
    """The engines of a comma-separated list, all when None. UserError names an unknown one and the allowed."""
    if names is None:
        return ENGINES
    known = {engine.name: engine for engine in ENGINES}
    chosen = []
    for name in names.split(","):
        if name not in known:
            raise UserError(f"engine '{name}' is unknown; allowed: {', '.join(known)}")
        chosen.append(known[name])
    return tuple(dict.fromkeys(chosen))


def entrants(engines: tuple[Engine, ...], threads: tuple[int, ...]) -> list[Entrant]:
    """Every engine at each of its precisions and numbers of threads, in racing order."""
    return [
        Entrant(engine, precision, count) for count in threads for engine in engines for precision in engine.precisions
    ]
