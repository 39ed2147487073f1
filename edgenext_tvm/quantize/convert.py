"""From a float model to an int8 program.

Export, insert observers, calibrate or follow a recipe, convert to quantize/dequantize, export again.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torchao
from pydantic import ValidationError
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgenext_tvm.errors import UserError
from edgenext_tvm.model.edgenext import EdgeNeXt
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.quantize.calibrate import calibrate
from edgenext_tvm.quantize.images import ImageSet
from edgenext_tvm.quantize.observers import ActivationObserver, ObserverSettings
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.quantizer import Int8Quantizer
from edgenext_tvm.quantize.recipe import ActivationQParams, Calibration, Recipe, Versions, weights_sha256

RECIPE_ENTRY = "recipe.json"
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


@dataclass(frozen=True)
class QuantizedProgram:
    """A quantize/dequantize program that still runs in PyTorch, and the recipe that fixes it.

    exported: float32 [N,3,S,S] (normalised RGB) to float32 logits [N,K]; weights inside are int8.
    """

    exported: torch.export.ExportedProgram
    recipe: Recipe

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of `x`, which has the exported shape."""
        with torch.no_grad():
            return self._module(x)

    @cached_property
    def _module(self) -> torch.nn.Module:
        return self.exported.module()

    def save(self, path: str | Path) -> Path:
        """Writes program and recipe as one .pt2 file; `load` gives back the same bits."""
        path = Path(path)
        if path.suffix != ".pt2":
            raise UserError(f"program file {path} must end in .pt2; try {path.with_suffix('.pt2')}")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: folder {path.parent} does not exist; create it first")
        extra = {RECIPE_ENTRY: self.recipe.model_dump_json()}
        with _without_load_warnings():
            torch.export.save(self.exported, str(path), extra_files=extra)
        return path

    @staticmethod
    def load(path: str | Path) -> QuantizedProgram:
        """Reads what `save` wrote. Fails with `UserError` naming the file when it is anything else."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no quantized program at {path}; give a .pt2 file written by quantization")
        extra = {RECIPE_ENTRY: ""}
        try:
            with _without_load_warnings():
                exported = torch.export.load(str(path), extra_files=extra)
        except Exception as error:
            # torch raises errors of many kinds here; all mean that the file is not a usable program.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"cannot read {path} as an exported program ({reason}); it may be truncated or made by another "
                "version of torch, write it again by quantizing"
            ) from error
        try:
            recipe = Recipe.model_validate_json(extra[RECIPE_ENTRY])
        except ValidationError as error:
            raise UserError(
                f"{path} is an exported program without a valid recipe inside; give a .pt2 file written by quantization"
            ) from error
        return QuantizedProgram(exported, recipe)


def quantize_model(
    model: torch.nn.Module,
    images: ImageSet,
    preprocessing: Preprocessing,
    settings: ObserverSettings | None = None,
    name: str | None = None,
    quiet: bool = False,
) -> QuantizedProgram:
    """Quantizes a float model for the images of `images`.

    model: an `EdgeNeXt` (folded here; the given one is left alone), or any module without BatchNorm whose
        input is one
    float32 tensor [1,3,S,S] and whose result is [1,K]. S is `preprocessing.crop_size`.
    """
    settings = settings or ObserverSettings()
    _check_input_size(model, preprocessing.crop_size)
    example = torch.zeros(1, 3, preprocessing.crop_size, preprocessing.crop_size)
    prepared, observers = _prepare(model, example, settings)
    calibrate(prepared, image_batches(images, preprocessing), len(images), quiet)
    recipe = Recipe(
        model=name or _model_name(model),
        input_size=preprocessing.crop_size,
        num_classes=_num_classes(prepared),
        preprocessing=preprocessing,
        weights_sha256=weights_sha256(model),
        calibration=Calibration(source=images.name, num_images=len(images), seed=images.seed, sha256=images.sha256()),
        observer=settings,
        versions=Versions(torch=torch.__version__, torchao=torchao.__version__),
        activations={key: _qparams(observer) for observer in observers for key in observer.keys},
    )
    for observer in observers:
        # Through the recipe's own types, so that building from the saved file cannot differ.
        chosen = recipe.activations[observer.keys[0]]
        observer.freeze(chosen.scale, chosen.zero_point)
    return QuantizedProgram(_convert(prepared, example), recipe)


def quantize_with_recipe(model: torch.nn.Module, recipe: Recipe, batch_size: int = 1) -> QuantizedProgram:
    """Builds the program that `recipe` fixes, without any image; batch_size 1 gives the very program it was
    made for.

    Fails with `UserError` when the recipe was made for other weights, another input size or another network.
    """
    _check_input_size(model, recipe.input_size)
    digest = weights_sha256(model)
    if digest != recipe.weights_sha256:
        raise UserError(
            "the recipe was made for other weights: field 'weights_sha256' is "
            f"{recipe.weights_sha256[:12]}..., "
            f"this model's is {digest[:12]}...; load the checkpoint it was made for, or calibrate again"
        )
    example = torch.zeros(batch_size, 3, recipe.input_size, recipe.input_size)
    prepared, observers = _prepare(model, example, recipe.observer)
    _freeze_all(observers, recipe)
    with torch.no_grad():
        prepared(example)  # shows the weights to their observers
    return QuantizedProgram(_convert(prepared, example), recipe)


@contextmanager
def _without_load_warnings() -> Iterator[None]:
    # torch warns that weights on a GPU might not be stored whole (ours are on the CPU), and logs a traceback
    # before it raises the error that is reported anyway.
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _prepare(
    model: torch.nn.Module, example: torch.Tensor, settings: ObserverSettings
) -> tuple[GraphModule, list[ActivationObserver]]:
    folded = fold_for_quantization(model) if isinstance(model, EdgeNeXt) else model.eval()
    with torch.no_grad():
        graph_module = torch.export.export(folded, (example,)).module()
    quantizer = Int8Quantizer(settings)
    return prepare_pt2e(graph_module, quantizer), quantizer.observers


def _convert(prepared: GraphModule, example: torch.Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        converted = convert_pt2e(prepared)
        _share_dequantize(converted)
        _drop_unused_tensors(converted)
        exported = torch.export.export(converted, (example,))
    _forget_origins(exported)
    return exported


def _share_dequantize(graph_module: GraphModule) -> None:
    # torchao gives each reader a dequantize of its own; one per int8 tensor is all the lowering needs.
    first: dict[Node, Node] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is DEQUANTIZE:
            kept = first.setdefault(node.args[0], node)
            if kept is not node:
                node.replace_all_uses_with(kept)
                graph_module.graph.erase_node(node)
    graph_module.recompile()


def _drop_unused_tensors(graph_module: GraphModule) -> None:
    # The float weights stay behind as parameters after folding; without this the program holds both forms.
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    tensors = [*graph_module.named_parameters(), *graph_module.named_buffers()]
    for name in [name for name, _ in tensors if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(graph_module.get_submodule(owner), attribute)


def _forget_origins(exported: torch.export.ExportedProgram) -> None:
    # addresses of graphs in memory and folders of this machine: with them no two saved programs are the same bytes
    for node in exported.graph.nodes:
        for key in ("from_node", "stack_trace"):
            node.meta.pop(key, None)


def _freeze_all(observers: list[ActivationObserver], recipe: Recipe) -> None:
    wanted = [key for observer in observers for key in observer.keys]
    missing = [key for key in wanted if key not in recipe.activations]
    unknown = sorted(set(recipe.activations) - set(wanted))
    if missing or unknown:
        example = f"it lacks {missing[0]!r}" if missing else f"it has {unknown[0]!r}, which the model has not"
        raise UserError(
            f"the recipe does not fit this network: field 'activations': {example} "
            f"({len(missing)} missing, {len(unknown)} unknown); calibrate again"
        )
    for observer in observers:
        values = {recipe.activations[key] for key in observer.keys}
        if len(values) > 1:
            raise UserError(
                f"recipe field 'activations': {', '.join(observer.keys)} share one scale but have "
                "different values; "
                "give them equal values, or calibrate again"
            )
        chosen = values.pop()
        observer.freeze(chosen.scale, chosen.zero_point)


def _qparams(observer: ActivationObserver) -> ActivationQParams:
    scale, zero_point = observer.qparams()
    return ActivationQParams(scale=scale, zero_point=zero_point)


def image_batches(images: ImageSet, preprocessing: Preprocessing) -> Iterator[torch.Tensor]:
    """Network inputs float32 [1,3,S,S], one per image, in order."""
    for index in range(len(images)):
        yield torch.from_numpy(preprocessing(images.image(index)))[None]


def _check_input_size(model: torch.nn.Module, crop_size: int) -> None:
    if isinstance(model, EdgeNeXt) and model.input_size != crop_size:
        raise UserError(
            f"the model was built for input size {model.input_size}, but preprocessing crops to {crop_size}; "
            "use the same size for both"
        )


def _model_name(model: torch.nn.Module) -> str:
    return model.config.name if isinstance(model, EdgeNeXt) else type(model).__name__


def _num_classes(graph_module: GraphModule) -> int:
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    return int(output.all_input_nodes[0].meta["val"].shape[-1])
