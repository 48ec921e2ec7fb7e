"""MATMUL: reads operand banks into the systolic array, tile after tile, and hands finished tiles to the drain."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BY_MNEMONIC, MATMUL_CONTROL
from phonolith.hw.layouts import (
    ADDRESS_BITS,
    BankReadSignature,
    DrainSignature,
    EngineStatusSignature,
    instruction_stream,
    packed_layout,
)
from phonolith.hw.pe import WEIGHT_BITS
from phonolith.hw.systolic_array import SystolicArray

TILE_COUNT_BITS = 16


class StepLayout(data.StructLayout):
    """One step of the walk: the operands of one k for every bank.

    ``product``: there is a product (0 in the single step of an instruction without tiles); ``read``: the operands start
    a new word, at ``activation_address`` and ``weight_address``; ``byte``: their place in the word; ``first``, ``last``:
    k is the tile's first, last; ``final``: no later step of the instruction reads.
    """

    def __init__(self, config: MachineConfig):
        super().__init__({
            "product": 1, "read": 1, "first": 1, "last": 1, "final": 1, "unsigned": 1,
            "byte": range(config.word_bytes),
            "activation_address": ADDRESS_BITS, "weight_address": ADDRESS_BITS,
        })


class TileWalk(wiring.Component):
    """Turns MATMUL instructions into one step per k, row tiles outermost, then column tiles.

    The first step of an instruction is offered in the cycle after it is accepted; an instruction is accepted when none is in
    progress or in the very cycle in which the last step of the one in progress is taken, so that steps of
    consecutive instructions follow each other without a gap. No tiles: one step without a product.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    instruction : In(stream of MATMUL operands)
        Tile counts below 2^16; addresses modulo 2^16; k from 1 to the bytes of one bank.
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
        config = self.config
        new = self.instruction.payload
        step = self.step.payload
        deepest = max(config.activation_depth, config.weight_depth)
        # The instruction in progress.
        is_unsigned = Signal()
        empty = Signal()
        a_tile_words = Signal(ADDRESS_BITS, reset_less=True)
        w_tile_words = Signal(ADDRESS_BITS, reset_less=True)
        w_base = Signal(ADDRESS_BITS, reset_less=True)
        columns = Signal(TILE_COUNT_BITS, reset_less=True)
        k = Signal(range(deepest * config.word_bytes + 1), reset_less=True)
        # Where the walk is: what is left, the tiles' first words, the words and the byte in them.
        rows_left = Signal.like(columns)
        columns_left = Signal.like(columns)
        k_left = Signal.like(k)
        a_tile = Signal(ADDRESS_BITS, reset_less=True)
        w_tile = Signal(ADDRESS_BITS, reset_less=True)
        a_word = Signal(ADDRESS_BITS, reset_less=True)
        w_word = Signal(ADDRESS_BITS, reset_less=True)
        byte = Signal(range(config.word_bytes), reset_less=True)
        first = Signal(reset_less=True)

        last_column = columns_left == 1
        last_tile = last_column & (rows_left == 1)
        last = k_left == 1
        end = Signal()
        a_next = Signal(ADDRESS_BITS)
        w_next = Signal(ADDRESS_BITS)
        m.d.comb += [
            end.eq(empty | (last & last_tile)),
            a_next.eq(Mux(last_column, a_tile + a_tile_words, a_tile)),
            w_next.eq(Mux(last_column, w_base, w_tile + w_tile_words)),
            step.product.eq(~empty),
            step.read.eq(~empty & (byte == 0)),
            step.first.eq(~empty & first),
            step.last.eq(~empty & last),
            step.final.eq(empty | (last_tile & (byte == 0) & (k_left <= config.word_bytes))),
            step.unsigned.eq(is_unsigned),
            step.byte.eq(byte),
            step.activation_address.eq(a_word),
            step.weight_address.eq(w_word),
            self.instruction.ready.eq(~self.step.valid | (self.step.ready & end)),
        ]
        with m.If(self.step.ready & end):
            m.d.sync += self.step.valid.eq(0)
        with m.If(self.step.valid & self.step.ready):
            m.d.sync += [k_left.eq(k_left - 1), byte.eq(byte + 1), first.eq(0)]
            with m.If(byte == config.word_bytes - 1):
                m.d.sync += [byte.eq(0), a_word.eq(a_word + 1), w_word.eq(w_word + 1)]
            with m.If(last):
                m.d.sync += [
                    k_left.eq(k), byte.eq(0), first.eq(1),
                    a_tile.eq(a_next), a_word.eq(a_next), w_tile.eq(w_next), w_word.eq(w_next),
                    columns_left.eq(columns_left - 1),
                ]
                with m.If(last_column):
                    m.d.sync += [columns_left.eq(columns), rows_left.eq(rows_left - 1)]
        with m.If(self.instruction.valid & self.instruction.ready):
            m.d.sync += [
                self.step.valid.eq(1),
                is_unsigned.eq(packed_layout(MATMUL_CONTROL)(new.control[:3]).a_unsigned),
                empty.eq((new.row_tiles[:TILE_COUNT_BITS] == 0) | (new.column_tiles[:TILE_COUNT_BITS] == 0)),
                a_tile_words.eq(new.a_tile_words), w_tile_words.eq(new.w_tile_words), w_base.eq(new.w_base),
                rows_left.eq(new.row_tiles), columns.eq(new.column_tiles), columns_left.eq(new.column_tiles),
                k.eq(new.k), k_left.eq(new.k), byte.eq(0), first.eq(1),
                a_tile.eq(new.a_base), a_word.eq(new.a_base), w_tile.eq(new.w_base), w_word.eq(new.w_base),
            ]
        return m


class EdgeLayout(data.StructLayout):
    """How a bank's word becomes an edge operand: which byte, and what marks go with it."""

    def __init__(self, config: MachineConfig):
        super().__init__({"byte": range(config.word_bytes), "product": 1, "first": 1, "last": 1, "unsigned": 1})


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

    A bank is read once per word; its output register is the word register, from which the edge takes a byte per
    cycle. Bubbles are activation 0 without marks; nothing in the array moves when it is empty.

    Launch rule: the step with a tile's last k is issued when the tile before it has been started by the drain's
    reader, at the earliest in the cycle of ``drain.start`` itself (``stalled_drain`` until then). Row r, read r cycles
    after the start, is overwritten 4 + r cycles after the launch or later.

    Latency, from the cycle in which an instruction is accepted: bank 0 is read 1 cycle later, and the first tile is
    ``drain.valid`` after ``k + C + 3`` cycles. Initiation interval of tiles, within and across instructions, with a
    reader that starts at once: ``max(k, R, C + 3)``. ``status.done`` comes ``max(R, C) - 1`` cycles after bank 0 is read for
    the last time, which is when the last bank is read; an instruction without tiles takes one step.

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
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = TileWalk(config=self.config)
        m.submodules.array = array = SystolicArray(config=self.config, twin=self.twin)
        wiring.connect(m, wiring.flipped(self.instruction), walk.instruction)
        issue = Signal()
        m.d.comb += issue.eq(walk.step.valid & walk.step.ready)
        self.connect_drain(m, walk.step, issue, array)
        self.report(m, walk.step, issue, array)
        step = walk.step.payload
        edge = Signal(EdgeLayout(self.config))
        m.d.comb += [
            edge.byte.eq(step.byte),
            edge.product.eq(issue & step.product),
            edge.first.eq(issue & step.first),
            edge.last.eq(issue & step.last),
            edge.unsigned.eq(step.unsigned),
        ]
        activation_edges = read_banks(m, self.activation_read, issue & step.read, step.activation_address, edge)
        weight_edges = read_banks(m, self.weight_read, issue & step.read, step.weight_address, step.byte)
        for port, edge, activation in zip(self.activation_read, activation_edges, array.activations, strict=True):
            byte = select_byte(port.data, edge.byte)
            with m.If(edge.product):
                m.d.comb += activation.value.eq(Cat(byte, byte[7] & ~edge.unsigned).as_signed())
            m.d.comb += [activation.first.eq(edge.first), activation.last.eq(edge.last)]
        for port, index, weight in zip(self.weight_read, weight_edges, array.weights, strict=True):
            m.d.comb += weight.eq(select_byte(port.data, index))
        return m

    def connect_drain(self, m: Module, step, issue, array: SystolicArray) -> None:
        """Apply the launch rule and raise ``drain.valid`` when row 0 of a launched tile is complete."""
        started = Signal()
        waiting = Signal()
        completing = Signal(self.config.columns + 2)
        last = step.payload.last
        m.d.comb += [
            started.eq(self.drain.valid & self.drain.start),
            step.ready.eq(~last | ~waiting | started),
            array.row.eq(self.drain.row),
            self.drain.data.eq(array.data),
        ]
        m.d.sync += completing.eq(Cat(issue & last, completing))
        with m.If(started):
            m.d.sync += [waiting.eq(0), self.drain.valid.eq(0)]
        with m.If(issue & last):
            m.d.sync += waiting.eq(1)
        with m.If(completing[-1]):
            m.d.sync += self.drain.valid.eq(1)

    def report(self, m: Module, step, issue, array: SystolicArray) -> None:
        """Drive the status, and enable the array for as long as a step needs to cross it."""
        rows, columns = self.config.rows, self.config.columns
        crossing = Signal(range(rows + columns + 1))
        reading = Signal(max(rows, columns) - 1)
        m.d.sync += reading.eq(Cat(issue & step.payload.final, reading))
        with m.If(issue):
            m.d.sync += crossing.eq(rows + columns)
        with m.Elif(array.enable):
            m.d.sync += crossing.eq(crossing - 1)
        m.d.comb += [
            array.enable.eq(crossing != 0),
            self.status.done.eq(reading[-1]),
            self.status.busy.eq(step.valid | array.enable),
            self.status.stalled_drain.eq(step.valid & ~step.ready),
        ]


def read_banks(m: Module, ports, enable, address, edge) -> list:
    """Read bank 0 now and each further bank one cycle after the one before it.

    Returns ``edge`` once per bank, in step with the bank's data.
    """
    edges = []
    for index, port in enumerate(ports):
        if index:
            enable, address = delayed(m, enable, "enable"), delayed(m, address, "address", reset_less=True)
        m.d.comb += [port.enable.eq(enable), port.address.eq(address)]
        edges.append(edge := delayed(m, edge, "edge"))
    return edges


def delayed(m: Module, source, name: str, reset_less: bool = False):
    """Return ``source`` one cycle later."""
    register = Signal(source.shape(), name=name, reset_less=reset_less)
    m.d.sync += register.eq(source)
    return register


def select_byte(word, index):
    """Return byte ``index`` of ``word``, signed."""
    return Array(word[low:low + 8].as_signed() for low in range(0, len(word), WEIGHT_BITS))[index]
