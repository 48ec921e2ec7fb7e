"""Passes over the float graph, before ranges are observed: constant factors, padding and ReLUs join products."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from phonolith.compiler.float_graph import FloatGraph, FloatNode
from phonolith.hw.errors import PhonolithError

PRODUCTS = ("linear", "conv2d", "depthwise")
# Where the operands that are keys or values begin.
KEYS = {"scores": 1, "context": 1, "attention": 1}


def simplify(graph: FloatGraph) -> FloatGraph:
    """Return ``graph`` as quantizers want it.

    Raises PhonolithError ``unsupported-operator`` for padding that no convolution takes.
    """
    check_padding(graph)
    graph = fold_affine(graph)
    graph = split_gated(graph)
    return fuse_relu(graph)


def check_padding(graph: FloatGraph) -> None:
    """Refuse zeros around time that something else than a convolution over time reads."""
    for pad in (node for node in graph.nodes if node.op == "pad"):
        raise PhonolithError(
            "unsupported-operator", f"padding in {pad.source} does not feed convolutions over time alone.",
            "Pad where the convolution reads it, or use the padding argument of a two-dimensional convolution.")


def fold_affine(graph: FloatGraph) -> FloatGraph:
    """Fold factors and offsets per channel (BatchNorm, the half of a half step) into the product that feeds them.

    Where there is none, or something else reads it, an offset becomes a depthwise convolution of one tap; a factor
    of all channels alike stays.
    """
    return _folded(graph, lambda node: node.op in ("affine", "scaled"), _times,
                   lambda node: _one_tap(node) if node.op == "affine" else node)


def _folded(graph: FloatGraph, is_folded: Callable[[FloatNode], bool],
            fold: Callable[[FloatNode, FloatNode], FloatNode],
            keep: Callable[[FloatNode], FloatNode] = lambda node: node) -> FloatGraph:
    """Return the graph with ``fold(product, node)`` for each product and a node that alone reads it and is folded.

    The product's name stays; of all other nodes ``keep(node)`` does.
    """
    nodes: dict[str, FloatNode] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        origin = node.inputs[0]
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        source = nodes.get(node.inputs[0])
        if is_folded(node) and source and _takes(graph, source, origin):
            nodes[source.name] = fold(source, node)
            renamed[node.name] = source.name
        else:
            nodes[node.name] = keep(node)
    return replace(graph, nodes=tuple(nodes.values()), output=renamed.get(graph.output, graph.output))


def _times(product: FloatNode, affine: FloatNode) -> FloatNode:
    """Return ``product`` with its outputs multiplied and offset."""
    gamma = affine.constants.get("gamma", np.float32(affine.attributes.get("factor", 1)))
    weight, bias = (product.constants[role] for role in ("weight", "bias"))
    wide = np.broadcast_to(gamma, len(weight)).reshape(-1, *[1] * (weight.ndim - 1))
    beta = affine.constants.get("beta", np.float32(0))
    return replace(product, constants={"weight": weight * wide, "bias": bias * gamma + beta})


def _one_tap(node: FloatNode) -> FloatNode:
    constants = {"weight": node.constants["gamma"][:, None], "bias": node.constants["beta"]}
    return replace(node, op="depthwise", constants=constants, attributes={"padding": [0, 0]})


def split_gated(graph: FloatGraph) -> FloatGraph:
    """Make linear layers of their own of the parts of a projection whose parts a product of tensors reads.

    A factor of such a product is int16 and a gate a byte, so that they cannot be parts of one tensor.
    """
    return _split(graph, lambda reader, name: reader.op == "multiply")


def split_keys(graph: FloatGraph) -> FloatGraph:
    """Make linear layers of their own of the parts of a projection that holds keys or values of attention.

    Those of 4 bits cannot be parts of one tensor with queries of 8.
    """
    return _split(graph, lambda reader, name: name in reader.inputs[KEYS.get(reader.op, len(reader.inputs)):])


def _split(graph: FloatGraph, is_reason: Callable[[FloatNode, str], bool]) -> FloatGraph:
    """Split projections all of whose readers are slices, if ``is_reason(node, slice)`` of any that reads a slice."""
    nodes, split = {node.name: node for node in graph.nodes}, []
    for node in graph.nodes:
        readers = disjoint_slices(graph, node)
        if any(is_reason(each, reader.name) for reader in readers for each in graph.consumers(reader.name)):
            split.append(node.name)
            nodes |= {reader.name: _columns(node, reader, number) for number, reader in enumerate(readers)}
    renamed = {name: node.name for name, node in nodes.items()}
    kept = (replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
            for name, node in nodes.items() if name not in split)
    return replace(graph, nodes=tuple(kept), output=renamed[graph.output])


def _columns(linear: FloatNode, part: FloatNode, number: int) -> FloatNode:
    """Return the layer that computes some columns of ``linear``."""
    columns = slice(part.attributes["start"], part.attributes["stop"])
    constants = {role: constant[columns] for role, constant in linear.constants.items()}
    return replace(linear, name=f"{linear.name}.{number}", constants=constants)


def disjoint_slices(graph: FloatGraph, node: FloatNode) -> list[FloatNode]:
    """Return the slices that alone read a linear's output and cover it without overlap, else nothing."""
    readers = graph.consumers(node.name)
    if node.op != "linear" or graph.output == node.name or any(r.op != "slice" for r in readers):
        return []
    covered = [c for r in readers for c in range(r.attributes["start"], r.attributes["stop"])]
    return readers if readers and sorted(covered) == list(range(len(node.constants["bias"]))) else []


def fuse_relu(graph: FloatGraph) -> FloatGraph:
    """Fold each ReLU into the linear or convolution that feeds it and nothing else; that one's name stays."""
    return _folded(graph, lambda node: node.attributes.get("function") == "relu",
                   lambda product, _relu: replace(product, attributes=product.attributes | {"relu": True}))


def _takes(graph: FloatGraph, source: FloatNode, name: str) -> bool:
    """Tell whether ``source`` is a product without a ReLU yet whose result, once ``name``, has one reader."""
    alone = len(graph.consumers(name)) == 1 and graph.output != name
    return source.op in PRODUCTS and alone and not source.attributes.get("relu")
