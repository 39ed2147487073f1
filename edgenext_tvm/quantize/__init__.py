"""Post-training int8 quantization: calibration, recipes and quantize/dequantize programs."""

from edgenext_tvm.quantize import torchao_import  # noqa: F401  # isort: skip  (must come first)
from edgenext_tvm.quantize.convert import QuantizedProgram, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.images import ImageSet, open_images
from edgenext_tvm.quantize.observers import ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.recipe import Recipe
from edgenext_tvm.quantize.shape_weights import Steps

__all__ = [
    "ImageSet",
    "ObserverSettings",
    "Preprocessing",
    "QuantizedProgram",
    "Recipe",
    "Steps",
    "open_images",
    "quantize_model",
    "quantize_with_recipe",
]
