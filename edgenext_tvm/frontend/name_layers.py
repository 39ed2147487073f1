"""Write the layer that a Relax call was imported from into the call's span."""

from __future__ import annotations

import tvm
from tvm import relax


def name_layers(mod: tvm.IRModule, layer_of_var: dict[relax.Var, str]) -> tvm.IRModule:
    """Return main with each binding's layer as its call's span.

    One imported operator may become several bindings, of which `layer_of_var` knows the last: the unknown
    bindings before a known one belong to its layer too.
    """
    main = mod["main"]
    blocks = []
    for block in main.body.blocks:
        pending: list[relax.VarBinding] = []
        bindings = []
        for binding in block.bindings:
            pending.append(binding)
            if binding.var in layer_of_var:
                bindings += [_with_span(b, layer_of_var[binding.var]) for b in pending]
                pending = []
        blocks.append(type(block)(bindings + pending))
    body = relax.SeqExpr(blocks, main.body.body)
    named = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    return tvm.IRModule({**mod.functions, mod.get_global_var("main"): named})


def _with_span(binding: relax.VarBinding, layer: str) -> relax.VarBinding:
    call = binding.value
    if not isinstance(call, relax.Call) or not layer:
        return binding
    span = tvm.ir.Span(tvm.ir.SourceName(layer), 0, 0, 0, 0)
    return relax.VarBinding(binding.var, relax.Call(call.op, call.args, call.attrs, call.ty_args, span))
