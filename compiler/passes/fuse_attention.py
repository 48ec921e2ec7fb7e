"""Fuse ``matmul -> softmax_exp -> matmul`` into ``attention``."""

from phonolith.compiler.ir import Graph, Node


def fuse_attention(graph: Graph) -> Graph:
    """Replace every softmax attention whose intermediate tensors have one reader by one node.

    The fused node stands where the second product stood and carries its name.
    """
    fused: dict[str, Node] = {}
    absorbed: set[str] = set()
    for node in graph.nodes:
        parts = _attention_parts(graph, node)
        if parts is not None:
            scores, exp = parts
            fused[node.name] = _fused(scores, exp, node)
            absorbed |= {scores.name, exp.name}
    return graph.with_nodes(fused.get(n.name, n) for n in graph.nodes if n.name not in absorbed)


def _attention_parts(graph: Graph, context: Node) -> tuple[Node, Node] | None:
    """Return the scores and exponential nodes that feed ``context``, or None if it is no attention."""
    if context.op != "matmul" or not context.attributes.get("normalize"):
        return None
    exp = _only_read_by(graph, context.inputs[0], context)
    if exp is None or exp.op != "softmax_exp" or exp.name == context.inputs[1]:
        return None
    scores = _only_read_by(graph, exp.inputs[0], exp)
    if scores is None or scores.op != "matmul" or not scores.attributes["transpose_b"]:
        return None
    same_heads = scores.attributes.get("heads") == context.attributes.get("heads")
    return (scores, exp) if same_heads and _reads_int8(graph, scores.inputs[0]) else None


def _only_read_by(graph: Graph, name: str, reader: Node) -> Node | None:
    """Return the node that makes ``name`` if ``reader`` alone reads it; None otherwise."""
    makers = [node for node in graph.nodes if node.name == name]
    return makers[0] if makers and graph.is_only_read_by(name, reader) else None


def _reads_int8(graph: Graph, name: str) -> bool:
    return any(v.name == name and v.dtype == "int8" for v in (*graph.inputs, *graph.nodes))


def _fused(scores: Node, exp: Node, context: Node) -> Node:
    return Node(
        context.name,
        "attention",
        (*scores.inputs, context.inputs[1]),
        context.dtype,
        exp.constants,
        {"scores": scores.attributes, "exp": exp.attributes, "context": context.attributes},
    )
