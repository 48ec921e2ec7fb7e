"""What a model consists of: operators, shapes, widths, multiply-accumulates, bytes."""

import math

from phonolith.compiler.ir import DTYPES, Graph, Node
from phonolith.compiler.model_file import graph_to_json
from phonolith.compiler.shapes import Shape, check_frames, infer_shapes, visible_chunks


def node_macs(node: Node, shapes: dict[str, Shape]) -> int:
    """Return the multiply-accumulates of the mathematical product, unpadded; 0 for other operators."""
    if node.op in ("linear", "conv2d", "depthwise_conv1d"):
        weight = node.constants["weight"]
        return math.prod(shapes[node.name][:-1]) * weight.size
    if node.op == "matmul":
        inner = shapes[node.inputs[0]][-1]
        split = (node.attributes.get("heads") or 1) if node.attributes["transpose_b"] else 1
        return math.prod(shapes[node.name]) * inner // split
    if node.op == "attention":
        (frames, width), (sources, value_width) = shapes[node.inputs[0]], shapes[node.inputs[2]]
        pairs = visible_pairs(node, frames) if node.attributes.get("chunk") else frames * sources
        return pairs * (width * (2 if "positions" in node.constants else 1) + value_width)
    return 0


def visible_pairs(attention: Node, frames: int) -> int:
    """Return how many pairs of query and key an attention over chunks of ``frames`` rows scores."""
    chunks = visible_chunks(frames, *(attention.attributes.get(name, 0) for name in ("chunk", "left", "before")))
    return sum((rows.stop - rows.start) * (seen.stop - seen.start) for rows, seen in chunks)


def tensor_bytes(dtype: str, shape: Shape) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * DTYPES[dtype]().itemsize


def constant_bytes(node: Node) -> int:
    """Return the bytes of a node's constants as stored in the model file."""
    return sum(constant.nbytes for constant in node.constants.values())


def describe_node(node: Node, dtypes: dict[str, str], shapes: dict[str, Shape]) -> dict:
    """Return one line of the inspection."""
    weight = node.constants.get("weight")
    return {
        "name": node.name,
        "op": node.op,
        "inputs": " ".join(dtypes[name] for name in node.inputs),
        "weights": "" if weight is None else str(weight.dtype),
        "output": f"{node.dtype} {'x'.join(map(str, shapes[node.name]))}",
        "macs": node_macs(node, shapes),
        "constant_bytes": constant_bytes(node),
        "output_bytes": tensor_bytes(node.dtype, shapes[node.name]),
    }


def inspect(graph: Graph, frames: int = 100) -> dict:
    """Return layers (one dict per node), totals and provenance for an utterance of ``frames`` frames.

    PhonolithError ``input-too-short`` when the front end leaves none of them, ``input-too-long``.
    """
    check_frames(graph, frames)
    shapes = infer_shapes(graph, frames)
    dtypes = {item.name: item.dtype for item in (*graph.inputs, *graph.nodes)}
    layers = [describe_node(node, dtypes, shapes) for node in graph.nodes]
    weights = [node.constants["weight"] for node in graph.nodes if "weight" in node.constants]
    return {
        "model": graph.name,
        "frames": frames,
        "output_frames": shapes[graph.outputs[0]][0],
        "macs": sum(layer["macs"] for layer in layers),
        "weights": sum(weight.size for weight in weights),
        "parameters": graph.metadata.get("parameters", {}),
        "weight_bits": 8,
        "constant_bytes": sum(layer["constant_bytes"] for layer in layers),
        "graph_bytes": len(graph_to_json(graph)),
        "vocabulary": graph.metadata.get("vocabulary", []),
        "provenance": graph.metadata.get("provenance", {}),
        "layers": layers,
    }
