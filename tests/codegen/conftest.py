"""A small lowered module with int8 kernels written here, its NumPy twin, and the --update-golden flag."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import relax as R
from tvm.script import tirx as T

GOLDEN = Path(__file__).parent / "golden"
MAGIC = 12582912.0
MAGIC_BITS = 0x4B400000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/codegen/golden from the current output"
    )


@pytest.fixture
def check_golden(request: pytest.FixtureRequest):
    """check_golden(name, text): equal to tests/codegen/golden/name, or rewrites it with --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text)
        assert path.read_text() == text, f"{name} changed; if that is meant, run pytest tests/codegen --update-golden"

    return check


def dense_kernel(t: int, ci: int, co: int, residual: bool = False):
    """int8 [T,CI] x int8 [CI,CO] + int32 bias, float32 multiplier -> int8 [T,CO]; adds r [T,CO] to the accumulator."""
    if residual:

        @T.prim_func(s_tir=True)
        def dense_residual(
            x: T.Buffer((t, ci), "int8"),
            w: T.Buffer((ci, co), "int8"),
            bias: T.Buffer((co,), "int32"),
            mult: T.Buffer((co,), "float32"),
            r: T.Buffer((t, co), "int8"),
            y: T.Buffer((t, co), "int8"),
        ):
            acc = T.sblock_alloc_buffer((t, co), "int32")
            for i in T.parallel(t):
                for j, k in T.grid(co, ci):
                    with T.sblock("sum"):
                        vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                        with T.init():
                            acc[vi, vj] = bias[vj]
                        acc[vi, vj] += T.cast(x[vi, vk], "int32") * T.cast(w[vk, vj], "int32")
                for j in range(co):
                    with T.sblock("requantize"):
                        vi, vj = T.axis.remap("SS", [i, j])
                        y[vi, vj] = T.cast(
                            T.reinterpret(
                                "int32",
                                T.min(
                                    T.max(
                                        T.cast(acc[vi, vj] + T.cast(r[vi, vj], "int32") * 16, "float32") * mult[vj],
                                        T.float32(-128),
                                    ),
                                    T.float32(127),
                                )
                                + T.float32(MAGIC),
                            )
                            - MAGIC_BITS,
                            "int8",
                        )

        return dense_residual

    @T.prim_func(s_tir=True)
    def dense(
        x: T.Buffer((t, ci), "int8"),
        w: T.Buffer((ci, co), "int8"),
        bias: T.Buffer((co,), "int32"),
        mult: T.Buffer((co,), "float32"),
        y: T.Buffer((t, co), "int8"),
    ):
        acc = T.sblock_alloc_buffer((t, co), "int32")
        for i in T.parallel(t):
            for j, k in T.grid(co, ci):
                with T.sblock("sum"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    with T.init():
                        acc[vi, vj] = bias[vj]
                    acc[vi, vj] += T.cast(x[vi, vk], "int32") * T.cast(w[vk, vj], "int32")
            for j in range(co):
                with T.sblock("requantize"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = T.cast(
                        T.reinterpret(
                            "int32",
                            T.min(T.max(T.cast(acc[vi, vj], "float32") * mult[vj], T.float32(-128)), T.float32(127))
                            + T.float32(MAGIC),
                        )
                        - MAGIC_BITS,
                        "int8",
                    )

    return dense


def negate_half_kernel(t: int, c: int):
    """Writes -x (saturated) to the upper half of the channels of y, which shares memory with y_in."""
    half = c // 2

    @T.prim_func(s_tir=True)
    def negate_half(x: T.Buffer((t, c), "int8"), y_in: T.Buffer((t, c), "int8"), y: T.Buffer((t, c), "int8")):
        for i in T.parallel(t):
            for j in range(half):
                with T.sblock("negate"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj + half] = T.cast(T.min(0 - T.cast(x[vi, vj], "int32"), 127), "int8")

    return negate_half


def pool_kernel(t: int, c: int):
    """int8 [T,C] -> float32 [1,C], the sum over T times 1/16, with the int32 sums in a declared workspace."""

    @T.prim_func(s_tir=True)
    def pool(x: T.Buffer((t, c), "int8"), y: T.Buffer((1, c), "float32"), total: T.Buffer((c,), "int32")):
        for j, i in T.grid(c, t):
            with T.sblock("sum"):
                vj, vi = T.axis.remap("SR", [j, i])
                with T.init():
                    total[vj] = 0
                total[vj] += T.cast(x[vi, vj], "int32")
        for j in range(c):
            with T.sblock("scale"):
                vj = T.axis.remap("S", [j])
                y[0, vj] = T.cast(total[vj], "float32") * T.float32(0.1)

    return pool


def wide_scratch_kernel(c: int, n: int):
    """float32 [1,C] -> float32 [1,C] through an internal buffer of n elements per channel, too large for a stack."""

    @T.prim_func(s_tir=True)
    def wide_scratch(x: T.Buffer((1, c), "float32"), y: T.Buffer((1, c), "float32")):
        scratch = T.sblock_alloc_buffer((c, n), "float32")
        for j in T.parallel(c):
            for i in range(n):
                with T.sblock("spread"):
                    vj, vi = T.axis.remap("SS", [j, i])
                    scratch[vj, vi] = x[0, vj] * T.cast(vi, "float32")
            for i in range(n):
                with T.sblock("peak"):
                    vj, vi = T.axis.remap("SR", [j, i])
                    with T.init():
                        y[0, vj] = T.float32(-1e30)
                    y[0, vj] = T.max(y[0, vj], scratch[vj, n - 1 - vi])

    return wide_scratch


def with_attrs(func, name: str, kind: str, macs: int = 0, **attrs):
    func = func.with_attr("global_symbol", name)
    func = func.with_attr("enx.kernel", json.dumps({"kind": kind})).with_attr("enx.macs", macs)
    for key, value in attrs.items():
        func = func.with_attr(f"enx.{key}", value)
    return func


def requantize(acc: np.ndarray, mult: np.ndarray) -> np.ndarray:
    f = np.clip(acc.astype(np.float32) * mult, np.float32(-128), np.float32(127))
    return np.rint(f).astype(np.int8)


@dataclass(frozen=True)
class SmallModel:
    """mod: lowered module, input int8 [1,4,4,3], output float32 [1,8]."""

    mod: tvm.IRModule
    weights: dict[str, np.ndarray]

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The module in plain NumPy, layer by layer."""
        w = self.weights

        def dense(x, name, r=None):
            acc = x.astype(np.int32) @ w[f"{name}.w"].astype(np.int32) + w[f"{name}.b"]
            if r is not None:
                acc = acc + r.astype(np.int32) * 16
            return requantize(acc, w[f"{name}.m"])

        h = dense(x.reshape(16, 3), "stem")
        for block in ("block0", "block1"):
            h = dense(dense(h, f"{block}.expand"), f"{block}.project", h)
        h = h.copy()
        h[:, 4:] = np.minimum(-h[:, :4].astype(np.int32), 127).astype(np.int8)
        pooled = h.astype(np.int32).sum(axis=0).astype(np.float32) * np.float32(0.1)
        spread = pooled[:, None] * np.arange(300, dtype=np.float32)[None]
        return spread.max(axis=1)[None]


@pytest.fixture(scope="session")
def small_model() -> SmallModel:
    rng = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}
    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((1, 4, 4, 3), "int8"))
    layers = {}

    def parameters(name: str, ci: int, co: int):
        weights[f"{name}.w"] = rng.integers(-127, 128, (ci, co), dtype=np.int8)
        weights[f"{name}.b"] = rng.integers(-2000, 2000, co, dtype=np.int32)
        # the same multipliers everywhere: stored once
        weights[f"{name}.m"] = np.linspace(0.003, 0.006, co, dtype=np.float32)
        return [relax.const(weights[f"{name}.{k}"]) for k in "wbm"]

    def dense(value, name: str, ci: int, co: int, residual=None):
        func = dense_kernel(16, ci, co, residual is not None)
        symbol = name.replace(".", "_")
        gv = bb.add_func(with_attrs(func, symbol, "dense", 16 * ci * co), symbol)
        args = [value, *parameters(name, ci, co), *([residual] if residual is not None else [])]
        var = f"{symbol}_out"
        layers[var] = name
        return bb.emit(relax.call_tir(gv, args, R.Tensor((16, co), "int8")), name_hint=var)

    with bb.function("main", [x]):
        with bb.dataflow():
            h = dense(bb.emit(relax.op.reshape(x, (16, 3))), "stem", 3, 8)
            for block in ("block0", "block1"):
                h = dense(dense(h, f"{block}.expand", 8, 16), f"{block}.project", 16, 8, residual=h)
            gv = bb.add_func(with_attrs(negate_half_kernel(16, 8), "negate", "negate", inplace=1), "negate")
            h = bb.emit(relax.call_tir(gv, [h, h], R.Tensor((16, 8), "int8")), name_hint="negate_out")
            gv = bb.add_func(with_attrs(pool_kernel(16, 8), "pool", "pool", num_workspaces=1), "pool")
            types = [R.Tensor((1, 8), "float32"), R.Tensor((8,), "int32")]
            pooled = bb.emit(relax.TupleGetItem(bb.emit(relax.call_tir(gv, [h], types), name_hint="pool_out"), 0))
            gv = bb.add_func(with_attrs(wide_scratch_kernel(8, 300), "peak", "peak"), "peak")
            logits = bb.emit(relax.call_tir(gv, [pooled], R.Tensor((1, 8), "float32")), name_hint="peak_out")
            out = bb.emit_output(logits)
        bb.emit_func_output(out)
    layers |= {"negate_out": "mix", "pool_out": "head.pool", "peak_out": "head.peak"}
    mod = bb.finalize()
    mod.update_func(mod.get_global_var("main"), mod["main"].with_attr("enx.layers", json.dumps(layers)))
    return SmallModel(mod, weights)


def aligned_array(shape, dtype, align: int = 64) -> np.ndarray:
    """Uninitialised array at an address that is a multiple of `align`, filled with a pattern that is never right."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + align, 0xA5, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + size].view(dtype).reshape(shape)


class SharedModel:
    """Runs a model's shared library through ctypes, on a fresh arena full of garbage."""

    def __init__(self, path: Path, name: str) -> None:
        self.lib = ctypes.CDLL(str(path))
        self.model = ctypes.addressof(ctypes.c_char.in_dll(self.lib, f"enx_model_{name}"))
        self.lib.enx_input.restype = ctypes.c_void_p
        self.lib.enx_output.restype = ctypes.c_void_p

    def run(self, x: np.ndarray, arena_bytes: int, num_classes: int) -> np.ndarray:
        context = aligned_array((256,), np.uint8)
        arena = aligned_array((arena_bytes,), np.uint8)
        pointer = ctypes.c_void_p(context.ctypes.data)
        status = self.lib.enx_init(
            pointer, ctypes.c_void_p(self.model), ctypes.c_void_p(arena.ctypes.data), ctypes.c_size_t(arena_bytes), None
        )
        assert status == 0
        ctypes.memmove(self.lib.enx_input(pointer), x.ctypes.data, x.nbytes)
        assert self.lib.enx_run(pointer) == 0
        logits = np.empty(num_classes, np.float32)
        ctypes.memmove(logits.ctypes.data, self.lib.enx_output(pointer), logits.nbytes)
        return logits


@pytest.fixture(scope="session")
def shared_model():
    return SharedModel


@pytest.fixture(scope="session")
def dense_func():
    """Unscheduled int8 dense [16,3] x [3,8] of the small model."""
    return with_attrs(dense_kernel(16, 3, 8), "dense", "dense")


@pytest.fixture(scope="session")
def dense_case():
    """(x, w, bias, mult, expected) of `dense_func`, with rounding ties and both saturations among the results."""
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (16, 3), dtype=np.int8)
    w = rng.integers(-127, 128, (3, 8), dtype=np.int8)
    x[0], w[:, 0] = -128, (127, 127, 127)
    bias = rng.integers(-500, 500, 8, dtype=np.int32)
    mult = np.full(8, 0.0078125, np.float32)
    mult[1] = 0.5
    expected = requantize(x.astype(np.int32) @ w.astype(np.int32) + bias, mult)
    assert {-128, 127} <= set(expected.ravel().tolist())
    return x, w, bias, mult, expected


@pytest.fixture(scope="session")
def scratch_func():
    """float32 [1,8] -> [1,8] with a 1200-byte internal buffer per parallel iteration."""
    return with_attrs(wide_scratch_kernel(8, 300), "peak", "peak")


@pytest.fixture
def call_kernel():
    """call_kernel(shared library, name, arrays, begin, end): runs a plain kernel on aligned copies, returns them."""

    def call(library: Path, name: str, arrays, begin: int, end: int) -> list[np.ndarray]:
        copies = []
        for array in arrays:
            copy = aligned_array(array.shape, array.dtype)
            copy[...] = array
            copies.append(copy)
        function = ctypes.CDLL(str(library))[name]
        status = function(*(ctypes.c_void_p(c.ctypes.data) for c in copies), ctypes.c_int32(begin), ctypes.c_int32(end))
        assert status == 0
        return copies

    return call


@dataclass(frozen=True)
class KernelChain:
    """The project's own kernels as a lowered module, and its twin. Input int8 [1,16,16,3], output [1,10] logits."""

    mod: tvm.IRModule
    steps: list[tuple]

    def reference(self, x: np.ndarray) -> np.ndarray:
        values = [x]
        for kernel, reads, constants, residual in self.steps:
            arguments = [values[reads].reshape(kernel.input_types()[0][0]), *constants]
            if residual is not None:
                arguments.insert(5, values[residual].reshape(kernel.input_types()[5][0]))
            values.append(kernel.reference(*arguments))
        return values[-1]


@pytest.fixture(scope="session")
def kernel_chain() -> KernelChain:
    from edgenext_tvm.kernels import Conv2d, Dense, Depthwise, GlobalAvgPool, LayerNorm

    rng = np.random.default_rng(21)
    pads = {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1}
    residual = (np.array([-2, 600], np.int32), np.array([2.0**-10], np.float32))

    def layer(shape, out_channels, multiplier):
        return [
            rng.integers(-127, 128, shape, dtype=np.int8),
            rng.integers(-3000, 3000, out_channels, dtype=np.int32),
            np.full(out_channels, multiplier, np.float32) * rng.uniform(0.5, 1, out_channels).astype(np.float32),
            np.array([-3, 5], np.int32),
        ]

    gelu = np.maximum(np.arange(-128, 128), -20).astype(np.int8)
    # (kernel, index of the value it reads, constants, index of the residual value)
    steps = [
        (Conv2d(1, 16, 16, 3, 8, 4, 4, 4, 4), 0, layer((4, 4, 3, 8), 8, 0.004), None),
        (Depthwise(1, 4, 4, 8, 3, 3, **pads), 1, layer((3, 3, 8), 8, 0.006), None),
        (LayerNorm(16, 8), 2, [np.array([3.0, 30.0], np.float32), np.array([4], np.int32)], None),
        (Dense(16, 8, 32, epilogue="lut"), 3, [*layer((8, 32), 32, 0.008), gelu], None),
        (Dense(16, 32, 8, epilogue="residual"), 4, [*layer((32, 8), 8, 3.0), *residual], 1),
        (GlobalAvgPool(1, 4, 4, 8), 5, [np.array([0.1], np.float32), np.array([1, 2], np.int32)], None),
        (Dense(1, 8, 10, out_dtype="float32"), 6, layer((8, 10), 10, 0.01), None),
    ]
    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((1, 16, 16, 3), "int8"))
    with bb.function("main", [x]):
        with bb.dataflow():
            values = [x]
            for number, (kernel, reads, constants, residual_value) in enumerate(steps):
                arguments = [bb.emit(relax.op.reshape(values[reads], kernel.input_types()[0][0]))]
                arguments += [relax.const(c) for c in constants]
                if residual_value is not None:
                    arguments.insert(5, bb.emit(relax.op.reshape(values[residual_value], kernel.input_types()[5][0])))
                gv = bb.add_func(kernel.prim_func(f"k{number}"), f"k{number}")
                ((shape, dtype),) = kernel.output_types()
                values.append(bb.emit(relax.call_tir(gv, arguments, R.Tensor(shape, dtype))))
            out = bb.emit_output(values[-1])
        bb.emit_func_output(out)
    return KernelChain(bb.finalize(), steps)
