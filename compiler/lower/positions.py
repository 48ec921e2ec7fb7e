"""Scores of relative positions: queries times a constant per offset, moved into place by addressing.

The scores of a row block need the offsets from its first key to its last, seen from each of its rows: a window of
columns that all rows share, but each row needs it one column further left than the row before (Dai et al. 2019,
Transformer-XL, appendix B). The array multiplies the block by the window, STORE writes the rows to DRAM, and LOAD
fetches each row from its own first column: rows are ``pitch - 2`` bytes apart for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from phonolith.compiler import pack
from phonolith.compiler.allocate import Region
from phonolith.compiler.counts import part, plus, times
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import Lowering, align
from phonolith.compiler.views import View
from phonolith.hw.isa import Destination, Multiplier, Pre, Saturate, Source, Target

PARAMETER_BYTES = 8
# Buffers in DRAM: a block's scores are loaded while others are computed.
BUFFERS = 4
# A head's columns are loaded in so many LOADs while the head before it is computed.
LOADS = 3
# A VECTOR takes at most this fraction of a scratchpad bank.
SCRATCH_SHARE = 8


@dataclass
class Held:
    """A head's columns on chip, but for those tiles that are ``missing``."""

    head: int
    region: Region
    missing: range


@dataclass(frozen=True)
class Window:
    """Columns of the table of offsets for one row block.

    ``tiles`` of the table; of its ``columns``, those for the block's rows and keys, row 0 and key 0 meet in ``origin``.
    """

    tiles: range
    columns: int
    origin: int


class PositionScores:
    """Emits the position scores of an attention node, block by block.

    Parameters
    ----------
    ctx, node, heads
    rows : int
        Rows of a block, at most.
    blocks : list of (int, int)
        For each row block of a head how far its row 0 stands behind its key 0, and its keys.
    """

    def __init__(self, ctx: Lowering, node: Node, heads: int, rows: int, blocks: list[tuple[int, int]]):
        self.ctx = ctx
        self.factor = node.attributes["position_scores"]
        table, bias = node.constants["positions"], node.constants["position_bias"]
        self.rows = rows
        self.longest = (len(table) + 1) // 2
        # So that the windows of blocks of R rows begin with a tile where C divides R.
        size = ctx.config.columns
        self.pad = (rows - self.longest) % size - (-rows // size) * size
        self.depth = table.shape[1] // heads
        self.words = pack.tile_words(self.depth, ctx.config)
        self.weights = [self.pack_weights(table[:, head * self.depth:][:, :self.depth]) for head in range(heads)]
        self.parameters = [self.pack_parameters(row) for row in bias]
        self.tile_bytes = self.words * size * ctx.config.word_bytes
        windows = [self.window(first, keys) for first, keys in blocks]
        self.span = range(min(each.tiles.start for each in windows), max(each.tiles.stop for each in windows))
        self.pitch = align(2 * size * max(len(each.tiles) for each in windows), ctx.config.bus_bytes)
        self.buffers = [ctx.dram.take(rows * self.pitch) for _ in range(BUFFERS)]
        ctx.temporaries += [View(address, (rows * self.pitch,), (1,), "int8") for address in self.buffers]
        self.made = self.loaded = 0
        self.held: Held | None = None
        self.upcoming: Held | None = None

    def pack_weights(self, table: np.ndarray) -> int:
        """Put a head's rows of the table into DRAM as columns; return the address."""
        return self.ctx.constant(pack.weights(np.pad(table, ((self.pad, 0), (0, 0))), self.ctx.config))

    def pack_parameters(self, bias: np.ndarray) -> int:
        """Put a head's biases into DRAM with the one factor; return the address."""
        bias = np.pad(bias, (self.pad, -(self.pad + len(bias)) % self.ctx.config.columns))
        factors = (np.full(len(bias), self.factor[name], np.int64) for name in ("multiplier", "shift"))
        return self.ctx.constant(pack.parameters(bias, *factors))

    def window(self, first: int, keys: int) -> Window:
        """Return the window of a block whose row 0 stands ``first`` rows behind key 0."""
        size = self.ctx.config.columns
        origin = self.longest - 1 - first + self.pad
        start = (origin - self.rows + 1) // size
        columns = plus(keys, origin - start * size)
        return Window(range(start, start - (-columns // size)), columns, origin - start * size)

    def multiply(self, head: int, first: int, keys: int, rows: int, a_base: int) -> None:
        """Emit the scores of a block, whose queries lie at activation word ``a_base``, into the next buffer."""
        ctx, window = self.ctx, self.window(first, keys)
        address = self.buffers[self.made % BUFFERS]
        self.made += 1
        for tiles in self.pieces(window.tiles):
            skipped = (tiles.start - window.tiles.start) * ctx.config.columns
            columns = part(window.columns, skipped, len(tiles) * ctx.config.columns)
            with self.operands(head, tiles) as (weights, parameters):
                ctx.emitter.matmul(a_base=a_base, w_base=weights, w_tile_words=self.words, rows=rows,
                                   columns=columns, k=self.depth)
                self.drain(rows, columns, len(tiles), parameters, address + 2 * skipped)

    def drain(self, rows: int, columns: int, pitch: int, parameters: int, address: int) -> None:
        """Requantize the columns of a piece and store them."""
        ctx = self.ctx
        with ctx.take(ctx.results, rows * pitch) as result:
            ctx.emitter.vector(
                rows=rows, columns=columns, source=Source.DRAIN, pre=Pre.BIAS, multiplier=Multiplier.COLUMN,
                parameter_base=parameters, saturate=Saturate.INT16, destination=Destination.SCRATCHPAD,
                destination_base=result, destination_pitch=pitch)
            ctx.emitter.store(address=address, base=result, pitch=pitch, inner_count=rows, inner_stride=self.pitch,
                              row_bytes=times(columns, 2))

    def load(self, first: int, keys: int, rows: int) -> Region:
        """Load the scores of the block whose turn it is; return where they are, ``keys`` columns to a row."""
        ctx, window = self.ctx, self.window(first, keys)
        words = ctx.scratch_words(keys, 2)
        address = self.buffers[self.loaded % BUFFERS] + 2 * window.origin
        self.loaded += 1
        region = ctx.hold(ctx.results, rows * words)
        ctx.emitter.load(target=Target.SCRATCHPAD, address=address, base=region.low, row_words=words, inner_count=rows,
                         inner_stride=self.pitch - 2, segment_bytes=times(keys, 2))
        return region

    def pieces(self, tiles: range) -> Iterator[range]:
        """Cut a window into as many tiles as the scratchpad, the parameters and the weights have room for."""
        ctx = self.ctx
        most = max(1, min(ctx.results.words // SCRATCH_SHARE // self.rows, ctx.parameter.words // 2))
        if self.held is None:
            most = max(1, min(most, ctx.weight.free // (2 * self.words)))
        for start in range(tiles.start, tiles.stop, most):
            yield range(start, min(start + most, tiles.stop))

    @contextmanager
    def operands(self, head: int, tiles: range) -> Iterator[tuple[int, int]]:
        """Give the weight and the parameter word of some tiles, until the end of the block."""
        ctx, columns = self.ctx, len(tiles) * self.ctx.config.columns
        with ctx.take(ctx.parameter, len(tiles)) as parameters:
            ctx.load_block(Target.PARAMETER, self.parameters[head] + tiles.start * ctx.config.columns * PARAMETER_BYTES,
                           columns * PARAMETER_BYTES, parameters)
            if self.held is not None:
                yield self.held.region.low + (tiles.start - self.span.start) * self.words, parameters
                return
            with ctx.take(ctx.weight, len(tiles) * self.words) as weights:
                self.load_weights(head, tiles, weights)
                yield weights, parameters

    @property
    def span_words(self) -> int:
        """Weight words of all columns that a head's blocks need."""
        return len(self.span) * self.words

    def prepare(self, head: int, room: int) -> bool:
        """Load a part of a head's columns, to keep them, if that leaves ``room`` weight words; tell whether it did."""
        if self.upcoming is None and self.ctx.weight.free >= self.span_words + room:
            self.upcoming = Held(head, self.ctx.hold(self.ctx.weight, self.span_words), self.span)
        if self.upcoming is None or not self.upcoming.missing:
            return False
        held = self.upcoming
        part = held.missing[:-(-len(self.span) // LOADS)]
        self.load_weights(head, part, held.region.low + (part.start - self.span.start) * self.words)
        held.missing = held.missing[len(part):]
        return True

    def enter(self, head: int, room: int) -> None:
        """Go on with a head: all its columns are kept on chip from here on if that leaves ``room`` weight words."""
        if self.held is None or self.held.head != head:
            self.leave()
            while self.prepare(head, room):
                pass
            self.held, self.upcoming = self.upcoming, None

    def leave(self) -> None:
        """Give the columns of the present head up."""
        if self.held is not None:
            self.ctx.weight.release(self.held.region)
        self.held = None

    def load_weights(self, head: int, tiles: range, base: int) -> None:
        """Load tiles of a head's table."""
        self.ctx.load_block(Target.WEIGHT, self.weights[head] + tiles.start * self.tile_bytes,
                            len(tiles) * self.tile_bytes, base, bank_per_word=True)
