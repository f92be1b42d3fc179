"""A model of anybody's as a row of layers that can be cut, by torch.fx."""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


def layers_of(model: nn.Module) -> OrderedDict[str, nn.Module]:
    """Take a model apart behind each node where a single tensor goes on.

    A layer is a stretch of the model that ends where a single tensor goes on: not inside a residual
    block, but behind it. It is named after the module that ends there, for instance ``layer2`` or
    ``features.5``. The layers share the model's parameters.

    Raises
    ------
    ValueError
        If the forward pass takes another way in training than in evaluation.
    Exception
        Whatever torch.fx or the model raises, if torch.fx cannot follow its forward pass.
    """
    from torchvision.models.feature_extraction import NodePathTracer
    from torchvision.ops import StochasticDepth

    # Traced into, the layer would stay in training mode for ever.
    tracer, twin = (NodePathTracer(leaf_modules=[StochasticDepth]) for _ in range(2))
    # A trace writes constants into its model.
    other = twin.trace(copy.deepcopy(model).eval())
    graph = tracer.trace(model.train())
    named: dict[fx.Node, str] = tracer.node_to_qualname
    _follow_mode(graph, other, named)
    # The tracer names what is called, and not the parameters and buffers that are used directly.
    named |= {node: str(node.target) for node in graph.nodes if node not in named}
    nodes = [node for node in graph.nodes if node.op != "output"]
    places = {node: place for place, node in enumerate(nodes)}
    last_use = [
        max((places.get(user, len(nodes)) for user in node.users), default=place)
        for place, node in enumerate(nodes)
    ]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    begin = 1  # behind the input
    for place, node in enumerate(nodes[1:], start=1):
        going_on = [earlier for earlier in range(place + 1) if last_use[earlier] > place]
        is_tensor = not any(user.target is operator.getitem for user in node.users)
        if going_on == [place] and is_tensor:
            later = [named[after] for after in nodes[place + 1 :]]
            layers[_ended(named[node], later)] = _stretch(model, nodes[begin : place + 1])
            begin = place + 1
    return layers


def _follow_mode(graph: fx.Graph, other: fx.Graph, named: dict[fx.Node, str]) -> None:
    """Have arguments that are ``self.training`` follow the mode of the layer that has them.

    A trace has the value that ``self.training`` had: `graph` that in training, `other` that in
    evaluation.
    """
    nodes, twins = list(graph.nodes), list(other.nodes)
    twin_of = dict(zip(nodes, twins, strict=False))
    if len(nodes) != len(twins):
        raise _ways_differ()
    for node, twin in twin_of.items():
        if (node.op, node.target) != (twin.op, twin.target):
            raise _ways_differ()

        def merged(ours: Any, theirs: Any, node: fx.Node = node) -> Any:
            if isinstance(ours, fx.Node):
                if twin_of[ours] is theirs:
                    return ours
            elif ours is True and theirs is False:
                with graph.inserting_before(node):
                    mode = graph.create_node("get_attr", "training")
                named[mode] = named[node]
                return mode
            elif isinstance(ours, tuple | list) and isinstance(theirs, tuple | list):
                if len(ours) == len(theirs):
                    return type(ours)(map(merged, ours, theirs))
            elif isinstance(ours, dict) and isinstance(theirs, dict):
                if ours.keys() == theirs.keys():
                    return {key: merged(value, theirs[key]) for key, value in ours.items()}
            elif isinstance(ours, slice) and isinstance(theirs, slice):
                ends = ((one.start, one.stop, one.step) for one in (ours, theirs))
                return slice(*map(merged, *ends))
            elif ours == theirs:
                return ours
            raise _ways_differ()

        node.args = tuple(map(merged, node.args, twin.args))
        node.kwargs = {key: merged(value, twin.kwargs[key]) for key, value in node.kwargs.items()}


def _ways_differ() -> ValueError:
    return ValueError("its forward pass takes another way where self.training is true")


def _ended(name: str, later: Sequence[str]) -> str:
    """Return the outermost module that ends with a node, or the node's own name."""
    words = name.split(".")
    for length in range(1, len(words)):
        outer = ".".join(words[:length])
        if not any(after == outer or after.startswith(f"{outer}.") for after in later):
            return outer
    return name


def _stretch(model: nn.Module, nodes: Sequence[fx.Node]) -> fx.GraphModule:
    """Return a stretch of a model as a module; it shares the model's parameters."""
    graph = fx.Graph()
    inputs = (entering for node in nodes for entering in node.all_input_nodes)
    entering = next(node for node in inputs if node not in nodes)
    copied = {entering: graph.placeholder("x")}
    for node in nodes:
        copied[node] = graph.node_copy(node, copied.__getitem__)
        _make_deterministic(model, copied[node])
    graph.output(copied[nodes[-1]])
    return fx.GraphModule(model, graph)


def _make_deterministic(model: nn.Module, node: fx.Node) -> None:
    """Replace adaptive pooling to one cell by a mean, whose backward pass is deterministic."""
    if node.op == "call_module":
        layer = model.get_submodule(str(node.target))
        is_mean = isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in _ONE_CELL
    else:
        adaptive: Callable[..., object] = F.adaptive_avg_pool2d
        is_mean = node.target is adaptive and [*node.args, *node.kwargs.values()][1] in _ONE_CELL
    if is_mean:
        node.op, node.target = "call_function", torch.mean
        node.args, node.kwargs = (node.args[0], (2, 3)), {"keepdim": True}


_ONE_CELL = (1, (1, 1), [1, 1])
