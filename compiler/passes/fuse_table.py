"""Fuse ``table(product(x))`` into the product: its drain looks the results up."""

from dataclasses import replace

from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.operators import BYTES

PRODUCTS = ("linear", "conv2d", "depthwise_conv1d")


def fuse_table(graph: Graph) -> Graph:
    """Give products with constant weights that a ``table`` alone reads that table.

    The fused node stands where the product stood and carries the table's name; the product's name disappears.
    """
    makers = {node.name: node for node in graph.nodes}
    tables = {node.inputs[0]: node for node in graph.nodes
              if node.op == "table" and _takes_table(graph, makers.get(node.inputs[0]), node)}
    absorbed = {table.name for table in tables.values()}
    nodes = (n for n in graph.nodes if n.name not in absorbed)
    return graph.with_nodes(_fused(n, tables[n.name]) if n.name in tables else n for n in nodes)


def _takes_table(graph: Graph, product: Node | None, table: Node) -> bool:
    if product is None or product.op not in PRODUCTS or product.dtype not in BYTES or "table" in product.constants:
        return False
    return graph.is_only_read_by(product.name, table)


def _fused(product: Node, table: Node) -> Node:
    return replace(product, name=table.name, dtype=table.dtype, constants=product.constants | table.constants,
                   attributes=product.attributes | {"table_dtype": product.dtype})
