"""Walks the loops of one VECTOR instruction: which row enters the pipeline, and where its data lie."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import ADDRESS_BITS, DRAIN_NOTICE, operands_layout, packed_layout


def beat_layout(config: MachineConfig) -> data.StructLayout:
    """What travels with a row through the pipeline.

    row
        Row of the tile.
    quarter
        The chunk modulo 4: bytes lie in half ``quarter % 2`` of their word, results of 4 bits in pairs of columns in
        this quarter of it.
    first, tail
        First chunk of the row; last one, where lanes may be inactive.
    adds, ends
        The row adds to the partial sums of the block before it; it belongs to the last block, or there are none.
    final
        Last row of the instruction.
    index
        65535 - column of lane 0.
    residual, destination
        Addresses.
    """
    return data.StructLayout({
        "row": range(config.rows), "quarter": 2, "first": 1, "tail": 1, "adds": 1, "ends": 1, "final": 1,
        "index": ADDRESS_BITS, "residual": ADDRESS_BITS, "destination": ADDRESS_BITS,
    })


class RowAddress(wiring.Component):
    """Address of the current row: ``base + n * pitch``, for rows that are walked once per chunk, and per block of it.

    Members
    -------
    load : In(1), base : In(16), pitch : In(16)
        Start at ``base``; ``pitch`` is stable afterwards.
    row, chunk, tile : In(1)
        At most one: go to the next row, back to the first row of the tile (for another chunk or block), or on to the
        next tile (from its last row).
    address : Out(16)
    """

    def __init__(self):
        super().__init__({
            "load": In(1), "base": In(ADDRESS_BITS), "pitch": In(ADDRESS_BITS), "row": In(1), "chunk": In(1),
            "tile": In(1), "address": Out(ADDRESS_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        current = Signal(ADDRESS_BITS, reset_less=True)
        first = Signal(ADDRESS_BITS, reset_less=True)
        m.d.comb += self.address.eq(current)
        with m.If(self.load):
            m.d.sync += [current.eq(self.base), first.eq(self.base)]
        with m.Elif(self.tile):
            m.d.sync += [current.eq(current + self.pitch), first.eq(current + self.pitch)]
        with m.Elif(self.chunk):
            m.d.sync += current.eq(first)
        with m.Elif(self.row):
            m.d.sync += current.eq(current + self.pitch)
        return m


class VectorIssue(wiring.Component):
    """Issues one row per cycle from the cycle after ``load`` on; waits only before row 0 of a tile from the drain.

    Counts are taken modulo 2^16; with a count of zero nothing is issued and ``empty`` pulses instead.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    load : In(1)
        Take ``operands``.
    operands : In(operands_layout(VECTOR))
    control : In(packed_layout(VECTOR_CONTROL))
        Control part of the operands taken last.
    drain_valid : In(1), drain_start, drain_soon : Out(1)
        See DrainSignature.
    chained : In(1)
        The next instruction is there and will follow without a pause.
    free : Out(1)
        No row is left to issue, or the last one is issued in this cycle.
    valid : Out(1)
        A row enters stage 0 in this cycle, described by ``beat``.
    waiting : Out(1)
        A row would enter, but the drain has none.
    beat : Out(beat_layout)
    chunk_start : Out(1)
        The row is the first of its chunk, or of a block of it: its parameters are needed.
    source, parameter : Out(16)
        Addresses.
    tail_mask : Out(C)
        Lanes that exist in the last chunk, from the cycle after its first row entered on.
    empty : Out(1)
        The instruction taken in the cycle before has no rows or no columns.
    busy : Out(1)
        A row enters, or ``empty``.
    running : Out(1)
        Rows are left to issue.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "load": In(1), "operands": In(operands_layout(isa.BY_MNEMONIC["VECTOR"])),
            "control": In(packed_layout(isa.VECTOR_CONTROL)), "drain_valid": In(1), "drain_start": Out(1),
            "drain_soon": Out(1), "chained": In(1), "free": Out(1),
            "valid": Out(1), "waiting": Out(1), "beat": Out(beat_layout(config)), "chunk_start": Out(1),
            "source": Out(ADDRESS_BITS), "parameter": Out(ADDRESS_BITS), "tail_mask": Out(config.columns),
            "empty": Out(1), "busy": Out(1), "running": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        held = Signal(operands_layout(isa.BY_MNEMONIC["VECTOR"]), reset_less=True)
        running = self.running
        rows_left = Signal(ADDRESS_BITS, reset_less=True)
        columns_left = Signal(ADDRESS_BITS, reset_less=True)
        chunk = Signal(ADDRESS_BITS, reset_less=True)
        row = Signal(range(self.config.rows), reset_less=True)
        index = Signal(ADDRESS_BITS, reset_less=True)
        block = Signal(isa.BLOCK_BITS, reset_less=True)
        parameter = Signal(ADDRESS_BITS, reset_less=True)
        blocks = packed_layout(isa.FACTOR)(held.factor).blocks
        last_row = (row == self.config.rows - 1) | (row + 1 == rows_left)
        last_block = ~self.control.partial | (block >= blocks)
        last_chunk = columns_left <= self.config.columns
        last_tile = rows_left <= self.config.rows
        chunk_end = last_row & last_block
        final = chunk_end & last_chunk & last_tile
        empty = (self.operands.rows[:ADDRESS_BITS] == 0) | (self.operands.columns[:ADDRESS_BITS] == 0)
        from_drain = self.control.source == isa.Source.DRAIN
        m.d.comb += [
            self.busy.eq(running & ~(from_drain & (row == 0) & ~self.drain_valid) | self.empty),
            self.waiting.eq(running & from_drain & (row == 0) & ~self.drain_valid),
            self.valid.eq(running & ~self.waiting),
            self.drain_start.eq(self.valid & from_drain & (row == 0)),
            self.chunk_start.eq(self.valid & (row == 0)),
            self.drain_soon.eq(running & from_drain & (self.waiting | (self.rows_end_soon(row, rows_left) & (
                self.chained | ~(last_block & last_chunk & last_tile))))),
            self.free.eq(~running | (self.valid & final)),
        ]
        m.d.sync += self.empty.eq(self.load & empty)
        self.walk_addresses(m, held, row, chunk, last_row, chunk_end, last_chunk)
        m.d.comb += [
            self.beat.row.eq(row),
            self.beat.quarter.eq(chunk[:2]),
            self.beat.first.eq(chunk == 0),
            self.beat.tail.eq(last_chunk),
            self.beat.adds.eq(block != 0),
            self.beat.ends.eq(last_block),
            self.beat.final.eq(final),
            self.beat.index.eq(index),
            self.parameter.eq(parameter),
        ]
        with m.If(self.load):
            m.d.sync += [held.eq(self.operands), running.eq(~empty), row.eq(0), rows_left.eq(self.operands.rows)]
        with m.Elif(self.valid):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += [row.eq(0), block.eq(block + 1), parameter.eq(parameter + 1)]
            with m.If(chunk_end):
                m.d.sync += [block.eq(0), chunk.eq(chunk + 1), index.eq(index - self.config.columns),
                             columns_left.eq(columns_left - self.config.columns)]
            with m.If(chunk_end & last_chunk):
                m.d.sync += [rows_left.eq(rows_left - self.config.rows), running.eq(~last_tile)]
        with m.If(self.load | (self.valid & chunk_end & last_chunk)):
            columns = Mux(self.load, self.operands.columns, held.columns)
            base = Mux(self.load, self.operands.parameter_base, held.parameter_base)
            m.d.sync += [columns_left.eq(columns), chunk.eq(0), block.eq(0), parameter.eq(base), index.eq(0xFFFF)]
        self.keep_tail_mask(m, self.chunk_start & last_chunk, columns_left)
        return m

    def rows_end_soon(self, row, rows_left):
        """Whether the tile's last row comes so soon that the next tile can start within the drain's notice."""
        near = DRAIN_NOTICE - 1
        return (row >= self.config.rows - 1 - near) | (row + 1 + near >= rows_left)

    def walk_addresses(self, m, held, row, chunk, last_row, chunk_end, last_chunk):
        """Connect the three row addresses and add the chunk's offset.

        Rows in pairs share their words: the address goes on behind odd rows only.
        """
        column_pairs = self.control.nibble & self.control.destination_byte
        row_pairs = self.control.nibble & ~self.control.destination_byte
        words_per_operand_word = self.config.word_bytes // self.config.columns
        to_bank = self.control.destination == isa.Destination.ACTIVATION
        pairs = {
            "source": self.control.source_width != isa.Width.INT16,
            "residual": 0,
            "destination": Mux(to_bank, words_per_operand_word == 2, self.control.destination_byte | row_pairs),
        }
        outputs = {"source": self.source, "residual": self.beat.residual, "destination": self.beat.destination}
        for name, pair in pairs.items():
            m.submodules[name] = walk = RowAddress()
            m.d.comb += [
                walk.load.eq(self.load),
                walk.base.eq(self.operands[f"{name}_base"]),
                walk.pitch.eq(held[f"{name}_pitch"]),
                walk.row.eq(self.valid & ~last_row),
                walk.chunk.eq(self.valid & last_row & ~(chunk_end & last_chunk)),
                walk.tile.eq(self.valid & chunk_end & last_chunk),
                outputs[name].eq(walk.address + Mux(pair, chunk >> 1, chunk)),
            ]
            if name == "destination":
                with m.If(column_pairs & ~to_bank):
                    m.d.comb += outputs[name].eq(walk.address + (chunk >> 2))
                with m.If(to_bank | (row_pairs & ~row[0])):     # to banks: one word per tile and bank
                    m.d.comb += walk.row.eq(0)

    def keep_tail_mask(self, m, enable, columns_left):
        """Remember which lanes of the last chunk exist."""
        mask = Signal(self.config.columns, reset_less=True)
        m.d.comb += self.tail_mask.eq(mask)
        with m.If(enable):
            for lane in range(self.config.columns):
                m.d.sync += mask[lane].eq(columns_left > lane)
