"""dense and conv2d on AArch64: chunks of tiles of rows run in parallel, the table of a lookup last in each chunk."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

from ...kernels import Conv2d, Dense
from ..space import Space
from . import epilogue as ep
from .function import build_function, loop
from .left_operand import rows_of
from .product_emitter import Indices, ProductEmitter
from .product_plan import Plan, product_space, products_for, wide_products_for


def matmul_space(kernel: Dense | Conv2d, func: tirx.PrimFunc, features: frozenset[str], family: str) -> Space | None:
    """Return the kernel's space, or None where its shape does not suit: channels or runs that are no quads."""
    rows = rows_of(kernel)
    if rows is None or kernel.co % 4:
        return None
    products = wide_products_for(features) if kernel.multiplies_wide else products_for(features)
    return product_space(family, rows, kernel.co, products, lambda plan: _build(kernel, func, plan))


def _build(kernel: Dense | Conv2d, func: tirx.PrimFunc, plan: Plan) -> tirx.PrimFunc:
    tile_rows = plan.tile.rows

    def pixel(tile: Expr, row: int) -> tuple[Expr, Expr, Expr]:
        assert isinstance(kernel, Conv2d)
        oh, ow = kernel.out_hw
        per_line = ow // tile_rows
        line = tirx.floordiv(tile, per_line)
        column = tirx.floormod(tile, per_line) * tile_rows + row
        return tirx.floordiv(line, oh), tirx.floormod(line, oh), column

    def x_at(tile: Expr, row: int, segment: Expr | int) -> Indices:
        if isinstance(kernel, Dense):
            return (tile * tile_rows + row, 0)
        n, i, j = pixel(tile, row)
        return (n, i * kernel.stride_h + segment, j * kernel.stride_w, 0)

    def y_at(tile: Expr, row: int, channel: Expr) -> Indices:
        if isinstance(kernel, Dense):
            return (tile * tile_rows + row, channel)
        return (*pixel(tile, row), channel)

    product = ProductEmitter(plan, kernel.epilogue, x_at, y_at)

    def body(**b: tirx.Buffer) -> None:
        tiles = plan.rows.count // tile_rows
        width = 4 * plan.tile.quads
        if tiles == 1:
            with loop(plan.panels, "panel", parallel=True) as panel:
                product.emit_tile(b, tirx.IntImm("int32", 0), panel)
                if kernel.epilogue == "lut":
                    with loop(tile_rows, "row") as row:
                        ep.emit_look_up(b["y"], b["lut"], row * kernel.co + panel * width, width)
            return
        with loop(tiles // plan.group, "chunk", parallel=True) as chunk:
            product.emit_tiles(b, chunk * plan.group, plan.group)
            if kernel.epilogue == "lut":
                size = plan.group * tile_rows * kernel.co
                ep.emit_look_up(b["y"], b["lut"], chunk * size, size)

    return build_function(func, body, [product.products.packing(1)], {1: product.weights_shape})
