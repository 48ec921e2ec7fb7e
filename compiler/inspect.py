"""What a model consists of: operators, shapes, widths, multiply-accumulates, bytes."""

import math

from phonolith.compiler.ir import DTYPES, Graph, Node
from phonolith.compiler.model_file import graph_to_json
from phonolith.compiler.shapes import Shape, check_frames, infer_shapes, visible_chunks
from phonolith.compiler.weight_formats import WeightFormat, scheme_name, weight_format

# Of a channel, or a channel and block, in DRAM: what stands in which constants.
CHANNEL_BYTES = 8
CHANNEL_ROLES = ("weight", "bias", "multiplier", "shift", "zero", "gamma", "gamma_shift", "beta")


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


def node_mac_bits(node: Node, shapes: dict[str, Shape], dtypes: dict[str, str]) -> int:
    """Return :func:`node_macs`, each times the bits of what its weight, or its operand in a weight's place, has."""
    if "weight" in node.constants:
        return node_macs(node, shapes) * weight_format(node).bits
    bits = [4 if dtypes[name] == "int4" else 8 for name in node.inputs]
    if node.op != "attention":
        return node_macs(node, shapes) * bits[-1]
    width, value_width = shapes[node.inputs[0]][-1], shapes[node.inputs[2]][-1]
    positions = width if "positions" in node.constants else 0
    pairs = node_macs(node, shapes) // (width + positions + value_width)
    return pairs * (width * bits[1] + positions * 8 + value_width * bits[2])


def visible_pairs(attention: Node, frames: int) -> int:
    """Return how many pairs of query and key an attention over chunks of ``frames`` rows scores."""
    chunks = visible_chunks(frames, *(attention.attributes.get(name, 0) for name in ("chunk", "left", "before")))
    return sum((rows.stop - rows.start) * (seen.stop - seen.start) for rows, seen in chunks)


def tensor_bytes(dtype: str, shape: Shape) -> int:
    """Return the bytes of a tensor, each row of int4 padded to whole bytes."""
    if dtype == "int4":
        return math.prod(shape[:-1]) * -(-shape[-1] // 2)
    return math.prod(shape) * DTYPES[dtype]().itemsize


def constant_bytes(node: Node) -> int:
    """Return the bytes of a node's constants in DRAM, without what a machine's tiles add.

    Weights are packed at their bits. Bias, multiplier, shift and zero of a channel, or of a channel's block, take 8
    bytes.
    """
    others = sum(constant.nbytes for role, constant in node.constants.items() if role not in CHANNEL_ROLES)
    if "gamma" in node.constants:
        return others + CHANNEL_BYTES * len(node.constants["gamma"])
    if "weight" not in node.constants:
        return others
    form = weight_format(node)
    return others + form.channels * (form.row_bytes + CHANNEL_BYTES * form.n_blocks)


def describe_node(node: Node, dtypes: dict[str, str], shapes: dict[str, Shape]) -> dict:
    """Return one line of the inspection."""
    form = weight_format(node) if "weight" in node.constants else None
    return {
        "name": node.name,
        "op": node.op,
        "inputs": " ".join(dtypes[name] for name in node.inputs),
        "weights": f"int{form.bits}" if form else "",
        "scheme": scheme_name(node) if form else "",
        "output": f"{node.dtype} {'x'.join(map(str, shapes[node.name]))}",
        "macs": node_macs(node, shapes),
        "constant_bytes": constant_bytes(node),
        "output_bytes": tensor_bytes(node.dtype, shapes[node.name]),
    }


def mean_bits(forms: list[WeightFormat]) -> float:
    """Return the bits of the average weight, rounded to hundredths; 8 without weights."""
    sizes = [form.channels * form.depth for form in forms]
    bits = sum(size * form.bits for size, form in zip(sizes, forms, strict=True))
    return round(bits / sum(sizes), 2) if sizes else 8


def inspect(graph: Graph, frames: int = 100) -> dict:
    """Return layers (one dict per node), totals and provenance for an utterance of ``frames`` frames.

    PhonolithError ``input-too-short`` when the front end leaves none of them, ``input-too-long``.
    """
    check_frames(graph, frames)
    shapes = infer_shapes(graph, frames)
    dtypes = {item.name: item.dtype for item in (*graph.inputs, *graph.nodes)}
    layers = [describe_node(node, dtypes, shapes) for node in graph.nodes]
    forms = [weight_format(node) for node in graph.nodes if "weight" in node.constants]
    return {
        "model": graph.name,
        "frames": frames,
        "output_frames": shapes[graph.outputs[0]][0],
        "macs": sum(layer["macs"] for layer in layers),
        "weights": sum(form.channels * form.depth for form in forms),
        "parameters": graph.metadata.get("parameters", {}),
        "weight_bits": mean_bits(forms),
        "weight_bytes": sum(form.channels * form.row_bytes for form in forms),
        "constant_bytes": sum(layer["constant_bytes"] for layer in layers),
        "graph_bytes": len(graph_to_json(graph)),
        "vocabulary": graph.metadata.get("vocabulary", []),
        "provenance": graph.metadata.get("provenance", {}),
        "layers": layers,
    }
