"""Remembers through all passes which integer tensor of the imported program each value of main holds.

Before::

    lv = R.quantize(x, 0.02, 3)                         # the imported program's third quantize

After::

    lv = R.quantize(x, 0.02, 3)
    # attribute enx.tensors = {"parameters": [[...], [...], [0.02, 3, "int8"]], "values": {"lv": [2]}}

Why here: after ConvertLayout, the last pass that is no Rewriter; from here on a Rewriter carries the names along to
what a value becomes. Tensors that a fusion leaves no memory for disappear from the attribute.

Leaves alone: all code; float programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import tvm
from tvm import relax

TENSORS_ATTR = "enx.tensors"
MOVEMENT = ("reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "strided_slice")

Tracked = dict[str, list[int]]
"""By variable name: which quantize operators of the imported program made its value, counted in order."""


def track_tensors(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with the attribute; without any quantize, the module itself."""
    parameters: list[tuple[float, int, str]] = []
    values: Tracked = {}
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and getattr(call.op, "name", "") == "relax.quantize":
                scale, zero_point = (argument.value.numpy().reshape(-1) for argument in call.args[1:3])
                values[binding.var.name] = [len(parameters)]
                parameters.append((float(scale[0]), int(zero_point[0]), str(call.attrs.out_dtype)))
    return with_tracked(mod, values, parameters) if parameters else mod


def tracked(mod: tvm.IRModule) -> Tracked:
    """What the attribute says of main's variables; {} without it."""
    return _attribute(mod).get("values", {})


def tensor_parameters(mod: tvm.IRModule) -> list[tuple[float, int, str]]:
    """(scale, zero_point, dtype) of every quantize of the imported program, in its order."""
    return [(scale, zero_point, dtype) for scale, zero_point, dtype in _attribute(mod).get("parameters", [])]


def with_tracked(mod: tvm.IRModule, values: Mapping[str, list[int]], parameters: list | None = None) -> tvm.IRModule:
    """Return the module with `values` of variables that exist in the attribute, and with new `parameters` if given."""
    parameters = parameters if parameters is not None else _attribute(mod).get("parameters")
    if parameters is None:
        return mod
    main = mod["main"]
    existing = [var.name for var in (*main.params, *(b.var for block in main.body.blocks for b in block.bindings))]
    kept = {name: values[name] for name in existing if values.get(name)}
    main = main.with_attr(TENSORS_ATTR, json.dumps({"parameters": parameters, "values": kept}))
    return tvm.IRModule({**{gv: func for gv, func in mod.functions.items() if gv.name_hint != "main"}, "main": main})


def carry(found: Mapping[str, list[int]], old: relax.Expr, new: relax.Expr, value: Mapping, into: Tracked) -> None:
    """Note in `into` what `found` says of `old`, for the value behind data movement that `new` is now.

    value: the expression that a new variable is bound to.
    """
    numbers = found.get(old.name) if isinstance(old, relax.Var) else None
    if not numbers:
        return
    while isinstance(new, relax.Var) and (source := _moved(value.get(new))) is not None:
        new = source
    if isinstance(new, relax.Var):
        known = into.setdefault(new.name, [])
        known += [number for number in numbers if number not in known]


def _moved(bound: relax.Expr | None) -> relax.Expr | None:
    if isinstance(bound, relax.TupleGetItem):
        return bound.tuple_value if bound.index == 0 else None
    if not isinstance(bound, relax.Call) or getattr(bound.op, "name", "").removeprefix("relax.") not in MOVEMENT:
        return None
    return bound.args[0]


def _attribute(mod: tvm.IRModule) -> dict:
    attrs = mod["main"].attrs
    return json.loads(str(attrs[TENSORS_ATTR])) if attrs and TENSORS_ATTR in attrs else {}
