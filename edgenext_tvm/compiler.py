"""MODEL to build folder, stage by stage: model, quantize, import, lower, golden, build, selftest."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import tvm

from edgenext_tvm.board import Board
from edgenext_tvm.budget.choose_wide import Goal
from edgenext_tvm.budget.meet_budget import choice_fields, meet_budget
from edgenext_tvm.codegen.build import BuildResult, build_library, check_replaceable
from edgenext_tvm.codegen.lower_program import lower_program
from edgenext_tvm.codegen.meta import GoldenVector, ModelMeta
from edgenext_tvm.codegen.program import Program, read_program
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.frontend.from_torch import import_program
from edgenext_tvm.model.checkpoint import bundled_checkpoint
from edgenext_tvm.model.fold import fold_for_quantization
from edgenext_tvm.passes.pipeline import lower, lower_float
from edgenext_tvm.quantize.calibrate import DEFAULT_CALIBRATION_IMAGES
from edgenext_tvm.quantize.convert import QuantizedProgram, quantize_model, quantize_with_recipe
from edgenext_tvm.quantize.images import open_images
from edgenext_tvm.quantize.preprocess import Preprocessing
from edgenext_tvm.quantize.recipe import Recipe, weights_sha256
from edgenext_tvm.report.budget_tables import budget_sentence
from edgenext_tvm.source import FloatModel, is_program_file, load_float_model, model_identifier
from edgenext_tvm.tune.tuned import TunedSchedule
from edgenext_tvm.verify.build_folder import BOARD_FILE, BUDGET_FILE, ONNX_FILE, PROGRAM_FILE, RECIPE_FILE, WEIGHTS_FILE
from edgenext_tvm.verify.float_model import onnx_logits, torch_logits
from edgenext_tvm.verify.golden import Logits, golden_vectors
from edgenext_tvm.verify.quantization import input_quantization
from edgenext_tvm.verify.reference import NoTwinError, ReferenceProgram

PRECISIONS = ("int8", "float32")
DEFAULT_CALIBRATION = "synthetic:64"

Progress = Callable[[str, float, str], None]
"""Called after each stage with its name, its seconds and a short account of what it did."""


@dataclass(frozen=True)
class CompileSettings:
    """Everything that decides a build. None: taken from the checkpoint, or the documented default."""

    model: str
    board: Board
    out: Path
    checkpoint: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    calibration: str | None = None
    recipe: Path | None = None
    precision: str = "int8"
    max_arena_kib: int | None = None
    default_calibration: str = DEFAULT_CALIBRATION
    use_tuning: bool = True
    tuning_logs: Path | None = None
    goal: Goal | None = None
    budget_images: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision '{self.precision}' is unknown; allowed: {', '.join(PRECISIONS)}")
        if self.recipe is not None and self.calibration is not None:
            raise UserError("--recipe and --calibration exclude each other: a recipe holds what calibration decided")
        if self.precision == "float32" and (self.recipe or self.calibration):
            raise UserError("--precision float32 quantizes nothing; remove --recipe and --calibration")
        if self.goal is not None and (self.precision == "float32" or is_program_file(self.model)):
            what = self.model if is_program_file(self.model) else "--precision float32"
            raise UserError(f"{what} leaves nothing to choose for a budget; remove --sqnr-budget and --accuracy-budget")
        if self.goal is None and self.budget_images is not None:
            raise UserError("--budget-images belongs to --sqnr-budget or --accuracy-budget; remove it, or give one")
        if self.max_arena_kib is not None and self.max_arena_kib < 1:
            raise UserError(f"--max-arena-kib is {self.max_arena_kib}; allowed: 1 or more")
        if is_program_file(self.model):
            given = {
                "--checkpoint": self.checkpoint,
                "--num-classes": self.num_classes,
                "--input-size": self.input_size,
                "--calibration": self.calibration,
                "--recipe": self.recipe,
            }
            wrong = [option for option, value in given.items() if value is not None]
            if wrong or self.precision != "int8":
                wrong = wrong or ["--precision"]
                raise UserError(f"{self.model} is already quantized and fixed; remove {', '.join(wrong)}")


@dataclass
class _Prepared:
    """What the stages before lowering leave for those after it."""

    module: tvm.IRModule
    logits: Logits
    preprocessing: Preprocessing | None
    recipe: Recipe | None = None
    weights_sha256: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


class Stages:
    """Times each stage and reports it when it ends."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """The block appends what it did, for people."""
        done: list[str] = []
        start = time.perf_counter()
        yield done
        self.seconds[name] = round(time.perf_counter() - start, 3)
        if self._progress:
            self._progress(name, self.seconds[name], ", ".join(done))


def compile_stages(settings: CompileSettings, stages: Stages, quiet: bool = False) -> BuildResult:
    """Builds settings.out. Raises UserError for every mistake of the user; then nothing is left behind."""
    # what cannot succeed is told before minutes of work
    Toolchain.for_board(settings.board)
    settings.board.tvm_target()
    check_replaceable(settings.out)
    schedule = TunedSchedule.for_board(settings.board, settings.use_tuning, settings.tuning_logs)
    prepared = _prepare(settings, stages, quiet)
    with stages.stage("lower") as done:
        lowered = _lower(settings, prepared, done)
        _check_arena(settings, read_program(lowered), schedule)
    with stages.stage("golden") as done:
        golden = _golden(lowered, prepared, done)
    with stages.stage("build") as done:
        meta = _meta(settings, lowered, prepared)
        files = {BOARD_FILE: settings.board.model_dump_json(indent=1).encode(), **prepared.files}
        result = build_library(
            lowered, meta, settings.board, settings.out, golden,
            schedule=schedule, tuning=schedule.entry, extra_files=files,
        )  # fmt: skip
        done.append(schedule.summary)
        done.append(f"{len(result.manifest.files)} files in {result.folder}")
    return result


def lower_model(settings: CompileSettings, stages: Stages, quiet: bool = True) -> tvm.IRModule:
    """Returns the model of `settings` as calls of kernels, and builds nothing. UserError for mistakes of the user."""
    prepared = _prepare(settings, stages, quiet)
    with stages.stage("lower") as done:
        return _lower(settings, prepared, done)


def _prepare(settings: CompileSettings, stages: Stages, quiet: bool) -> _Prepared:
    if is_program_file(settings.model):
        return _prepare_program_file(settings, stages)
    return _prepare_variant(settings, stages, quiet)


def _lower(settings: CompileSettings, prepared: _Prepared, done: list[str]) -> tvm.IRModule:
    lowered = (lower if settings.precision == "int8" else lower_float)(prepared.module)
    program = read_program(lowered)
    done.append(f"{len(program.steps)} kernel calls of {len(program.functions)} kernels")
    return lowered


def _prepare_variant(settings: CompileSettings, stages: Stages, quiet: bool) -> _Prepared:
    with stages.stage("model") as done:
        source = load_float_model(settings.model, settings.checkpoint, settings.num_classes, settings.input_size)
        done.append(f"{source.origin}, {source.model.num_classes} classes, {source.model.input_size} pixels")
    weights = safetensors.torch.save({name: value.contiguous() for name, value in source.model.state_dict().items()})
    files = {WEIGHTS_FILE: weights}
    if settings.precision == "float32":
        with stages.stage("import") as done:
            folded = fold_for_quantization(source.model)
            size = source.model.input_size
            exported = torch.export.export(folded, (torch.zeros(1, 3, size, size),))
            module = import_program(exported)
            done.append("float32, nothing quantized")
        return _Prepared(module, torch_logits(folded), source.preprocessing, None, weights_sha256(source.model), files)
    with stages.stage("quantize") as done:
        quantized = _quantize(settings, source, done, quiet)
    if settings.goal is not None:
        quantized, files[BUDGET_FILE] = _meet_budget(settings, settings.goal, source, quantized, stages)
    files |= _program_files(quantized)
    with stages.stage("import") as done:
        module = import_program(quantized.exported)
        done.append(_operators(module))
    recipe = quantized.recipe
    return _Prepared(module, torch_logits(quantized), recipe.preprocessing, recipe, recipe.weights_sha256, files)


def _quantize(settings: CompileSettings, source: FloatModel, done: list[str], quiet: bool) -> QuantizedProgram:
    recipe = settings.recipe
    if recipe is None and settings.calibration is None and source.is_bundled:
        bundled = bundled_checkpoint(settings.model)
        beside = bundled.with_suffix(".recipe.json") if bundled else None
        if beside is not None and beside.is_file():
            found = Recipe.load(beside)
            if found.input_size == source.model.input_size:
                done.append("bundled recipe")
                return quantize_with_recipe(source.model, found)
    if recipe is not None:
        done.append(f"recipe {recipe}")
        return quantize_with_recipe(source.model, _load_recipe(recipe, settings.model, source))
    images = open_images(settings.calibration or settings.default_calibration, limit=DEFAULT_CALIBRATION_IMAGES)
    done.append(f"calibrated on {len(images)} images of {images.name}")
    if images.name.startswith("synthetic"):
        done.append("made-up images: give real ones with --calibration DIR for accuracy")
    return quantize_model(source.model, images, source.preprocessing, quiet=quiet)


def _meet_budget(
    settings: CompileSettings, goal: Goal, source: FloatModel, quantized: QuantizedProgram, stages: Stages
) -> tuple[QuantizedProgram, bytes]:
    with stages.stage("budget") as done:
        images = open_images(settings.budget_images or settings.calibration or settings.default_calibration)
        if images.name.startswith("synthetic"):
            done.append("on made-up images: give real ones with --budget-images DIR")
        quantized, choice = meet_budget(source.model, quantized, images, goal, settings.board)
        fields = choice_fields(choice)
        done.insert(0, budget_sentence(fields))
    return quantized, (json.dumps(fields, indent=1) + "\n").encode()


def _load_recipe(path: Path, model: str, source: FloatModel) -> Recipe:
    recipe = Recipe.load(path)
    if recipe.model != model:
        raise UserError(
            f"recipe {path} was made for {recipe.model}, not for {model}; compile {recipe.model}, or calibrate"
        )
    if recipe.input_size != source.model.input_size:
        raise UserError(
            f"recipe {path} was made for {recipe.input_size} pixels, but the model takes {source.model.input_size}; "
            f"give --input-size {recipe.input_size}, or calibrate"
        )
    return recipe


def _prepare_program_file(settings: CompileSettings, stages: Stages) -> _Prepared:
    path = Path(settings.model)
    if path.suffix == ".onnx":
        from edgenext_tvm.frontend.from_onnx import import_onnx

        with stages.stage("import") as done:
            module = import_onnx(path)
            _check_quantized(module, path)
            done.append(_operators(module))
        return _Prepared(module, onnx_logits(path), None, files={ONNX_FILE: path.read_bytes()})
    with stages.stage("model") as done:
        quantized = QuantizedProgram.load(path)
        done.append(f"{path}, {quantized.recipe.num_classes} classes, {quantized.recipe.input_size} pixels")
    with stages.stage("import") as done:
        module = import_program(quantized.exported)
        _check_quantized(module, path)
        done.append(_operators(module))
    recipe = quantized.recipe
    return _Prepared(
        module, torch_logits(quantized), recipe.preprocessing, recipe, recipe.weights_sha256, _program_files(quantized)
    )


def _check_quantized(module: tvm.IRModule, path: Path) -> None:
    values = [binding.value for block in module["main"].body.blocks for binding in block.bindings]
    operators = {value.op.name for value in values if isinstance(value, tvm.relax.Call) and hasattr(value.op, "name")}
    if "relax.dequantize" not in operators:
        raise UserError(
            f"{path} is not quantized: no tensor in it is dequantized; give a QDQ program (int8, with QuantizeLinear "
            "and DequantizeLinear in ONNX), or a variant, which is quantized here"
        )


def _program_files(quantized: QuantizedProgram) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        program = quantized.save(Path(folder) / "program.pt2").read_bytes()
        recipe = quantized.recipe.save(Path(folder) / "recipe.json").read_bytes()
    return {PROGRAM_FILE: program, RECIPE_FILE: recipe}


def _operators(module: tvm.IRModule) -> str:
    bindings = sum(len(block.bindings) for block in module["main"].body.blocks)
    return f"{bindings} Relax operators"


def _check_arena(settings: CompileSettings, program: Program, schedule: TunedSchedule) -> None:
    if settings.max_arena_kib is None:
        return
    plan = lower_program(program, "enx_plan", settings.board.tvm_target(), schedule).plan
    schedule.forget()
    limit = settings.max_arena_kib * 1024
    if plan.arena_bytes > limit:
        raise UserError(
            f"the model needs an arena of {-(-plan.arena_bytes // 1024)} KiB, more than --max-arena-kib "
            f"{settings.max_arena_kib} (no plan can go below {-(-plan.lower_bound_bytes // 1024)} KiB); "
            "try a smaller --input-size or a smaller variant"
        )


def _golden(lowered: tvm.IRModule, prepared: _Prepared, done: list[str]) -> list[GoldenVector]:
    quantization = input_quantization(lowered)
    reference = None
    try:
        if quantization is not None:
            reference = ReferenceProgram(lowered)
    except NoTwinError as error:
        done.append(str(error))
    vectors = golden_vectors(lowered, reference, prepared.logits, quantization, prepared.preprocessing)
    source = "the NumPy twins, bit for bit" if reference is not None else "PyTorch, within a tolerance"
    done.insert(0, f"{len(vectors)} vectors from {source}")
    return vectors


def _meta(settings: CompileSettings, lowered: tvm.IRModule, prepared: _Prepared) -> ModelMeta:
    scale, zero_point = input_quantization(lowered) or (1.0, 0)
    return ModelMeta(
        name=model_identifier(settings.model),
        model=settings.model if not is_program_file(settings.model) else Path(settings.model).name,
        precision="int8" if settings.precision == "int8" else "float32",
        input_scale=scale,
        input_zero_point=zero_point,
        preprocessing=prepared.preprocessing,
        recipe=prepared.recipe.model_dump(mode="json") if prepared.recipe else {},
        weights_sha256=prepared.weights_sha256,
    )
