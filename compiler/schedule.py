"""The order in which nodes are emitted.

Engines execute their instructions in order, so what shall run at the same time must be close together:

- A row-wise operator behind a product (layernorm behind a residual linear) takes the product's results from the
  scratchpad, block by block, while the array computes the next block.
- Weights of linear layers to come are loaded in small pieces wherever the bus would be idle.
"""

from collections.abc import Iterator

from phonolith.compiler.ir import Graph, Node
from phonolith.compiler.lower import PRODUCTS, ROWWISE, WHOLE
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.copy import copy_tensor
from phonolith.compiler.lower.product import ProductSchedule
from phonolith.compiler.prefetch import VIEWS, Prefetcher
from phonolith.compiler.shapes import Shape
from phonolith.compiler.views import Block, View, common_rows

# A row tile of a node that shares the scratchpad with a product takes at most this fraction of a bank.
SCRATCH_SHARE = 4


def emit_nodes(ctx: Lowering, graph: Graph, shapes: dict[str, Shape]) -> None:
    """Emit the instructions of all nodes, and make the views among them."""
    Scheduler(ctx, graph, shapes).run()


class Scheduler:
    """Walks the nodes of one graph; ``nodes`` are those still to come."""

    def __init__(self, ctx: Lowering, graph: Graph, shapes: dict[str, Shape]):
        self.ctx = ctx
        self.shapes = shapes
        self.nodes = list(graph.nodes)
        for node in graph.nodes:
            if node.op not in VIEWS or ctx.made.intersection(node.inputs):
                ctx.made.add(node.name)
            if node.op in VIEWS and node.inputs[0] in ctx.views:
                self.make_view(node)
        self.prefetcher = Prefetcher(ctx, self.nodes)
        ctx.bus_is_free, ctx.make_room = self.prefetcher.use_bus, self.prefetcher.give_up

    def run(self) -> None:
        """Emit everything."""
        while self.nodes:
            node = self.nodes.pop(0)
            self.ctx.node = node
            if node.op in VIEWS:
                self.copy_view(node)
            elif node.op in PRODUCTS:
                self.emit_product(node)
            elif node.op in ROWWISE:
                ROWWISE[node.op](self.ctx, node).emit()
            else:
                WHOLE[node.op](self.ctx, node)

    def make_view(self, node: Node) -> None:
        """Enter where a slice or reshape lies, if it is no more than a view."""
        x = self.ctx.views[node.inputs[0]]
        if node.op == "slice":
            view = x.slice(node.attributes["start"], node.attributes["stop"])
        else:
            view = x.reshape(self.shapes[node.name])
        if view is not None:
            self.ctx.views[node.name] = view

    def copy_view(self, node: Node) -> None:
        """Make a view that was not possible at first, of a contiguous copy if need be."""
        if node.name not in self.ctx.views:
            self.make_view(node)
        if node.name not in self.ctx.views:
            x = self.ctx.views[node.inputs[0]]
            copy = self.ctx.temporary(x)
            copy_tensor(self.ctx, x, copy)
            self.ctx.views[node.name] = packed(copy, self.shapes[node.name])

    def emit_product(self, node: Node) -> None:
        """Emit a product, together with the node behind it if that goes row by row."""
        products = self.prefetcher.started(node) or PRODUCTS[node.op](self.ctx, node)
        if self.is_followed(node, products):
            emit_together(self.ctx, products[0], self.nodes.pop(0))
            return
        for product in products:
            product.emit()

    def is_followed(self, node: Node, products: list[ProductSchedule]) -> bool:
        """Tell whether the next node can go row by row over what this product leaves in the scratchpad."""
        following = self.nodes[0] if self.nodes else None
        if following is None or following.op not in ROWWISE or following.inputs != (node.name,):
            return False
        rows_in_one_loop = len(products) == 1 and len(self.shapes[node.name]) == 2
        if not rows_in_one_loop or not products[0].whole_rows:
            return False
        chunks = -(-self.shapes[node.name][1] // self.ctx.config.columns)
        room = self.ctx.parameter.free >= products[0].parameter_words + chunks
        return room and self.ctx.config.rows * chunks <= self.ctx.results.words // SCRATCH_SHARE


def emit_together(ctx: Lowering, product: ProductSchedule, node: Node) -> None:
    """Emit a product and, between the column tiles of its next block, the row tiles of ``node`` on a block."""
    with ctx.lowering(node):
        follower = ROWWISE[node.op](ctx, node)
    ((rows,),) = common_rows(follower.y)

    def follow(block: Block, base: int, pitch: int) -> Iterator[None]:
        for start in range(0, block.rows, ctx.config.rows):
            part = Block(0, 1, block.inner + start, min(ctx.config.rows, block.rows - start))
            tile = follower.tile(rows.block(part), part.rows, base + start * pitch, pitch)
            yield from ctx.emitting(node, tile)

    product.emit(follow)
    follower.release()


def packed(copy: View, shape: Shape) -> View:
    """Return a contiguous tensor with other dimensions behind the leading one."""
    view = copy.reshape(shape)
    assert view is not None
    return view
