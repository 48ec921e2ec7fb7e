"""One lane of the vector engine: everything that happens to one column of a row."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.layouts import packed_layout
from phonolith.hw.requantize import Requantizer

VALUE_BITS = 34
LIMITS = {isa.Saturate.INT8: (-128, 127), isa.Saturate.UINT8: (0, 255), isa.Saturate.INT16: (-32768, 32767)}


class VectorLane(wiring.Component):
    """Steps 1 to 6 of VECTOR (``docs/isa.md``) for one column.

    Latency: a value taken in stage 0 appears on ``value`` five cycles later (stage 5). One value per cycle.

    ===== ==============================================================
    stage work
    ===== ==============================================================
    0     take the accumulator (source DRAIN), or the scratchpad is read
    1     select the source, add, select the factor (ELEMENT: the residual operand)
    2     multiply
    3     shift, round, add the bias
    4     add the partial sum and the residual, saturate, read the table
    5     ``value`` is valid
    ===== ==============================================================

    Members
    -------
    control : In(packed_layout(VECTOR_CONTROL))
        Stable while any stage is occupied.
    stages : In(6)
        Bit k: stage k holds a row in this cycle. Registers of empty stages keep still.
    accumulator, row_sum : In(signed(32))
        Stage 0.
    word, low_byte, high_byte, half : In
        Stage 1: this lane's int16, its byte in the low and high half of the word, and which half counts.
    bias, multiplier, shift, zero : In
        Stage 1: parameters of the column.
    addend : In(signed(32))
        Stage 1: what every lane adds, unless the bias.
    factor : In(packed_layout(FACTOR))
        Stage 1: the factor of every lane, unless COLUMN or SQUARE; of ELEMENT only the shift.
    residual : In(signed(16))
        Stage 1 (ELEMENT) or stage 4 (residual).
    adds, ends : In(1), partial : In(signed(32))
        Stage 4: the value adds to ``partial``; it is the last to be added.
    partial_sum : Out(32)
        Stage 4: what it makes of it.
    table_index : Out(8)
        Stage 4: entry to read.
    table_entry : In(8)
        Stage 5.
    active : In(1)
        Stage 5: the column exists.
    value : Out(signed(34))
        Stage 5: the result; 0 when inactive or empty.
    """

    def __init__(self):
        super().__init__({
            "control": In(packed_layout(isa.VECTOR_CONTROL)), "stages": In(6), "accumulator": In(signed(32)),
            "row_sum": In(signed(32)), "zero": In(signed(isa.ZERO_BITS)), "adds": In(1), "ends": In(1),
            "partial": In(signed(32)), "partial_sum": Out(32),
            "word": In(signed(16)), "low_byte": In(8), "high_byte": In(8), "half": In(1),
            "bias": In(signed(32)), "multiplier": In(signed(isa.MULTIPLIER_BITS)), "shift": In(isa.SHIFT_BITS),
            "addend": In(signed(32)), "factor": In(packed_layout(isa.FACTOR)), "residual": In(signed(16)),
            "table_index": Out(8), "table_entry": In(8), "active": In(1), "value": Out(signed(VALUE_BITS)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.requantizer = requantizer = Requantizer()
        m.d.comb += requantizer.enable.eq(self.stages[2:4])
        accumulator = Signal(signed(32), reset_less=True)
        row_sum = Signal(signed(32), reset_less=True)
        with m.If(self.stages[0] & (self.control.source == isa.Source.DRAIN)):
            m.d.sync += accumulator.eq(self.accumulator)
            with m.If(self.control.row_sum):
                m.d.sync += row_sum.eq(self.row_sum)
        with m.If(self.stages[1]):
            shifted = self.shifted_source(m, accumulator, row_sum)
            operands = self.operands(m, shifted)
        for name, register in operands.items():
            m.d.comb += getattr(requantizer, name).eq(register)
        result = Signal(signed(VALUE_BITS), reset_less=True)
        with m.If(self.stages[4]):
            limited = self.limited(m, self.joined(m, requantizer.y))
            m.d.sync += result.eq(limited)
            m.d.comb += self.table_index.eq(limited)
        # Here and below, one case statement with the stage in it: Verilator skips an empty stage instead of masking its
        # result.
        with m.Switch(Cat(self.stages[5] & self.active, self.control.table, self.control.table_signed)):
            with m.Case("-01"):
                m.d.comb += self.value.eq(result)
            with m.Case("111"):
                m.d.comb += self.value.eq(sign_extend(self.table_entry, VALUE_BITS))
            with m.Case("011"):
                m.d.comb += self.value.eq(self.table_entry)
        return m

    def shifted_source(self, m, accumulator: Signal, row_sum: Signal) -> Signal:
        """Steps 1 and 2: the source plus the addend, modulo 2^32."""
        source = Signal(signed(32))
        with m.Switch(self.control.source):
            with m.Case(isa.Source.DRAIN):
                m.d.comb += source.eq(accumulator)
                with m.If(self.control.row_sum):
                    m.d.comb += source.eq((accumulator << self.control.zero_shift) + row_sum * self.zero)
            with m.Case(isa.Source.SCRATCHPAD):
                with m.If(self.control.source_width == isa.Width.INT16):
                    m.d.comb += source.eq(sign_extend(self.word, 32))
                for half, byte in enumerate((self.low_byte, self.high_byte)):
                    with m.Elif((self.control.source_width == isa.Width.INT8) & (self.half == half)):
                        m.d.comb += source.eq(sign_extend(byte, 32))
                with m.Elif(self.half):
                    m.d.comb += source.eq(self.high_byte)
                with m.Else():
                    m.d.comb += source.eq(self.low_byte)
        addend, shifted = Signal(signed(32)), Signal(signed(32))
        with m.Switch(self.control.pre):
            with m.Case(isa.Pre.BIAS):
                m.d.comb += addend.eq(self.bias)
            with m.Default():
                m.d.comb += addend.eq(self.addend)
        m.d.comb += shifted.eq(source + addend)
        return shifted

    def operands(self, m, shifted: Signal) -> dict[str, Signal]:
        """Step 3: the registers in front of the requantizer, by its port names."""
        x = Signal(signed(32), reset_less=True)
        multiplier = Signal(signed(isa.MULTIPLIER_BITS), reset_less=True)
        shift = Signal(isa.SHIFT_BITS, reset_less=True)
        bias = Signal(signed(32), reset_less=True)
        low = shifted[:isa.MULTIPLIER_BITS]
        m.d.sync += [x.eq(shifted), bias.eq(Mux(self.control.post_bias, self.bias, 0))]
        with m.Switch(self.control.multiplier):
            with m.Case(isa.Multiplier.COLUMN):
                m.d.sync += [multiplier.eq(self.multiplier), shift.eq(self.shift)]
            with m.Case(isa.Multiplier.SQUARE):
                m.d.sync += [x.eq(sign_extend(low, 32)), multiplier.eq(low), shift.eq(0)]
            with m.Case(isa.Multiplier.ELEMENT):
                m.d.sync += [multiplier.eq(self.residual), shift.eq(self.factor.shift)]
            with m.Default():
                m.d.sync += [multiplier.eq(self.factor.multiplier), shift.eq(self.factor.shift)]
        return {"x": x, "multiplier": multiplier, "shift": shift, "addend": bias}

    def joined(self, m, y) -> Signal:
        """Step 4 (partial): with the sum of the blocks before it, and of the last block in steps of the result."""
        total, joined = Signal(y.shape(), name="partial_total"), Signal(y.shape())
        m.d.comb += [total.eq(y), joined.eq(y)]
        with m.If(self.control.partial):
            with m.If(self.adds):
                m.d.comb += total.eq(y + self.partial)
            m.d.comb += joined.eq(total[:32].as_signed() >> isa.PARTIAL_SHIFT)
        m.d.comb += self.partial_sum.eq(total)
        return joined

    def limited(self, m, y) -> Signal:
        """Step 4 (residual) and step 5: the sum within its range."""
        total = Signal(y.shape())
        with m.Switch(Cat(self.stages[4], self.control.residual)):
            with m.Case(0b11):
                m.d.comb += total.eq(saturate(y, *LIMITS[isa.Saturate.INT16]) + self.residual)
            with m.Case(0b01):
                m.d.comb += total.eq(y)
        limited = Signal(signed(VALUE_BITS))
        with m.Switch(Cat(self.stages[4], self.control.saturate, self.control.nibble)):
            for mode, (low, high) in LIMITS.items():
                with m.Case(f"0{mode.value:02b}1"):
                    m.d.comb += limited.eq(saturate(total, low, high))
            with m.Case(f"0{isa.Saturate.NONE.value:02b}1"):
                m.d.comb += limited.eq(total)
            with m.Case("1--1"):
                m.d.comb += limited.eq(saturate(total, *isa.NIBBLE_LIMITS))
        return limited


def saturate(value, low: int, high: int):
    """Clip a signed value to ``low .. high``."""
    return Mux(value < low, low, Mux(value > high, high, value))


def sign_extend(value, bits: int):
    """Two's complement ``value`` as an unsigned number of ``bits`` bits.

    The same wires as ``as_signed``, but text of one word operation, which simulators run faster than one per bit.
    """
    upper = (1 << bits) - (1 << len(value))
    return Mux(value[-1], upper, 0) | value.as_unsigned()
