"""The one schedule of matrix products: when which piece is loaded, multiplied, drained and stored."""

from collections.abc import Callable, Iterator
from typing import Protocol

from phonolith.compiler.allocate import Region
from phonolith.compiler.costs import tile_cycles
from phonolith.compiler.counts import Count, part
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.product import Product
from phonolith.compiler.lower.shelf import Shelf, Weights
from phonolith.compiler.pack import tile_words
from phonolith.compiler.plan import plan_product
from phonolith.compiler.tile import Drop, Load, Piece, ProductSize, Step
from phonolith.compiler.views import Block, Pairs, Rows
from phonolith.compiler.weight_formats import BLOCKS
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Destination, Pre, Source, Target

Follow = Callable[[Block, int, int], Iterator[None]]
PARAMETER_BYTES = 8
# An operator that shares the scratchpad with a product takes at most this fraction of a bank for a row tile.
SCRATCH_SHARE = 4
# A step's results are taken by at most this many VECTORs.
MOST_DRAINS = 8
# Fewer column tiles than this are not worth being loaded ahead of time alone.
LEAST_AHEAD = 2


class Leader(Protocol):
    """An operator that makes the rows of a product, piece by piece."""

    def advance(self, cycles: int) -> None:
        """Emit what VECTOR can do in some cycles, but at least an instruction."""
        ...

    def finish(self, block: Block) -> None:
        """Emit the rest of a block."""
        ...

    def pause(self) -> None:
        """Emit the rest of what holds scratchpad memory."""
        ...


class ProductSchedule:
    """Emits one product."""

    def __init__(self, ctx: Lowering, product: Product):
        self.ctx = ctx
        self.product = product
        self.words, self.column_words = (tile_words(size, ctx.config) for size in (product.k, sum(product.sums)))
        self.sums = len(product.sums)
        self.check_room()
        self.size = ProductSize(
            outer=int(product.a.outer_count), inner=int(product.a.inner_count), columns=int(product.columns),
            k=int(product.k),
            tile_columns=product.tile_columns, row_beats=self.row_beats(),
            segments=product.a.segment_count, byte_results=product.itemsize == 1,
            has_parameters=product.parameters is not None, has_residual=product.residual is not None,
            most_rows=int(product.most_rows or product.a.count), rows_ready=product.rows_ready,
            follows=product.parameters is not None, sliceable=self.is_sliceable(),
            lead=product.lead, bits=product.bits, block=product.block)
        self.plan = plan_product(self.size, ctx.config)
        self.rows = Shelf(ctx, ctx.activation, self.plan.rows_together)
        tiles = max(piece.stop for piece in self.plan.column_pieces())
        self.weights = Weights(ctx, product.load_columns, tiles, self.column_words, self.plan.columns_together)
        self.parameters = Shelf(ctx, ctx.parameter, self.plan.columns_together)
        self.offsets = self.row_offsets()
        self.followers: Iterator[None] = iter(())
        self.result: Region | None = None
        self.columns = self.plan.column_pieces()

    def emit(self, follow: Follow | None = None, leader: Leader | None = None) -> None:
        """Emit the plan.

        ``follow(block, base, pitch)`` may emit what reads a block's results in the scratchpad, in steps between which
        the column tiles of the next block are drained. ``leader`` makes rows shortly before they are loaded.
        """
        self.ctx.planned.append((self.ctx.node.name if self.ctx.node else "", self.size))
        loads = sum(isinstance(action, Load) and isinstance(action.piece, range) for action in self.plan.actions)
        late: range | None = None
        for action in self.plan.actions:
            if isinstance(action, Step):
                if late:
                    self.weights.load(late)
                    late = None
                self.emit_step(action, follow, leader)
                if not loads:  # whose weights come next is for the prefetcher to say
                    self.ctx.bus_is_free()
            elif isinstance(action, Drop):
                self.drop(action.piece)
            elif isinstance(action.piece, range):
                loads -= 1
                late = self.load_columns(action.piece)
            else:
                if leader:
                    leader.finish(action.piece)
                self.load_rows(action.piece)
        self.follow_up()
        for shelf in (self.rows, self.weights, self.parameters):
            shelf.leave()

    def row_offsets(self) -> dict[Block, int]:
        """Return where each row block begins if all are on chip together."""
        offsets, total = {}, 0
        for action in self.plan.actions:
            if isinstance(action, Load) and isinstance(action.piece, Block) and action.piece not in offsets:
                offsets[action.piece] = total
                total += self.row_tiles(action.piece) * self.words
        return offsets

    @property
    def row_blocks(self) -> list[Block]:
        """The row blocks in the order of their first load."""
        return list(self.offsets)

    @property
    def whole_rows(self) -> bool:
        """Whether every step computes all columns."""
        return len(self.columns) == 1

    @property
    def keeps_columns(self) -> bool:
        """Whether all columns stay on chip."""
        return self.plan.columns_together

    @property
    def column_tiles(self) -> int:
        """Column tiles in all."""
        return max(piece.stop for piece in self.columns)

    @property
    def parameter_words(self) -> int:
        """Parameter words in use at a time, at most."""
        return self.column_tiles * self.sums if self.product.parameters is not None else 0

    @property
    def held_parameters(self) -> int:
        """Parameter words on chip at a time, at most: those of the column tiles that are."""
        tiles = min(self.column_tiles, self.ctx.weight.words // self.column_words)
        return tiles * self.sums if self.product.parameters is not None else 0

    def prefetch(self, tiles: int) -> bool:
        """Load some of the weights ahead of time, of those that have a place; tell whether any were left to load."""
        ahead = range(self.weights.first)
        missing = [tile for piece in self.columns for tile in piece
                   if tile in ahead and tile not in self.weights.loaded]
        if missing:
            self.weights.keep(range(missing[0], min(missing[0] + tiles, missing[-1] + 1)))
        return bool(missing)

    def reserve_weights(self, words: int, partly: bool) -> bool:
        """Choose how many column tiles may be loaded ahead of time into ``words``; tell whether that is any use.

        ``partly``: some of them are. A step then needs two MATMULs per row tile, all in front of its VECTOR.
        """
        if not self.keeps_columns or self.weights.loaded:
            return self.keeps_columns
        count = min(words // self.column_words, self.column_tiles)
        steps = 2 * max(self.row_tiles(block) for block in self.row_blocks)
        enough = partly and count >= LEAST_AHEAD and steps < self.ctx.config.undrained_matmuls
        if count < self.column_tiles and not enough:
            return False
        self.weights.first = count
        return True

    @property
    def tile_bytes(self) -> int:
        """Bytes of a column tile's weights."""
        return self.column_words * self.ctx.config.columns * self.ctx.config.word_bytes

    def check_room(self) -> None:
        """Refuse an inner dimension that does not fit the operand memories."""
        for ring, words in ((self.ctx.activation, self.words), (self.ctx.weight, self.column_words)):
            if words > ring.words:
                raise PhonolithError(
                    "does-not-fit",
                    f"{self.ctx.user}: an inner dimension of {self.product.k} needs {words} words of each "
                    f"{ring.name} bank; {ring.words} are available.",
                    f"Configure a larger {ring.name} memory, or split the operator.")
        if self.product.parameters is not None and self.sums > self.ctx.parameter.words:
            raise PhonolithError(
                "does-not-fit",
                f"{self.ctx.user}: {self.sums} blocks of {self.product.block} along an inner dimension of "
                f"{self.product.k} need as many parameter words; {self.ctx.parameter.words} are available.",
                f"Quantize in blocks of {self.larger_block()}, or configure a larger parameter memory.")

    def larger_block(self) -> str:
        """Return the smallest block whose parameters fit, in words."""
        fitting = [str(block) for block in BLOCKS if -(-int(self.product.k) // block) <= self.ctx.parameter.words]
        return fitting[0] if fitting else "a whole channel"

    def load_columns(self, tiles: range) -> range | None:
        """Load column tiles and their parameters unless they are there; a single tile needs its parameters last.

        Returns those whose weights are there in part: the rest can come behind the rows.
        """
        if self.weights.loaded.intersection(tiles):
            self.load_parameters(tiles)
            return tiles
        if len(tiles) == 1:
            self.weights.load(tiles)
            self.load_parameters(tiles)
        else:
            self.load_parameters(tiles)
            self.weights.load(tiles)

    def load_parameters(self, tiles: range) -> None:
        """Load the parameters of column tiles unless they are there."""
        p = self.product
        words = len(tiles) * self.sums
        if p.parameters is not None and self.parameters.enter(tiles, words, self.column_tiles * self.sums):
            columns, base = p.column_range(tiles), self.parameters.base(tiles, tiles.start * self.sums)
            first, size = columns.start * PARAMETER_BYTES, len(columns) * PARAMETER_BYTES
            if p.partial:   # whole words, one per block
                size = self.ctx.config.parameter_word_bytes
                first, size = tiles.start * self.sums * size, words * size
            self.ctx.load_block(Target.PARAMETER, p.parameters + first, size, base)

    def load_rows(self, block: Block) -> None:
        """Load a row block."""
        total = sum(self.row_tiles(each) for each in self.offsets) * self.words
        if self.rows.enter(block, self.row_tiles(block) * self.words, total):
            base, rows = self.rows.base(block, self.offsets[block]), self.product.a.block(block)
            if self.product.load_rows:
                self.product.load_rows(block, base)
            elif block == self.plan.sliced:
                self.load_sliced(rows, base)
            else:
                self.ctx.load_rows(Target.ACTIVATION, rows, base, self.words)

    def row_beats(self) -> int:
        """Return the cycles of the bus to load a row."""
        if self.product.row_beats:
            return self.product.row_beats
        a, step = self.product.a, self.ctx.config.dma_bytes
        offsets = a.address | a.outer_stride | a.inner_stride | a.segment_stride
        unaligned = -(-(a.segment_bytes - 1) // step) if offsets % step else 0
        return a.segment_count * max(-(-a.segment_bytes // step), 1) + (a.segment_count * unaligned) // 2

    def is_sliceable(self) -> bool:
        """Tell whether words of rows can be loaded one by one without wasting the bus: they are beats or several."""
        a, config = self.product.a, self.ctx.config
        aligned = a.address | a.inner_stride | a.row_bytes | config.word_bytes
        fixed = a.segment_count == 1 and not isinstance(a.row_bytes, Count) and not self.product.load_rows
        plain = fixed and a.outer_count == 1 and a.row_bytes % config.word_bytes == 0
        return plain and aligned % config.bus_bytes == 0

    def load_sliced(self, rows: Rows, base: int) -> None:
        """Load the first word of every row of a tile, then the second, ..., so that the array can follow."""
        word = self.ctx.config.word_bytes
        # As many rows as the longest input has: a word's bank follows from its number.
        count = int(rows.inner_count)
        self.ctx.emitter.load(
            target=Target.ACTIVATION, address=rows.address, base=base, row_words=self.words, bank_per_word=True,
            outer_count=self.words, outer_stride=word, inner_count=count, inner_stride=rows.inner_stride,
            segment_bytes=word)

    def drop(self, piece: Piece) -> None:
        """Give up a piece."""
        if isinstance(piece, Block):
            self.rows.drop(piece)
            return
        self.weights.drop(piece)
        if self.product.parameters is not None:
            self.parameters.drop(piece)

    def row_tiles(self, block: Block) -> int:
        """Return the row tiles of a block."""
        return -(-block.rows // self.ctx.config.rows)

    def emit_step(self, step: Step, follow: Follow | None, leader: Leader | None) -> None:
        """Emit MATMUL, VECTOR and STORE of a step, with the row factors in front."""
        p, ctx, rows = self.product, self.ctx, self.product.a.block(step.block).count
        columns = p.column_range(step.tiles)
        pitch = -(-len(step.tiles) // p.chunks_per_word)
        words = p.result_rows(rows) * pitch
        residual = self.load_residual(step, columns)
        if p.prepare:
            self.follow_up()
            p.prepare(p.a.block(step.block))
        self.multiply(step)
        if p.table:
            ctx.load_table(p.table.entries, p.table.address)
        self.make_room(words, leader)
        result = ctx.hold(ctx.results, words)
        for some in self.drained_together(step, bool(follow or leader)):
            next(self.followers, None)
            if leader:
                leader.advance(len(some) * tile_cycles(p.sums, ctx.config))
            self.emit_vector(step, some, residual, result.low, pitch)
        self.follow_up()
        if residual:
            ctx.operands.release(residual)
        ctx.store_rows(p.stored(step.block, columns), result.low, pitch)
        self.result = result
        if follow:
            self.followers = follow(step.block, result.low, pitch)
        else:
            self.follow_up()

    def multiply(self, step: Step) -> None:
        """Emit the MATMUL of a step; one per row tile and part where the column tiles lie in two parts."""
        p, runs = self.product, list(self.weights.runs(step.tiles))
        rows, base = p.a.block(step.block).count, self.rows.base(step.block, self.offsets[step.block])
        height = self.ctx.config.rows if len(runs) > 1 else step.block.rows
        for start in range(0, step.block.rows, height):
            for tiles, weights in runs:
                self.ctx.emitter.matmul(
                    a_base=base + start // self.ctx.config.rows * self.words, a_tile_words=self.words,
                    w_base=weights, w_tile_words=self.column_words, rows=part(rows, start, height),
                    columns=self.array_columns(tiles), k=p.k, a_unsigned=p.a_unsigned, bits=p.bits,
                    block=p.block)

    def array_columns(self, tiles: range) -> int:
        """Return the columns of some tiles as the array counts them: each tile fills its columns, but for the last."""
        full = self.ctx.config.columns
        if self.product.tile_columns < full:
            return len(tiles) * full
        return part(self.product.columns, tiles.start * full, len(tiles) * full)

    def make_room(self, words: int, leader: Leader | None) -> None:
        """Finish what other operators have begun unless a step's results fit beside that, and a share for more."""
        if self.ctx.results.free < words + self.ctx.results.words // SCRATCH_SHARE:
            self.follow_up()
            if leader:
                leader.pause()

    def follow_up(self) -> None:
        """Emit the rest of what reads the results of the last step, and give these up."""
        for _ in self.followers:
            pass
        if self.result:
            self.ctx.results.release(self.result)
        self.result = None

    def drained_together(self, step: Step, interrupted: bool) -> Iterator[range]:
        """Yield the column tiles, from the step's first on, that one VECTOR takes: few if others come between.

        Bytes share scratchpad words in pairs of tiles, or four; with several row tiles, those of one come before the
        next's.
        """
        count, together = len(step.tiles), self.product.chunks_per_word
        few = together * -(-count // (together * MOST_DRAINS))
        size = few if interrupted and self.row_tiles(step.block) == 1 else count
        for first in range(0, count, size):
            yield range(first, min(first + size, count))

    def load_residual(self, step: Step, columns: range) -> Region | None:
        """Load what is added to a step's results."""
        if self.product.residual is None:
            return None
        region = self.ctx.hold(self.ctx.operands, step.block.rows * len(step.tiles))
        wanted = self.product.residual.columns(columns.start * 2, len(columns) * 2).block(step.block)
        self.ctx.load_rows(Target.SCRATCHPAD, wanted, region.low, len(step.tiles))
        return region

    def emit_vector(self, step: Step, some: range, residual: Region | None, result: int, pitch: int) -> None:
        """Emit the VECTOR that takes some of a step's column tiles."""
        p = self.product
        columns = p.column_range(range(step.tiles.start + some.start, step.tiles.start + some.stop))
        with_parameters = p.parameters is not None
        self.ctx.emitter.vector(
            rows=p.a.block(step.block).count, columns=part(p.columns, columns.start, len(columns)), source=Source.DRAIN,
            pre=Pre.BIAS if with_parameters and not p.partial else Pre.NONE, post_bias=p.partial,
            multiplier=p.multiplier, factor=p.factor, blocks=self.sums if p.partial else 0,
            row_sum=p.zero_shift is not None, zero_shift=p.zero_shift or 0,
            parameter_base=self.parameter_base(step, some.start) if with_parameters else 0,
            factor_register=p.factor_register, residual=p.residual is not None,
            residual_base=residual.low + some.start if residual else 0, residual_pitch=len(step.tiles),
            saturate=SATURATE[p.table.index if p.table else p.dtype], table=p.table is not None,
            table_signed=p.table is not None and p.dtype == "int8",
            destination=Destination.SCRATCHPAD, destination_byte=p.itemsize == 1 and p.pairs is not Pairs.ROWS,
            nibble=p.pairs is not None, destination_base=result + some.start // p.chunks_per_word,
            destination_pitch=pitch)

    def parameter_base(self, step: Step, tile: int) -> int:
        """Return where the parameters of a step's column tile begin."""
        return self.parameters.base(step.tiles, step.tiles.start * self.sums) + tile * self.sums
