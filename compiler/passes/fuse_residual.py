"""Fuse ``add(linear(x), r)`` into ``linear(x, residual=r)``."""

from dataclasses import replace

from phonolith.compiler.ir import Graph, Node


def fuse_residual(graph: Graph) -> Graph:
    """Give int16 linears whose one consumer is an ``add`` the other operand as residual.

    The fused node stands where the ``add`` stood and carries its name; the linear's name disappears.
    """
    fused: dict[str, Node] = {}
    absorbed: set[str] = set()
    for node in graph.nodes:
        linear = _fusible_linear(graph, node) if node.op == "add" else None
        if linear is not None:
            (other,) = (name for name in node.inputs if name != linear.name)
            fused[node.name] = replace(linear, name=node.name, inputs=(linear.inputs[0], other))
            absorbed.add(linear.name)
    return graph.with_nodes(fused.get(n.name, n) for n in graph.nodes if n.name not in absorbed)


def _fusible_linear(graph: Graph, add: Node) -> Node | None:
    """Return the last linear among the operands of ``add`` that nothing else reads; None if none is."""
    nodes = [node for node in graph.nodes if node.name in add.inputs and _is_plain_linear(node)]
    free = [n for n in nodes if graph.is_only_read_by(n.name, add)]
    return free[-1] if free and len(set(add.inputs)) == 2 else None


def _is_plain_linear(node: Node) -> bool:
    return node.op == "linear" and len(node.inputs) == 1 and node.dtype == "int16"
