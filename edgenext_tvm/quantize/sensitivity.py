"""What each tensor's quantization does to the logits, when all others stay float.

The network is exported once, with a switch at every tensor that the recipe quantizes and at every layer's weights;
turning a switch exports nothing again. A scan follows the float run and leaves it at each tensor in turn, so that
only what lies behind that tensor is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgenext_tvm.errors import UserError
from edgenext_tvm.quantize.graph_keys import tensor_keys
from edgenext_tvm.quantize.insert_qdq import insert_observers
from edgenext_tvm.quantize.observers import INT16_STEPS, LEVELS, MIN_SCALE, ActivationObserver, Dtype
from edgenext_tvm.quantize.quantizer import is_constant
from edgenext_tvm.quantize.recipe import ActivationQParams, Recipe
from edgenext_tvm.quantize.shape_weights import reshape_weights
from edgenext_tvm.quantize.weight_rounding import anchors, nearest, weight_scales

BATCH = 16


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing `group` alone does to the logits.

    group: keys of tensors (as in the recipe) and of weights (`<module path>.weight`). mean_squared_error: over all
    images and logits. sqnr_db: energy of the float logits over that of the error, infinite where nothing changed.
    agreement: share of images whose best class stays.
    """

    group: tuple[str, ...]
    mean_squared_error: float
    sqnr_db: float
    agreement: float


def scan_sensitivity(
    model: nn.Module,
    recipe: Recipe,
    inputs: Tensor,
    groups: Iterable[Sequence[str]] | None = None,
    dtype: Dtype = "int8",
    batch_size: int = BATCH,
) -> list[Sensitivity]:
    """Quantizes one group at a time, all else float; one result a group, in the groups' order.

    model: the float model that `recipe` was made for. inputs: float32 [M,3,S,S], normalised. groups: of keys; default:
    every tensor (with those that share its scale) and every layer's weights, each alone. dtype: of the activations; the
    recipe's parameters are cut into finer steps or coarser ones where it says otherwise. Weights are always int8.
    """
    network = SwitchedNetwork(model, recipe, min(batch_size, len(inputs)))
    return network.scan(inputs, network.groups if groups is None else groups, dtype)


class SwitchedNetwork:
    """The recipe's network, in which every tensor is float or quantized as asked.

    groups: keys that go together because they share one scale, and each layer's weights, in network order. Weights
    switch from the float ones (folded, equalized) to what the recipe makes of them, with its correction of the bias.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, batch_size: int = BATCH) -> None:
        self.batch_size = batch_size
        exact = recipe.model_copy(update={"rounding": {}, "bias_correction": {}})
        example = torch.zeros(batch_size, 3, recipe.input_size, recipe.input_size)
        wide = frozenset(key for key, params in recipe.activations.items() if params.dtype == "int16")
        self.graph, observers = insert_observers(reshape_weights(model, exact), example, recipe.observer, wide)
        for node in list(self.graph.graph.nodes):
            # export leaves a call that checks the input's shape, whose result nobody reads
            if node.op == "call_module" and not node.users:
                self.graph.graph.erase_node(node)
        self._nodes = list(self.graph.graph.nodes)
        self._position = {node: index for index, node in enumerate(self._nodes)}
        self._dies_at = _last_uses(self._nodes)
        # a run that left the float run in the middle must not change the values that the float run goes on with
        self._can_branch = not any(_writes_its_input(node) for node in self._nodes)
        self._tensors = {key: _Tensor(_parameters(recipe, o.keys), tuple(o.keys)) for o in observers for key in o.keys}
        self._weights: dict[str, dict[Node, Tensor]] = {}
        # what int16 tensors take instead of the recipe's range in finer steps
        self.wide: dict[str, ActivationQParams] = {}
        self._find_nodes(anchors(reshape_weights(model, recipe)))

    @property
    def groups(self) -> list[tuple[str, ...]]:
        groups = {tensor.keys for tensor in self._tensors.values()} | {(key,) for key in self._weights}

        def first_reader(group: tuple[str, ...]) -> tuple[int, bool]:
            return min((self._position[self._reader(self._node(key))], key in self._weights) for key in group)

        return sorted(groups, key=first_reader)

    @property
    def recipe_choice(self) -> dict[str, Dtype]:
        """All keys with the recipe's own widths: the quantized program."""
        widths: dict[str, Dtype] = {key: tensor.parameters.dtype for key, tensor in self._tensors.items()}
        return widths | dict.fromkeys(self._weights, "int8")

    @torch.no_grad()
    def float_tensors(self, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Float values of every tensor that the recipe quantizes, but constants, and the logits; [M,...] each.

        By key, in the order in which the quantized program quantizes them. inputs: at most one batch.
        """
        ((x, count),) = self._batches(inputs)
        runner, found = _Runner(self.graph, x), {}
        for node in self._nodes:
            self._step(runner, node)
            if node in self._computed:
                found[self._computed[node]] = runner.env[node][:count]
        return found, _one_tensor(runner.env[self._nodes[-1]])[:count]

    @torch.no_grad()
    def logits(self, inputs: Tensor, choice: Mapping[str, Dtype]) -> Tensor:
        """Logits float32 [M,K] of `inputs` [M,3,S,S]; keys of `choice` are quantized as it says, all else is float."""
        self._check(choice)
        return torch.cat([self._rest({}, 0, x, choice)[:count] for x, count in self._batches(inputs)])

    @torch.no_grad()
    def scan(self, inputs: Tensor, groups: Iterable[Sequence[str]], dtype: Dtype = "int8") -> list[Sensitivity]:
        """`scan_sensitivity` for this network."""
        wanted = [tuple(group) for group in groups]
        starts: dict[Node, list[int]] = {}
        for index, group in enumerate(wanted):
            self._check(group)
            starts.setdefault(self._start(group), []).append(index)
        noise, hits = [0.0] * len(wanted), [0] * len(wanted)
        signal, values = 0.0, 0
        for x, count in self._batches(inputs):
            exact, changed = self._leave_float_run(x, wanted, starts, dtype)
            signal += float(exact[:count].double().square().sum())
            values += exact[:count].numel()
            for index, logits in changed.items():
                noise[index] += float((logits - exact)[:count].double().square().sum())
                hits[index] += int((logits.argmax(1) == exact.argmax(1))[:count].sum())
        return [
            Sensitivity(group, n / values, 10 * math.log10(signal / n) if n and signal else math.inf, hit / len(inputs))
            for group, n, hit in zip(wanted, noise, hits, strict=True)
        ]

    def _leave_float_run(
        self, x: Tensor, groups: list[tuple[str, ...]], starts: Mapping[Node, list[int]], dtype: Dtype
    ) -> tuple[Tensor, dict[int, Tensor]]:
        # the float logits, and those of each group by its index
        found: dict[int, Tensor] = {}
        runner = _Runner(self.graph, x)
        for position, node in enumerate(self._nodes):
            for index in starts.get(node, []):
                choice = dict.fromkeys(groups[index], dtype)
                env, first = (runner.env, position) if self._can_branch else ({}, 0)
                found[index] = self._rest(env, first, x, choice)
            self._step(runner, node)
        return _one_tensor(runner.env[self._nodes[-1]]), found

    def _rest(self, env: Mapping[Node, Any], position: int, x: Tensor, choice: Mapping[str, Dtype]) -> Tensor:
        runner = _Runner(self.graph, x)
        for key, dtype in choice.items():
            if key in self._weights:
                runner.constants.update(self._weights[key])
            else:
                tensor = self._tensors[key]
                params = self.wide[key] if dtype == "int16" and key in self.wide else None
                params = params or _as_dtype(tensor.parameters, dtype)
                runner.parameters.update(dict.fromkeys(tensor.nodes, params))
        runner.env = {node: runner.constants.get(node, value) for node, value in env.items()}
        for node in self._nodes[position:]:
            self._step(runner, node)
        return _one_tensor(runner.env[self._nodes[-1]])

    def _step(self, runner: Interpreter, node: Node) -> None:
        runner.env[node] = runner.run_node(node)
        for dead in self._dies_at.get(node, []):
            del runner.env[dead]

    def _batches(self, inputs: Tensor) -> Iterable[tuple[Tensor, int]]:
        for part in inputs.split(self.batch_size):
            padding = part.new_zeros(self.batch_size - len(part), *part.shape[1:])
            yield torch.cat([part, padding]), len(part)

    def _start(self, group: Sequence[str]) -> Node:
        # weights stand at the graph's top with their observers: what they change begins where a layer reads them
        nodes = [self._reader(self._node(key)) if key in self._weights else self._node(key) for key in group]
        return min(nodes, key=self._position.__getitem__)

    def _node(self, key: str) -> Node:
        return next(iter(self._weights[key])) if key in self._weights else self._tensors[key].nodes[0]

    def _reader(self, node: Node) -> Node:
        while node.op in ("get_attr", "call_module"):
            node = min(node.users, key=self._position.__getitem__)
        return node

    def _check(self, keys: Iterable[str]) -> None:
        unknown = sorted(set(keys) - set(self._tensors) - set(self._weights))
        if unknown:
            raise UserError(
                f"the network quantizes no tensor {unknown[0]!r}; allowed are the names under 'activations' of its "
                f"recipe and '<module path>.weight', such as {next(iter(self._weights), 'fc.weight')!r}"
            )

    def _find_nodes(self, layers: Mapping[str, Any]) -> None:
        keys = tensor_keys(self.graph)
        self._computed: dict[Node, str] = {}
        for node in self._nodes:
            observer = self.graph.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(observer, ActivationObserver):
                for key in observer.keys:
                    self._tensors[key].nodes.append(node)
                if not is_constant(node.all_input_nodes[0]):
                    self._computed[node] = _key_of_observer(node, keys, observer.keys)
            name, _, part = str(node.target).rpartition(".")
            if node.op == "get_attr" and name in layers and part == "weight":
                observers = [user for user in node.users if user.op == "call_module"]
                self._weights[str(node.target)] = dict.fromkeys([node, *observers], _on_grid(layers[name].weight))
        for node in self._nodes:
            name, _, part = str(node.target).rpartition(".")
            if node.op == "get_attr" and part == "bias" and f"{name}.weight" in self._weights:
                self._weights[f"{name}.weight"][node] = layers[name].bias.detach()


@dataclass(frozen=True)
class _Tensor:
    """nodes: the observers of one scale, in network order."""

    parameters: ActivationQParams
    keys: tuple[str, ...]
    nodes: list[Node] = field(default_factory=list)


class _Runner(Interpreter):
    """parameters: how observers' tensors are quantized; others are passed on. constants: other values of constants."""

    def __init__(self, graph: GraphModule, x: Tensor) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.args_iter = iter([x])
        self.parameters: dict[Node, ActivationQParams] = {}
        self.constants: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        if n in self.constants:
            return self.constants[n]
        if n.op != "call_module":
            return super().run_node(n)
        (value,), _ = self.fetch_args_kwargs_from_env(n)
        params = self.parameters.get(n)
        if params is None:
            return value
        low, high = LEVELS[params.dtype]
        return torch.fake_quantize_per_tensor_affine(value, params.scale, params.zero_point, low, high)


def _key_of_observer(node: Node, keys: Mapping[Node, str], shared: Sequence[str]) -> str:
    # what the node made, or else what one reader reads of it
    (producer,) = node.all_input_nodes
    reader = next(iter(node.users))
    if keys[producer] in shared:
        return keys[producer]
    return f"{keys[reader]}.in{reader.all_input_nodes.index(node)}"


def _parameters(recipe: Recipe, keys: Sequence[str]) -> ActivationQParams:
    missing = next((key for key in keys if key not in recipe.activations), None)
    if missing is not None:
        raise UserError(f"the recipe does not fit this network: it lacks {missing!r}; calibrate again")
    return recipe.activations[keys[0]]


def _as_dtype(params: ActivationQParams, dtype: Dtype) -> ActivationQParams:
    # the same range in finer or coarser steps
    if params.dtype == dtype:
        return params
    if dtype == "int16":
        return ActivationQParams(
            scale=params.scale / INT16_STEPS, zero_point=params.zero_point * INT16_STEPS, dtype=dtype
        )
    low, high = LEVELS["int8"]
    zero_point = max(low, min(high, round(params.zero_point / INT16_STEPS)))
    return ActivationQParams(scale=max(params.scale * INT16_STEPS, MIN_SCALE), zero_point=zero_point)


def _on_grid(weight: Tensor) -> Tensor:
    scale = weight_scales(weight)
    return (nearest(weight) * scale[:, None]).reshape(weight.shape)


def _last_uses(nodes: Sequence[Node]) -> dict[Node, list[Node]]:
    dies_at: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(nodes):
        for value in node.all_input_nodes:
            if value not in seen:
                seen.add(value)
                dies_at.setdefault(node, []).append(value)
    return dies_at


def _writes_its_input(node: Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _one_tensor(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple | list) else result
