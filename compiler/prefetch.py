"""Weights loaded ahead of time, where the bus would be idle.

LOADs execute in order, so weights that are loaded too early delay operands that are needed sooner, and weights that
are loaded late make the array wait. The prefetcher therefore counts, over what has been emitted, the cycles in which
the array is busy minus those in which the bus is, and fills what is left with pieces of the next linear layers'
weights.
"""

from phonolith.compiler.assembler import Issue
from phonolith.compiler.costs import drain_cycles
from phonolith.compiler.ir import Node
from phonolith.compiler.lower import PRODUCTS, ROWWISE
from phonolith.compiler.lower.attention import Attention
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.depthwise import is_banded
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.pack import step_count
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig

VIEWS = ("slice", "reshape")
PIECE_BYTES = 4096


def bus_beats(issue: Issue, config: MachineConfig) -> int:
    """Return about how many cycles a LOAD uses the bus."""
    o = {name: value for name, value in issue.operands.items() if isinstance(value, int)}
    segments = o["outer_count"] * o["inner_count"] * o["segment_count"]
    return segments * -(-o["segment_bytes"] // config.bus_bytes)


def array_cycles(issue: Issue, config: MachineConfig) -> int:
    """Return about how many cycles a MATMUL keeps the array busy."""
    o = {name: value for name, value in issue.operands.items() if isinstance(value, int)}
    control = isa.unpack(isa.MATMUL_CONTROL, o["control"])
    steps = step_count(o["k"], isa.WEIGHT_WIDTHS[control["log2_lanes"]])
    sums = -(-o["k"] // (isa.BLOCKS[control["block"]] or o["k"]))
    return config.tiles(o["rows"], o["columns"]) * max(steps, sums * drain_cycles(config))


class Prefetcher:
    """Loads weights of the linear layers among ``nodes``, a list of what is still to come that its owner shortens."""

    def __init__(self, ctx: Lowering, nodes: list[Node]):
        self.ctx = ctx
        self.nodes = nodes
        self.products: dict[str, list[ProductSchedule]] = {}
        self.reserves: dict[str, int] = {}
        self.credit = 0
        self.counted = 0

    def started(self, node: Node) -> list[ProductSchedule] | None:
        """Return the products of a node whose weights are on their way."""
        return self.products.pop(node.name, None)

    def use_bus(self) -> None:
        """Emit LOADs of weights while the bus has cycles left."""
        self.count()
        while self.credit > 0 and self.load_piece():
            self.count()
        self.credit = 0

    def give_up(self) -> None:
        """Give back all memory: what was loaded will be loaded again."""
        for products in self.products.values():
            for product in products:
                product.weights.leave()

    def count(self) -> None:
        """Add what has been emitted since the last call to the credit."""
        config, items = self.ctx.config, self.ctx.emitter.items
        for issue in items[self.counted:]:
            if isinstance(issue, Issue) and issue.mnemonic == "MATMUL":
                self.credit += array_cycles(issue, config)
            elif isinstance(issue, Issue) and issue.mnemonic == "LOAD":
                self.credit -= bus_beats(issue, config)
        self.counted = len(items)

    def load_piece(self) -> bool:
        """Load some weights of the first linear layer that lacks any; tell whether there was one with room."""
        reserve, is_next = self.ctx.reserved, True
        for node in self.nodes:
            if node.op == "attention":
                reserve, is_next = max(reserve, self.reserve(node)), False
            elif node.op == "linear":
                product = self.product(node, reserve, is_next)
                is_next = False
                if product is None:
                    return False
                with self.ctx.lowering(node):
                    if product.prefetch(max(1, PIECE_BYTES // product.tile_bytes)):
                        return True
            elif self.needs_all_memory(node):
                return False
            is_next = is_next and node.op in ROWWISE
        return False

    def needs_all_memory(self, node: Node) -> bool:
        """Tell whether a node's schedule was made for a weight memory that nobody else uses."""
        dense = node.op == "depthwise_conv1d" and not is_banded(node, self.ctx.config)
        return dense or node.op in PRODUCTS or node.op == "matmul"

    def reserve(self, node: Node) -> int:
        """Return the weight words that an attention node wants."""
        if not self.ctx.views.keys() >= set(node.inputs):
            return self.ctx.weight.words
        if node.name not in self.reserves:
            self.reserves[node.name] = Attention(self.ctx, node).wanted_words
        return self.reserves[node.name]

    def product(self, node: Node, reserve: int, is_next: bool) -> ProductSchedule | None:
        """Return the product of a linear layer if its weights fit beside what is in use and ``reserve``.

        Of the next one, some are enough: more memory will not be free before it begins.
        """
        if not self.ctx.views.keys() >= set(node.inputs):
            return None
        if node.name not in self.products:
            with self.ctx.lowering(node):
                self.products[node.name] = PRODUCTS[node.op](self.ctx, node)
        first, *more = self.products[node.name]
        return first if not more and first.reserve_weights(self.ctx.weight.free - reserve, is_next) else None
