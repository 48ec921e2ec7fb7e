"""Row registers of the vector engine and the reductions that fill them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.vector_lane import VALUE_BITS, sign_extend

GROUP = 4
LOWEST = -(1 << isa.ROW_BITS - 1)


class RowReduction(wiring.Component):
    """Step 8 of VECTOR up to the row register: sum, maximum or best key of the C lanes of one row.

    Latency: ``total`` belongs to the row of stage 5 two cycles later (stage 7): groups of four lanes first, then the
    groups. Keys of ARGMAX are taken modulo 2^48, signed.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    reduce : In(2)
        An :class:`isa.Reduce`, stable while any stage is occupied.
    stages : In(2)
        Stage 5 and stage 6 hold a row.
    values : In(C of signed(34)), active : In(C)
        Stage 5: lane values and which lanes count.
    index : In(16)
        Stage 5: 65535 - column of lane 0.
    total : Out(signed(48))
        Stage 7.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        columns = config.columns
        super().__init__({
            "reduce": In(2), "stages": In(2), "values": In(signed(VALUE_BITS)).array(columns),
            "active": In(columns), "index": In(16), "total": Out(signed(isa.ROW_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        partial = [Signal(signed(isa.ROW_BITS), name=f"partial_{g}", reset_less=True)
                   for g in range(-(-self.config.columns // GROUP))]
        total = Signal(signed(isa.ROW_BITS), reset_less=True)
        m.d.comb += self.total.eq(total)
        groups = [slice(low, low + GROUP) for low in range(0, self.config.columns, GROUP)]
        values, keys = list(self.values), self.keys(m)
        with m.If(self.stages[0]):
            for group, register in zip(groups, partial, strict=True):
                self.combine(m, register, values[group], keys[group])
        with m.If(self.stages[1]):
            self.combine(m, total, partial, partial)
        return m

    def combine(self, m, register: Signal, summands: list, keys: list):
        """Load a register with the sum of ``summands`` or the largest of ``keys``."""
        with m.Switch(self.reduce):
            with m.Case(isa.Reduce.SUM):
                # As wide as the register: what is extended is used twice, and simulators then compute it always.
                m.d.sync += register.eq(sum(summands, Const(0, signed(isa.ROW_BITS)))[:isa.ROW_BITS])
            with m.Case(isa.Reduce.MAX, isa.Reduce.ARGMAX):
                m.d.sync += register.eq(maximum(m, keys))

    def keys(self, m) -> list[Signal]:
        """What MAX and ARGMAX compare, per lane."""
        keys = [Signal(signed(isa.ROW_BITS), name=f"key_{lane}") for lane in range(self.config.columns)]
        for lane, key in enumerate(keys):
            value = self.values[lane]
            column = (self.index - lane)[:16]
            with m.If(self.stages[0]):
                m.d.comb += key.eq(LOWEST)
                with m.If(self.active[lane] & (self.reduce == isa.Reduce.ARGMAX)):
                    m.d.comb += key.eq(Cat(column, value))
                with m.Elif(self.active[lane]):
                    m.d.comb += key.eq(sign_extend(value, isa.ROW_BITS))
        return keys


class RowRegisters(wiring.Component):
    """Four row registers of R words of 48 bits, read combinationally, written at the end of a cycle.

    A reduction reads, combines and writes one word within one cycle, so consecutive totals may meet the same row.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    left_register, left_row, left : In, In, Out(signed(48))
        First read port.
    right_register, right_row, right : In, In, Out(signed(48))
        Second read port.
    reduce, reduce_first, total : In
        ``reduce`` NONE: ``total`` is written; else it is combined with the word, or replaces it when ``reduce_first``.
    write, write_register, write_row : In
        Write port.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        self.memory = Memory(shape=signed(isa.ROW_BITS), depth=isa.ROW_REGISTERS * config.rows, init=[])
        register, row = range(isa.ROW_REGISTERS), range(config.rows)
        super().__init__({
            "left_register": In(register), "left_row": In(row), "left": Out(signed(isa.ROW_BITS)),
            "right_register": In(register), "right_row": In(row), "right": Out(signed(isa.ROW_BITS)),
            "reduce": In(2), "reduce_first": In(1), "total": In(signed(isa.ROW_BITS)),
            "write": In(1), "write_register": In(register), "write_row": In(row),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory
        left, right, old = (memory.read_port(domain="comb") for _ in range(3))
        writer = memory.write_port()
        m.d.comb += [
            left.addr.eq(self.address(m, self.left_register, self.left_row)),
            right.addr.eq(self.address(m, self.right_register, self.right_row)),
            self.left.eq(left.data),
            self.right.eq(right.data),
        ]
        with m.If(self.write):
            m.d.comb += [
                writer.en.eq(1),
                writer.addr.eq(self.address(m, self.write_register, self.write_row)),
                old.addr.eq(writer.addr),
                writer.data.eq(self.total),
            ]
            with m.If((self.reduce == isa.Reduce.SUM) & ~self.reduce_first):
                m.d.comb += writer.data.eq(old.data + self.total)
            with m.Elif((self.reduce != isa.Reduce.NONE) & ~self.reduce_first):
                m.d.comb += writer.data.eq(maximum(m, [old.data, self.total]))
        return m

    def address(self, m, register, row) -> Signal:
        """Place of one word: the rows of a register follow each other."""
        address = Signal(range(isa.ROW_REGISTERS * self.config.rows))
        with m.Switch(register):
            for index in range(isa.ROW_REGISTERS):
                with m.Case(index):
                    m.d.comb += address.eq(Const(index * self.config.rows) + row)
        return address


def maximum(m, values: list) -> Signal:
    """Largest of some signed 48-bit values, as a balanced tree."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    low, high = maximum(m, values[:half]), maximum(m, values[half:])
    larger = Signal(signed(isa.ROW_BITS))
    m.d.comb += larger.eq(Mux(low > high, low, high))
    return larger
