"""The order in which nodes are emitted.

Engines execute their instructions in order, so what shall run at the same time must be close together:

- A row-wise operator behind a product (layernorm behind a residual linear) is emitted between the product's steps,
  each block as soon as its rows are stored: it runs on the vector unit while the array computes.
- The weights of the next linear layer are loaded before nodes that do not use the weight memory, so that they do
  not queue behind loads that wait for those nodes' operands.
"""

from collections.abc import Iterator

from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.lower import PRODUCTS, ROWWISE, WHOLE
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.copy import copy_tensor
from phonolith.compiler.lower.product import ProductSchedule
from phonolith.compiler.shapes import Shape
from phonolith.compiler.views import View

VIEWS = ("slice", "reshape")
VECTOR_ONLY = ("add", "rescale", "table")


def emit_nodes(ctx: Lowering, graph: Graph, shapes: dict[str, Shape]) -> None:
    """Emit the instructions of all nodes, and make the views among them."""
    Scheduler(ctx, graph, shapes).run()


class Scheduler:
    """Walks the nodes of one graph; ``ready`` holds products whose weights are already on their way."""

    def __init__(self, ctx: Lowering, graph: Graph, shapes: dict[str, Shape]):
        self.ctx = ctx
        self.shapes = shapes
        self.nodes = list(graph.nodes)
        self.ready: dict[str, list[ProductSchedule]] = {}
        for node in graph.nodes:
            if node.op not in VIEWS or ctx.made.intersection(node.inputs):
                ctx.made.add(node.name)

    def run(self) -> None:
        """Emit everything."""
        while self.nodes:
            node = self.nodes.pop(0)
            self.ctx.node = node
            if node.op in VIEWS:
                self.make_view(node)
            elif node.op in PRODUCTS:
                self.emit_product(node)
            elif node.op in ROWWISE:
                self.finish(node, self.begin(node)[0])
            else:
                self.emit_whole(node)

    def make_view(self, node: Node) -> None:
        """Enter where a slice or reshape lies."""
        x = self.ctx.views[node.inputs[0]]
        if node.op == "slice":
            self.ctx.views[node.name] = x.slice(node.attributes["start"], node.attributes["stop"])
        else:
            self.ctx.views[node.name] = reshaped(self.ctx, x, self.shapes[node.name])

    def emit_whole(self, node: Node) -> None:
        """Emit a node that nothing else is mixed with."""
        if node.op in VECTOR_ONLY:
            self.prefetch()
            self.ctx.node = node
        WHOLE[node.op](self.ctx, node)

    def emit_product(self, node: Node) -> None:
        """Emit a product and, between its steps, the blocks of the node behind it if that goes row by row."""
        products = self.ready.pop(node.name, None) or PRODUCTS[node.op](self.ctx, node)
        if not self.is_followed(node, products):
            for product in products:
                for _ in product.emit():
                    pass
            return
        follower, steps = self.nodes.pop(0), products[0].emit()
        next(steps)
        blocks, needed = self.begin(follower)
        self.ctx.node = node
        for finished in steps:
            self.ctx.node = follower
            while needed is not None and needed <= finished:
                needed = next(blocks, None)
            self.ctx.node = node
        self.finish(follower, blocks)

    def is_followed(self, node: Node, products: list[ProductSchedule]) -> bool:
        """Tell whether the next node can be emitted between the steps of this product."""
        following = self.nodes[0] if self.nodes else None
        return (following is not None and following.op in ROWWISE and following.inputs == (node.name,)
                and len(products) == 1 and products[0].keeps_columns
                and self.ctx.parameter.words - products[0].parameter_words >= self.chunks(following))

    def chunks(self, node: Node) -> int:
        """Return the parameter words of all columns of a node."""
        return -(-self.shapes[node.inputs[0]][-1] // self.ctx.config.columns)

    def begin(self, node: Node) -> tuple[Iterator[int], int | None]:
        """Start a row-wise node, which takes its parameter memory, and load the next weights.

        Returns the blocks still to emit and how many rows the first one needs.
        """
        self.ctx.node = node
        blocks = ROWWISE[node.op](self.ctx, node)
        needed = next(blocks)
        self.prefetch()
        return blocks, needed

    def finish(self, node: Node, blocks: Iterator[int]) -> None:
        """Emit the rest of a row-wise node."""
        self.ctx.node = node
        for _ in blocks:
            pass

    def prefetch(self) -> None:
        """Load the constants of the next node if it is a linear layer whose operands have addresses."""
        following = self.nodes[0] if self.nodes else None
        if following is None or following.op != "linear" or not self.ctx.views.keys() >= set(following.inputs):
            return
        self.ctx.node = following
        products = PRODUCTS[following.op](self.ctx, following)
        self.ready[following.name] = products
        if len(products) == 1:
            products[0].prefetch()


def reshaped(ctx: Lowering, x: View, shape: Shape) -> View:
    """Return a view of ``x`` with other dimensions, of a contiguous copy if need be."""
    view = x.reshape(shape)
    if view is not None:
        return view
    copy = ctx.temporary(x)
    copy_tensor(ctx, x, copy)
    view = copy.reshape(shape)
    assert view is not None
    return view
