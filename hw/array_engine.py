"""MATMUL: reads operand banks into the systolic array, tile after tile, and hands finished tiles to the drain."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BLOCKS, BY_MNEMONIC, MATMUL_CONTROL
from phonolith.hw.layouts import (
    ADDRESS_BITS,
    DRAIN_NOTICE,
    BankReadSignature,
    ChainSignature,
    DrainSignature,
    EngineStatusSignature,
    instruction_stream,
    packed_layout,
)
from phonolith.hw.operand_banks import EdgeLayout, activation_lanes, read_banks, read_weights
from phonolith.hw.pe import LANES, WIDTH_BITS
from phonolith.hw.systolic_array import SystolicArray

COUNT_BITS = 16


class StepLayout(data.StructLayout):
    """One step of the walk: a weight byte for every column, and for every row the activations that its weights meet.

    ``product``: there is a product (0 in the single step of an instruction without tiles); ``read_activation``,
    ``read_weight``: the operands start a new word, at ``activation_address`` and ``weight_address``; ``byte``,
    ``weight_byte``: their place in the word; ``log2_lanes``: 1 << that many activations; ``exists``: bit n, the n-th of
    them lies within k; ``first``, ``last``: the step is a sum's first, last; ``final``: no later step of the
    instruction reads; ``band``: the weights are a kernel, shifted by c in column c; ``weight``: there is a weight byte
    for this step (0 behind a kernel's end).
    """

    def __init__(self, config: MachineConfig):
        super().__init__({
            "product": 1, "read_activation": 1, "read_weight": 1, "first": 1, "last": 1, "final": 1, "unsigned": 1,
            "band": 1, "weight": 1, "log2_lanes": WIDTH_BITS, "exists": LANES,
            "byte": range(config.word_bytes), "weight_byte": range(config.word_bytes),
            "activation_address": ADDRESS_BITS, "weight_address": ADDRESS_BITS,
        })


class WalkRegisters:
    """State of the walk; separate signals, because most of them move rarely.

    The instruction in progress: ``unsigned``, ``band``, ``empty`` (no tiles), ``log2_lanes``, ``block`` (its code),
    ``a_tile_words``, ``w_tile_words``, ``w_base``, ``columns``, ``k``. What is left of it, the current tile included:
    ``rows_left``, ``columns_left``, ``k_left``, and of the block ``block_left``. The current tile's first words:
    ``a_tile``, ``w_tile``; the current words ``a_word``, ``w_word`` and the places in them, ``byte`` and
    ``weight_byte``; ``first``: a sum's first step.
    """

    def __init__(self, config: MachineConfig):
        deepest = max(config.activation_depth, config.weight_depth)
        widths = {"unsigned": 1, "band": 1, "empty": 1, "first": 1, "log2_lanes": WIDTH_BITS, "block": 3}
        widths |= dict.fromkeys(("byte", "weight_byte"), range(config.word_bytes))
        widths |= dict.fromkeys(("k", "k_left"), range(deepest * config.word_bytes + 1))
        widths["block_left"] = range(max(BLOCKS) + 1)
        widths |= dict.fromkeys(("columns", "columns_left", "rows_left"), COUNT_BITS)
        widths |= dict.fromkeys(("a_tile_words", "w_tile_words", "w_base", "a_tile", "w_tile", "a_word", "w_word"),
                                ADDRESS_BITS)
        for name, width in widths.items():
            setattr(self, name, Signal(width, name=name, reset_less=True))
        self.lanes = Signal(range(LANES + 1))
        self.tile_end = Signal()
        self.last = Signal()
        self.last_column = self.columns_left <= config.columns
        self.last_tile = self.last_column & (self.rows_left <= config.rows)
        self.end = self.empty | (self.tile_end & self.last_tile)

    def derive(self, m: Module) -> None:
        """Drive what follows from the registers: activations of this step, and whether it ends a tile, a sum."""
        m.d.comb += [
            self.lanes.eq(1 << self.log2_lanes),
            self.tile_end.eq(self.k_left <= self.lanes),
            self.last.eq(self.tile_end | ((self.block != 0) & (self.block_left <= self.lanes))),
        ]


class TileWalk(wiring.Component):
    """Turns MATMUL instructions into steps along k, row tiles outermost, then column tiles.

    The first step of an instruction is offered in the cycle after it is accepted. An instruction is accepted when none
    is in progress, or in the very cycle in which the last step of the one in progress is taken, so that steps of
    consecutive instructions follow each other without a gap. No tiles: one step without a product.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    instruction : In(stream of MATMUL operands)
        Rows and columns below 2^16; addresses modulo 2^16; k from 1 to what one bank holds.
    step : Out(stream of StepLayout)
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "instruction": In(instruction_stream(BY_MNEMONIC["MATMUL"])),
            "step": Out(stream.Signature(StepLayout(config))),
        })

    def elaborate(self, platform):
        m = Module()
        walk = WalkRegisters(self.config)
        walk.derive(m)
        self.describe(m, walk)
        with m.If(self.step.valid & self.step.ready):
            with m.If(walk.end):
                m.d.sync += self.step.valid.eq(0)
            self.advance(m, walk)
        with m.If(self.instruction.valid & self.instruction.ready):
            m.d.sync += self.step.valid.eq(1)
            self.accept(m, walk)
        m.d.comb += self.instruction.ready.eq(~self.step.valid | (self.step.ready & walk.end))
        return m

    def describe(self, m: Module, walk: WalkRegisters) -> None:
        """Drive the step from the registers."""
        step = self.step.payload
        starts_word = walk.byte == 0
        in_last_word = walk.k_left <= self.config.word_bytes
        m.d.comb += [
            step.product.eq(~walk.empty),
            step.read_activation.eq(~walk.empty & starts_word),
            step.read_weight.eq(~walk.empty & (walk.weight_byte == 0)),
            step.first.eq(~walk.empty & walk.first),
            step.last.eq(~walk.empty & walk.last),
            step.final.eq(walk.empty | (walk.last_tile & starts_word & in_last_word)),
            step.unsigned.eq(walk.unsigned),
            step.band.eq(~walk.empty & walk.band),
            step.weight.eq(~walk.band | (walk.k_left >= self.config.columns)),
            step.log2_lanes.eq(Mux(walk.empty, 0, walk.log2_lanes)),
            step.exists.eq(Mux(walk.tile_end, (1 << walk.k_left[:4]) - 1, ~0)),
            step.byte.eq(walk.byte),
            step.weight_byte.eq(walk.weight_byte),
            step.activation_address.eq(walk.a_word),
            step.weight_address.eq(walk.w_word),
        ]

    def advance(self, m: Module, walk: WalkRegisters) -> None:
        """Go to the next step, after a sum's last to the next sum, after a tile's last to the next tile."""
        word_bytes = self.config.word_bytes
        m.d.sync += [walk.k_left.eq(walk.k_left - walk.lanes), walk.byte.eq(walk.byte + walk.lanes), walk.first.eq(0),
                     walk.weight_byte.eq(walk.weight_byte + 1)]
        with m.If(walk.byte >= word_bytes - walk.lanes):
            m.d.sync += [walk.byte.eq(0), walk.a_word.eq(walk.a_word + 1)]
        with m.If(walk.weight_byte == word_bytes - 1):
            m.d.sync += [walk.weight_byte.eq(0), walk.w_word.eq(walk.w_word + 1)]
        with m.If(walk.block != 0):
            m.d.sync += walk.block_left.eq(walk.block_left - walk.lanes)
        with m.If(walk.last):
            m.d.sync += [walk.first.eq(1), walk.block_left.eq(block_size(walk.block))]
        a_next = Mux(walk.last_column, walk.a_tile + walk.a_tile_words, walk.a_tile)
        w_next = Mux(walk.last_column & ~walk.band, walk.w_base, walk.w_tile + walk.w_tile_words)
        with m.If(walk.tile_end):
            m.d.sync += [
                walk.k_left.eq(walk.k), walk.byte.eq(0), walk.weight_byte.eq(0),
                walk.a_tile.eq(a_next), walk.a_word.eq(a_next), walk.w_tile.eq(w_next), walk.w_word.eq(w_next),
                walk.columns_left.eq(Mux(walk.last_column, walk.columns, walk.columns_left - self.config.columns)),
            ]
            with m.If(walk.last_column):
                m.d.sync += walk.rows_left.eq(walk.rows_left - self.config.rows)

    def accept(self, m: Module, walk: WalkRegisters) -> None:
        """Take over an instruction."""
        new = self.instruction.payload
        control = packed_layout(MATMUL_CONTROL)(new.control[:packed_layout(MATMUL_CONTROL).size])
        rows, columns = new.rows[:COUNT_BITS], new.columns[:COUNT_BITS]
        m.d.sync += [
            walk.unsigned.eq(control.a_unsigned), walk.band.eq(control.band), walk.log2_lanes.eq(control.log2_lanes),
            walk.block.eq(control.block), walk.block_left.eq(block_size(control.block)),
            walk.empty.eq((rows == 0) | (columns == 0)),
            walk.a_tile_words.eq(new.a_tile_words), walk.w_tile_words.eq(new.w_tile_words), walk.w_base.eq(new.w_base),
            walk.rows_left.eq(rows), walk.columns.eq(columns), walk.columns_left.eq(columns),
            walk.k.eq(new.k), walk.k_left.eq(new.k), walk.byte.eq(0), walk.weight_byte.eq(0), walk.first.eq(1),
            walk.a_tile.eq(new.a_base), walk.a_word.eq(new.a_base),
            walk.w_tile.eq(new.w_base), walk.w_word.eq(new.w_base),
        ]


def block_size(code):
    """Return the size of a block along k by its code (``isa.BLOCKS``)."""
    return Array([*BLOCKS, *[0] * (-len(BLOCKS) % 8)])[code]


class ArrayEngine(wiring.Component):
    """The MATMUL engine: walk, skewed bank reads, byte selection, systolic array, drain handshake.

    ::

        instruction --> TileWalk --step--> launch rule --+--> read 0 --> read 1 --> ..   a register from bank to bank
                                                         |      |          |
                                                         |   bank 0     bank 1           the same for C weight banks
                                                         |      |          |
                                                         +-> edge 0 --> edge 1 --> ..    one cycle after its read
                                                                |          |
                                                              byte mux   byte mux  --> SystolicArray --> drain

    A bank is read once per word; its output register is the word register, from which the edge takes a weight byte and
    1, 2, 4 or 8 activations per cycle. Bubbles are activation 0 without marks.

    A band (``B[c, k]`` is byte k - c of a kernel) is read from weight bank 0 alone. Column c gets it from column c - 1,
    one cycle later like every operand, and one step later besides: :func:`delay_kernel`.

    Launch rule: the step with a sum's last k is issued when the reader of the drain is certain to take the tile before
    it within three cycles: that tile is valid by then, and the reader says ``drain.soon`` (``stalled_drain`` until
    then). Row r, read r cycles after the start, is overwritten 4 + r cycles after the launch or later.

    Chaining: a step that would read a word which a LOAD that signalled early has still to write waits for it
    (``stalled_dram``).

    Latency, from the cycle in which an instruction is accepted: bank 0 is read 1 cycle later, and the first tile is
    ``drain.valid`` after ``s + C + 3`` cycles, s steps making a sum. Initiation interval of tiles, within and across
    instructions, with a reader that starts at once: ``max(s, R, C)``. ``status.done`` comes ``max(R, C) - 1`` cycles
    after bank 0 is read for the last time, which is when the last bank is read; an instruction without tiles takes one
    step.

    Parameters
    ----------
    config : MachineConfig
    twin : bool
        Elaborate the array's rows in place, for Amaranth's simulator; see :class:`SystolicArray`.

    Members
    -------
    instruction : In(stream of MATMUL operands)
        See :class:`TileWalk`.
    status : Out(EngineStatusSignature)
        ``busy`` until the last tile has left the array for the drain registers.
    activation_read : Out(R x BankReadSignature), weight_read : Out(C x BankReadSignature)
        Words of WB bytes.
    drain : Out(DrainSignature)
    chain : In(ChainSignature)
    """

    def __init__(self, *, config: MachineConfig, twin: bool = False):
        self.config = config
        self.twin = twin
        bank = BankReadSignature(8 * config.word_bytes)
        super().__init__({
            "instruction": In(instruction_stream(BY_MNEMONIC["MATMUL"])),
            "status": Out(EngineStatusSignature()),
            "activation_read": Out(bank).array(config.rows),
            "weight_read": Out(bank).array(config.columns),
            "drain": Out(DrainSignature(config)),
            "chain": In(ChainSignature()),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = TileWalk(config=self.config)
        m.submodules.array = array = SystolicArray(config=self.config, twin=self.twin)
        wiring.connect(m, wiring.flipped(self.instruction), walk.instruction)
        issue = Signal()
        m.d.comb += issue.eq(walk.step.valid & walk.step.ready)
        self.follow_chain(m, walk.step.payload)
        self.connect_drain(m, walk.step, issue, array)
        self.report(m, walk.step, issue)
        step = walk.step.payload
        edge = Signal(EdgeLayout(self.config))
        m.d.comb += [
            edge.byte.eq(step.byte),
            edge.product.eq(issue & step.product),
            edge.first.eq(issue & step.first),
            edge.last.eq(issue & step.last),
            edge.unsigned.eq(issue & step.unsigned),
            edge.log2_lanes.eq(Mux(issue, step.log2_lanes, 0)),
            edge.exists.eq(step.exists),
        ]
        reads = issue & step.read_activation
        activation_edges = read_banks(m, self.activation_read, reads, step.activation_address, edge)
        for port, edge, activation in zip(self.activation_read, activation_edges, array.activations, strict=True):
            activation_lanes(m, port.data, edge, activation)
        weights = read_weights(m, self.config, self.weight_read, step, issue)
        m.d.comb += [edge.eq(weight) for edge, weight in zip(array.weights, weights, strict=True)]
        return m

    def follow_chain(self, m: Module, step) -> None:
        """Hold back a step that reads a word too early."""
        self.undrained, self.unwritten = Signal(), Signal()
        chain = self.chain
        missing = [following & (address >= chain.frontier) & (address < chain.end) for following, address in (
            (chain.activation & step.read_activation, step.activation_address),
            (chain.weight & step.read_weight & step.weight, step.weight_address))]
        m.d.comb += self.unwritten.eq(Cat(*missing).any())

    def connect_drain(self, m: Module, step, issue, array: SystolicArray) -> None:
        """Apply the launch rule and raise ``drain.valid`` when row 0 of a launched tile is complete."""
        started = Signal()
        undrained = Signal(range(3))    # tiles launched that the reader has not started
        completing = Signal(self.config.columns + 2)
        last = step.payload.last
        valid_soon = self.drain.valid | completing[-DRAIN_NOTICE:].any()
        certain = (undrained == 1) & (started | (valid_soon & self.drain.soon))
        m.d.comb += [
            started.eq(self.drain.valid & self.drain.start),
            self.undrained.eq(last & (undrained != 0) & ~certain),
            step.ready.eq(~self.undrained & ~self.unwritten),
            array.row.eq(self.drain.row),
            self.drain.data.eq(array.data),
            self.drain.row_sum.eq(array.row_sum),
        ]
        m.d.sync += [
            completing.eq(Cat(issue & last, completing)),
            undrained.eq(undrained + (issue & last) - started),
        ]
        with m.If(started):
            m.d.sync += self.drain.valid.eq(0)
        with m.If(completing[-1]):
            m.d.sync += self.drain.valid.eq(1)

    def report(self, m: Module, step, issue) -> None:
        """Drive the status: the array is busy for as long as a step needs to cross it."""
        rows, columns = self.config.rows, self.config.columns
        crossing = Signal(range(rows + columns + 1))
        reading = Signal(max(rows, columns) - 1)
        m.d.sync += reading.eq(Cat(issue & step.payload.final, reading))
        with m.If(issue):
            m.d.sync += crossing.eq(rows + columns)
        with m.Elif(crossing != 0):
            m.d.sync += crossing.eq(crossing - 1)
        m.d.comb += [
            self.status.done.eq(reading[-1]),
            self.status.busy.eq(step.valid | (crossing != 0)),
            self.status.stalled_dram.eq(step.valid & self.unwritten),
            self.status.stalled_drain.eq(step.valid & self.undrained & ~self.unwritten),
        ]
