"""attention: scores, exponentials and context of one row block after the other, nothing spilled to DRAM.

While the vector unit turns the scores of block i into exponentials, the array computes the context of block i-1 and
then the scores of block i+1. Blocks run across heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from phonolith.compiler.allocate import Region, does_not_fit
from phonolith.compiler.counts import at_least_one, part
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.matmul import by_rows, head_columns, transposed
from phonolith.compiler.lower.positions import PositionScores
from phonolith.compiler.pack import step_count, tile_words
from phonolith.compiler.shapes import visible_chunks
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, RowFunction, Saturate, Source, Target

MAXIMUM, SUM, FACTOR = range(3)
# Into how many LOADs, about, what the next window needs is divided.
PREPARATIONS = 5
# Blocks by which the scores of positions are ahead of the others.
AHEAD = 2


@dataclass(frozen=True)
class Window:
    """Rows of one head and the keys that they see: all of them, or those of some chunks."""

    head: int
    start: int
    rows: int
    first_key: int
    keys: int


@dataclass(frozen=True)
class Block:
    """Some rows of a window; ``last`` of the window."""

    window: Window
    start: int
    rows: int
    last: bool

    @property
    def head(self) -> int:
        """The head."""
        return self.window.head

    @property
    def behind(self) -> int:
        """Rows from the window's first key to the block's first row."""
        return self.start - self.window.first_key


class Attention:
    """Emits one attention node."""

    def __init__(self, ctx: Lowering, node: Node):
        self.ctx = ctx
        self.node = node
        self.q, self.k, self.v, self.y = (ctx.views[name] for name in (*node.inputs, node.name))
        self.heads = node.attributes["scores"].get("heads", 1)
        self.windows = list(self.make_windows())
        self.steps = max(int(window.keys) for window in self.windows)
        self.depth = self.q.shape[1] // self.heads
        self.width = self.v.shape[1] // self.heads
        columns = ctx.config.columns
        self.score_tiles = -(-self.steps // columns)
        self.tile_columns, _ = transposed(ctx, self.v)
        self.value_tiles = -(-self.width // self.tile_columns)
        self.depth_words = tile_words(self.depth, ctx.config)
        self.step_words = tile_words(step_count(self.steps, self.v.bits), ctx.config)
        self.key_tile_words = tile_words(step_count(self.depth, self.k.bits), ctx.config)
        self.exp_words = tile_words(self.score_tiles * columns, ctx.config)
        self.block_rows = self.choose_rows()
        self.key_words = self.score_tiles * self.key_tile_words
        self.operand_words = self.key_words + self.value_tiles * self.step_words
        # What two heads keep on chip: their keys, values and positions.
        self.wanted_words = 2 * (self.operand_words + self.position_words())
        self.operands: dict[Window, Region] = {}
        self.with_values: set[Window] = set()
        self.rows: dict[Block, Region] = {}
        self.exponentials: dict[Block, Region] = {}
        self.positions: PositionScores | None = None

    def position_words(self) -> int:
        """Return about how many weight words the positions of a head take."""
        if "positions" not in self.node.constants:
            return 0
        offsets = self.steps + min(self.q.shape[0], self.steps)
        return (-(-offsets // self.ctx.config.columns) + 1) * self.depth_words

    def make_windows(self) -> Iterator[Window]:
        """Yield the windows, head by head."""
        attributes, frames = self.node.attributes, self.q.shape[0]
        chunks = list(visible_chunks(int(frames), *(attributes.get(name, 0) for name in ("chunk", "left", "before"))))
        for head in range(self.heads):
            for rows, keys in chunks:
                yield Window(head, rows.start, part(frames, rows.start, rows.stop - rows.start), keys.start,
                             part(self.k.shape[0], keys.start, keys.stop - keys.start) if attributes.get("chunk")
                             else self.k.shape[0])

    def choose_rows(self) -> int:
        """Return the rows per block: their scores stay in the scratchpad."""
        rows = min(self.ctx.config.rows, self.ctx.operands.words // self.score_tiles)
        if rows == 0:
            raise does_not_fit(f"{self.ctx.user}: one row of scores", self.score_tiles, self.ctx.operands)
        return rows

    def blocks(self) -> Iterator[Block]:
        """Yield the row blocks, window by window."""
        for window in self.windows:
            for start in range(0, int(window.rows), self.block_rows):
                yield Block(window, window.start + start, part(window.rows, start, self.block_rows),
                            start + self.block_rows >= window.rows)

    def emit(self) -> None:
        """Emit the blocks: the array computes context i-1 and scores i+1 while VECTOR computes exponentials i.

        Scores of positions come AHEAD blocks earlier, because they go through DRAM. Where memory does not allow the
        scores of a next window, what is begun is finished first.
        """
        self.load_tables()
        blocks = list(self.blocks())
        self.prepare_positions(blocks)
        self.begin(blocks[0])
        before: Block | None = None
        for block, following, later in self.turns(blocks):
            if before:
                self.multiply_context(before)
                self.compute_factors(before)
            self.exponentiate(block)
            if before:
                self.drain_context(before)
            before = block
            if following is None or not self.has_room(following):
                self.finish(block)
                before = None
            if following:
                self.begin(following)
                self.begin_positions(later)
                self.prepare(following.window)
            self.ctx.reserved = self.missing_words(following)
            self.ctx.bus_is_free()
        self.ctx.reserved = 0
        self.end_positions()

    def turns(self, blocks: list[Block]) -> Iterator[tuple[Block, Block | None, Block | None]]:
        """Yield each block, the one whose scores come next, and the one whose scores of positions do."""
        for index, block in enumerate(blocks):
            following, later = (blocks[number] if number < len(blocks) else None
                                for number in (index + 1, index + 1 + AHEAD))
            yield block, following, later

    def missing_words(self, block: Block | None) -> int:
        """Return the weight words that the window behind a block's will take."""
        behind = self.windows[self.windows.index(block.window) + 1:][:1] if block else []
        missing = [self.operand_words for window in behind if window not in self.operands]
        if behind and self.positions and not self.positions.upcoming:
            missing.append(self.positions.span_words)
        return sum(missing)

    def prepare_positions(self, blocks: list[Block]) -> None:
        """Put the table of positions into DRAM, if there is one, and compute the scores of the first blocks."""
        if "positions" in self.node.constants:
            places = [(block.behind, block.window.keys) for block in blocks if block.head == 0]
            self.positions = PositionScores(self.ctx, self.node, self.heads, self.block_rows, places)
        for block in blocks[:AHEAD + 1]:
            self.begin_positions(block)

    def begin_positions(self, block: Block | None) -> None:
        """Compute the scores of a block's positions, if there are any."""
        if self.positions and block:
            self.load_rows(block)
            self.positions.enter(block.head, self.operand_words)
            self.positions.multiply(block.head, block.behind, block.window.keys, block.rows, self.rows[block].low)

    def end_positions(self) -> None:
        """Give up what the scores of positions keep on chip."""
        if self.positions:
            self.positions.leave()

    def begin(self, block: Block) -> None:
        """Compute the scores of a block; load its values behind its keys if they are not there."""
        self.multiply_scores(block)
        self.load_values(block.window)
        self.drain_scores(block)

    def finish(self, block: Block) -> None:
        """Compute the context of a block."""
        self.multiply_context(block)
        self.compute_factors(block)
        self.drain_context(block)

    def prepare(self, window: Window) -> None:
        """Load a part of what the window behind this one needs ahead of time, if there is room for it."""
        blocks = -(-window.rows // self.block_rows)
        for following in self.windows[self.windows.index(window) + 1:][:1]:
            for _ in range(-(-PREPARATIONS // blocks)):
                self.prepare_part(following)

    def prepare_part(self, window: Window) -> None:
        """Load the keys of a window, then its values, then the positions of its head, if that is another one."""
        if window not in self.operands:
            if self.ctx.weight.free >= self.operand_words:
                self.load_keys(window)
        elif window not in self.with_values:
            self.load_values(window)
        elif self.positions and self.positions.held and self.positions.held.head < window.head:
            self.positions.prepare(window.head, 0)

    def load_tables(self) -> None:
        """Load the table that all blocks use."""
        self.ctx.load_table(self.node.constants["table"])

    def has_room(self, block: Block) -> bool:
        """Tell whether a block's keys and values fit beside those in use."""
        return block.window in self.operands or self.ctx.weight.free >= self.operand_words

    def multiply_scores(self, block: Block) -> None:
        """Load the rows, and keys if they are not there; multiply."""
        self.load_keys(block.window)
        self.load_rows(block)
        rows = self.rows.pop(block)
        self.ctx.emitter.matmul(
            a_base=rows.low, w_base=self.operands[block.window].low, w_tile_words=self.key_tile_words, rows=block.rows,
            columns=block.window.keys, k=self.depth, bits=self.k.bits)
        self.ctx.activation.release(rows)

    def load_rows(self, block: Block) -> None:
        """Load a block's queries unless they are there."""
        if block not in self.rows:
            region = self.rows[block] = self.ctx.hold(self.ctx.activation, self.depth_words)
            rows = head_columns(self.q, block.head, self.heads)
            self.ctx.emitter.load(
                target=Target.ACTIVATION, address=rows.address + block.start * rows.strides[0], base=region.low,
                row_words=self.depth_words, inner_count=block.rows, inner_stride=rows.strides[0],
                segment_bytes=self.depth)

    def load_keys(self, window: Window) -> None:
        """Load a window's keys, one per column, unless they are there; leave room for its values behind them."""
        if window not in self.operands:
            region = self.operands[window] = self.ctx.hold(self.ctx.weight, self.operand_words)
            keys = self.seen(self.k, window)
            by_rows(self.ctx, keys)(range(-(-window.keys // self.ctx.config.columns)), region.low)

    def load_values(self, window: Window) -> None:
        """Load a window's values, turned so that steps are inner, unless they are there."""
        if window not in self.with_values:
            self.with_values.add(window)
            _, load_columns = transposed(self.ctx, self.seen(self.v, window), self.step_words)
            load_columns(range(self.value_tiles), self.operands[window].low + self.key_words)

    def seen(self, view: View, window: Window) -> View:
        """Return what a window sees of keys or values."""
        return head_columns(view, window.head, self.heads).rows(window.first_key, window.keys)

    def drain_scores(self, block: Block) -> None:
        """Requantize the scores to int16 and find each row's maximum."""
        ctx, a, keys = self.ctx, self.node.attributes["scores"], block.window.keys
        self.scores = ctx.hold(ctx.operands, block.rows * self.score_tiles)
        added = self.positions.load(block.behind, keys, block.rows) if self.positions else None
        ctx.emitter.vector(
            rows=block.rows, columns=keys, source=Source.DRAIN, multiplier=Multiplier.IMMEDIATE,
            factor=(a["multiplier"], a["shift"]), residual=added is not None, residual_base=added.low if added else 0,
            residual_pitch=ctx.scratch_words(keys, 2), saturate=Saturate.INT16,
            destination=Destination.SCRATCHPAD, destination_base=self.scores.low,
            destination_pitch=self.score_tiles, reduce=Reduce.MAX, reduce_register=MAXIMUM)
        if added:
            ctx.results.release(added)

    def exponentiate(self, block: Block) -> None:
        """Write the exponentials to the activation memory; leave their sums."""
        ctx, exp = self.ctx, self.node.attributes["exp"]
        exponentials = self.exponentials[block] = ctx.hold(ctx.activation, self.exp_words)
        ctx.emitter.vector(
            rows=block.rows, columns=block.window.keys, source=Source.SCRATCHPAD, source_base=self.scores.low,
            source_pitch=self.score_tiles, pre=Pre.MINUS_ROW, row_register=MAXIMUM,
            multiplier=Multiplier.IMMEDIATE, factor=(-exp["multiplier"], exp["shift"]),
            saturate=Saturate.UINT8, table=True, destination=Destination.ACTIVATION,
            destination_base=exponentials.low, destination_pitch=self.exp_words,
            reduce=Reduce.SUM, reduce_register=SUM)
        ctx.operands.release(self.scores)

    def multiply_context(self, block: Block) -> None:
        """Multiply the exponentials by the values."""
        operands = self.operands[block.window]
        self.ctx.emitter.matmul(
            a_base=self.exponentials[block].low, a_unsigned=True, w_base=operands.low + self.key_words,
            w_tile_words=self.step_words, rows=block.rows,
            columns=self.value_tiles * self.ctx.config.columns, k=at_least_one(block.window.keys), bits=self.v.bits)
        self.release_operands(block)

    def release_operands(self, block: Block) -> None:
        """Give back the exponentials, and keys and values with a window's last block."""
        self.ctx.activation.release(self.exponentials.pop(block))
        if block.last:
            self.ctx.weight.release(self.operands[block.window])

    def compute_factors(self, block: Block) -> None:
        """Compute the reciprocals of the row sums."""
        context = self.node.attributes["context"]
        self.ctx.emitter.rowop(
            function=RowFunction.RECIPROCAL, source_register=SUM, destination_register=FACTOR, rows=block.rows,
            factor=(context["numerator"], context["shift"]))

    def drain_context(self, block: Block) -> None:
        """Multiply by the factors and store, tile by tile where a strip is narrower than the array."""
        width = self.width if self.tile_columns == self.ctx.config.columns else self.tile_columns
        y = head_columns(self.y, block.head, self.heads)
        for start in range(0, self.width, width):
            columns = min(width, self.width - start)
            self.drain_columns(block, y.slice(start, start + columns))

    def drain_columns(self, block: Block, y: View) -> None:
        """Requantize and store some columns."""
        ctx = self.ctx
        pitch = ctx.scratch_words(y.shape[-1], y.itemsize)
        with ctx.take(ctx.results, block.rows * pitch) as result:
            ctx.emitter.vector(
                rows=block.rows, columns=y.shape[-1], source=Source.DRAIN, multiplier=Multiplier.ROW,
                factor_register=FACTOR, saturate=SATURATE[y.dtype], destination=Destination.SCRATCHPAD,
                destination_byte=y.itemsize == 1, destination_base=result, destination_pitch=pitch)
            ctx.emitter.store(
                address=y.address + block.start * y.strides[0], base=result, pitch=pitch,
                inner_count=block.rows, inner_stride=y.strides[0], row_bytes=y.shape[-1] * y.itemsize)
