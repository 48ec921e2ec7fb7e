"""The order in which nodes are emitted.

Engines execute their instructions in order, so what shall run at the same time must be close together:

- Row-wise operators behind a product (layernorm behind a residual linear, perhaps another behind that, or the product
  with a gate) take the results from the scratchpad, block by block, while the array computes the next block.
- Weights of linear layers to come are loaded in small pieces wherever the bus would be idle.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from phonolith.compiler.ir import DTYPES, Graph, Node
from phonolith.compiler.lower import PRODUCTS, ROWWISE, WHOLE
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.copy import copy_tensor
from phonolith.compiler.lower.gate import Gate
from phonolith.compiler.lower.product_schedule import SCRATCH_SHARE, ProductSchedule
from phonolith.compiler.lower.rowwise import Rowwise
from phonolith.compiler.prefetch import VIEWS, Prefetcher
from phonolith.compiler.shapes import Shape
from phonolith.compiler.views import Block, View, common_rows


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
                self.emit_rowwise(node)
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
        followers = self.followers(node, products)
        if followers:
            del self.nodes[:len(followers)]
            tiles = -(-self.shapes[node.name][1] // self.ctx.config.columns)
            self.ctx.parameter.prepare(tiles * len(followers), products[0].parameter_words)
            emit_together(self.ctx, products[0], followers)
            return
        for product in products:
            product.emit()

    def emit_rowwise(self, node: Node) -> None:
        """Emit an operator on whole rows, piece by piece in front of the product that needs them, if there is one."""
        rowwise = ROWWISE[node.op](self.ctx, node)
        following = self.nodes[0] if self.nodes else None
        if following is None or following.op != "linear" or following.inputs[0] != node.name:
            rowwise.emit()
            return
        products = self.prefetcher.started(following) or self.products(following)
        if len(products) > 1 or not self.can_lead(node, rowwise, products[0]):
            rowwise.emit()
            self.prefetcher.products[following.name] = products
            return
        self.nodes.pop(0)
        with self.ctx.lowering(following):
            product = ProductSchedule(self.ctx, replace(products[0].product, lead=rowwise.cycles))
            if product.sums > 1:
                self.ctx.parameter.rewind()
            product.emit(leader=RowsInFront(self.ctx, node, rowwise, product.row_blocks))
        rowwise.release()

    def can_lead(self, node: Node, rowwise: Rowwise, product: ProductSchedule) -> bool:
        """Tell whether an operator may share VECTOR and scratchpad with the product behind it, and is worth it."""
        room = rowwise.result_words <= self.ctx.results.words // SCRATCH_SHARE
        free = not product.weights.loaded and product.product.residual is None
        own = -(-int(self.shapes[node.name][-1]) // self.ctx.config.columns)
        # Parameters of blocks come in large pieces: they begin in an empty memory.
        parameters = self.ctx.parameter
        beside = product.held_parameters + own <= parameters.words and (product.sums == 1 or not parameters.live)
        return len(self.shapes[node.name]) == 2 and room and free and beside

    def products(self, node: Node) -> list[ProductSchedule]:
        """Return the products of a node that is not the current one."""
        with self.ctx.lowering(node):
            return PRODUCTS[node.op](self.ctx, node)

    def followers(self, node: Node, products: list[ProductSchedule]) -> list[Node]:
        """Return the nodes behind a product that can go row by row over its results, and over each other's."""
        found: list[Node] = []
        if len(products) > 1 or len(self.shapes[node.name]) != 2 or not products[0].whole_rows:
            return found
        columns, parameters, words = self.shapes[node.name][1], products[0].parameter_words, 0
        for following in self.nodes:
            if not self.can_follow(following, found[-1] if found else node, bool(found)):
                break
            parameters += -(-columns // self.ctx.config.columns)
            itemsize = np.dtype(DTYPES[following.dtype]).itemsize
            words += self.ctx.config.rows * self.ctx.scratch_words(columns, itemsize)
            if self.ctx.parameter.free < parameters or words > self.ctx.results.words // SCRATCH_SHARE:
                break
            found.append(following)
        return found

    def can_follow(self, node: Node, source: Node, behind_another: bool) -> bool:
        """Tell whether an operator can take the rows of ``source`` from the scratchpad, one tile after the other."""
        if behind_another and source.op != "layernorm":
            return False
        if node.op == "multiply":
            value, gate = node.inputs
            return gate == source.name != value and value in self.ctx.views
        return node.op in ROWWISE and node.inputs == (source.name,)


class RowsInFront:
    """Emits an operator on whole rows in the order in which a product loads its row blocks, with some more to spare."""

    def __init__(self, ctx: Lowering, node: Node, rowwise: Rowwise, blocks: list[Block]):
        ((self.x, self.y),) = common_rows(rowwise.x, rowwise.y)
        self.rowwise = rowwise
        self.most = min(rowwise.most_rows(), ctx.results.words // SCRATCH_SHARE // rowwise.result_words)
        self.pass_cycles = self.most * -(-rowwise.columns // ctx.config.columns)
        self.begun = False
        self.waiting = [(block, ctx.emitting(node, self.rows(block))) for block in blocks]

    def rows(self, block: Block) -> Iterator[None]:
        """Emit the tiles of a block."""
        for start in range(0, block.inner_count, self.most):
            part = Block(block.outer, 1, block.inner + start, min(self.most, block.inner_count - start))
            yield from self.rowwise.block(self.x.block(part), self.y.block(part))

    def advance(self, cycles: int) -> None:
        """Emit what VECTOR can do in some cycles, but at least an instruction."""
        for _ in range(max(1, cycles // self.pass_cycles)):
            if self.waiting:
                self.begun = next(self.waiting[0][1], self) is not self
                self.waiting = self.waiting[not self.begun:]

    def finish(self, block: Block) -> None:
        """Emit the rest up to the end of a block."""
        while any(block == each for each, _ in self.waiting):
            self.advance(0)

    def pause(self) -> None:
        """Emit the rest of the block that is begun."""
        while self.begun:
            self.advance(0)


def emit_together(ctx: Lowering, product: ProductSchedule, nodes: list[Node]) -> None:
    """Emit a product and, between the column tiles of its next block, the row tiles of ``nodes`` on a block."""
    followers = [make_follower(ctx, node) for node in nodes]
    for first, second in pairwise(followers):
        assert isinstance(first, Rowwise)
        first.behind = second

    def follow(block: Block, base: int, pitch: int) -> Iterator[None]:
        for start in range(0, block.rows, ctx.config.rows):
            part = Block(0, 1, block.inner + start, min(ctx.config.rows, block.rows - start))
            yield from followers[0].follow(part, base + start * pitch, pitch)

    product.emit(follow)
    for follower in followers:
        follower.release()


def make_follower(ctx: Lowering, node: Node) -> Rowwise | Gate:
    """Return the emitter of an operator that goes row by row over another's results."""
    with ctx.lowering(node):
        return Gate(ctx, node) if node.op == "multiply" else ROWWISE[node.op](ctx, node)


def packed(copy: View, shape: Shape) -> View:
    """Return a contiguous tensor with other dimensions behind the leading one."""
    view = copy.reshape(shape)
    assert view is not None
    return view
