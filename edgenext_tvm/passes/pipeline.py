"""From a quantized Relax program to integer kernels: the phases, in order."""

from __future__ import annotations

import hashlib
import json

import tvm
from tvm import relax

from edgenext_tvm.errors import UserError
from edgenext_tvm.passes.canonicalize_qdq import canonicalize_qdq
from edgenext_tvm.passes.convert_layout import convert_layout
from edgenext_tvm.passes.count_products import count_products
from edgenext_tvm.passes.fold_slices import fold_slices
from edgenext_tvm.passes.fuse_adds import fuse_adds
from edgenext_tvm.passes.fuse_anchors import fuse_anchors
from edgenext_tvm.passes.fuse_cross_covariance_attention import fuse_cross_covariance_attention
from edgenext_tvm.passes.fuse_float_layers import fuse_float_layers
from edgenext_tvm.passes.fuse_global_pools import fuse_global_pools
from edgenext_tvm.passes.fuse_inverted_bottlenecks import fuse_inverted_bottlenecks
from edgenext_tvm.passes.fuse_islands import fuse_islands
from edgenext_tvm.passes.fuse_layer_norms import fuse_layer_norms
from edgenext_tvm.passes.fuse_lookups import fuse_lookups
from edgenext_tvm.passes.quantize_before_clamps import quantize_before_clamps
from edgenext_tvm.passes.rewrite import bindings_of, layer_of, op_name
from edgenext_tvm.passes.sign_activations import sign_activations
from edgenext_tvm.passes.simplify_movement import simplify_movement
from edgenext_tvm.passes.strip_input_quantize import strip_input_quantize
from edgenext_tvm.passes.track_tensors import track_tensors
from edgenext_tvm.passes.write_concats_in_place import write_concats_in_place

LAYERS_ATTR = "enx.layers"

INTEGER_PASSES = (
    # 1. One layout, and data movement only on int8 tensors.
    sign_activations,
    convert_layout,
    canonicalize_qdq,
    strip_input_quantize,
    quantize_before_clamps,
    # 2. Float patterns between int8 tensors become integer kernels, the most specific first.
    fuse_cross_covariance_attention,
    fuse_layer_norms,
    fuse_anchors,
    fuse_lookups,
    fuse_adds,
    fuse_global_pools,
    # 3. Movement that is left becomes offsets.
    simplify_movement,
    write_concats_in_place,
    fold_slices,
    # 4. What no kernel knows is still correct.
    fuse_islands,
    # 5. Large hidden tensors are never whole.
    fuse_inverted_bottlenecks,
)
"""Every pass from the imported QDQ program to `R.call_tir`; tuning and building must share this list."""


def pass_list_hash() -> str:
    """Return a hash of the pass list: a tuning database fits only the passes it was recorded with."""
    return hashlib.sha256("\n".join(p.__name__ for p in INTEGER_PASSES).encode()).hexdigest()[:16]


def lower(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the QDQ program as calls of integer kernels; main's attribute enx.layers names their modules."""
    for transform in INTEGER_PASSES:
        mod = transform(mod)
        if transform is convert_layout:
            mod = track_tensors(mod)
    return _finished(mod)


def lower_float(mod: tvm.IRModule) -> tvm.IRModule:
    """Return a float32 program as calls of float kernels in NHWC: one per layer, with its bias and activation."""
    return _finished(fuse_float_layers(relax.transform.FoldConstant()(convert_layout(mod))))


def _finished(mod: tvm.IRModule) -> tvm.IRModule:
    layers = {}
    for var, value in bindings_of(mod):
        if isinstance(value, relax.TupleGetItem) or op_name(value) in ("reshape", "call_tir", "call_tir_inplace"):
            layers[var.name] = layer_of(value)
            continue
        if isinstance(value, relax.Var):
            continue
        raise UserError(
            f"the operator '{op_name(value) or type(value).__name__}' of module '{layer_of(value) or 'top level'}' was "
            "not lowered. Replace it in the model by supported operators, or report it with the model."
        )
    main = mod["main"].with_attr(LAYERS_ATTR, json.dumps({k: v for k, v in layers.items() if v}, sort_keys=True))
    mod = tvm.IRModule({**{gv: f for gv, f in mod.functions.items() if gv.name_hint != "main"}, "main": main})
    return count_products(mod)
