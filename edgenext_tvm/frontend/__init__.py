"""Quantized programs enter TVM here: a torch ExportedProgram or an ONNX QDQ file becomes one Relax function."""

from edgenext_tvm.frontend.from_onnx import import_onnx
from edgenext_tvm.frontend.from_torch import import_program

__all__ = ["import_onnx", "import_program"]
