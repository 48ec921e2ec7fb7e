"""ROWOP: reciprocal and inverse square root of row registers, several rows at a time."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import packed_layout

STEPS_PER_CYCLE = 2
QUOTIENT_BITS = 16
ROOT_BITS = 24
DIVISOR_BITS = 32
REMAINDER_BITS = 34
ROW_COUNT_BITS = 16
DIVIDE_CYCLES = QUOTIENT_BITS // STEPS_PER_CYCLE
ROOT_CYCLES = ROOT_BITS // STEPS_PER_CYCLE


def operand_layout(config: MachineConfig) -> data.StructLayout:
    """A normalised operand.

    value
        Shifted left until its top bit is set (reciprocal), or one of its top two bits (inverse square root).
    shift
        Shift of the result.
    row
        Row register it came from.
    """
    return data.StructLayout({"value": isa.ROW_BITS, "shift": isa.SHIFT_BITS, "row": range(config.rows)})


def work_cycles(function: isa.RowFunction) -> int:
    """Cycles that one serial unit computes one row."""
    return DIVIDE_CYCLES + (ROOT_CYCLES if function == isa.RowFunction.INVERSE_SQRT else 0)


def row_cycles(config: MachineConfig, function: isa.RowFunction, rows: int) -> int:
    """Cycles from the one that accepts a ROWOP of 1..R rows to the one that writes its last result."""
    units = unit_count(config)
    groups, rest = divmod(rows - 1, units)
    return groups * max(units, work_cycles(function) + 1) + rest + work_cycles(function) + 3


def unit_count(config: MachineConfig) -> int:
    """Serial units built: more than there are rows would never work."""
    return min(config.row_units, config.rows)


class SerialUnit(wiring.Component):
    """``(numerator << 31) // divisor`` of one row, bit by bit; for INVERSE_SQRT the divisor is ``isqrt(value) << 8``.

    Two bits per cycle, by trial subtraction from one remainder that root and quotient share. Latency: the result is
    valid in the cycle with ``done``, 9 cycles (RECIPROCAL) or 21 cycles (INVERSE_SQRT) after the one with ``load``,
    in which the next operand may be loaded already.

    Members
    -------
    load : In(1), operand : In(operand_layout)
        Start with this operand; RECIPROCAL uses its top 32 bits, which are at least 2^31.
    function : In(1), numerator : In(16)
        Stable while working.
    done : Out(1)
        ``result`` is valid, in this cycle.
    busy : Out(1)
        Working, or done.
    row, result : Out
        Row register and row factor, packed like FACTOR.
    """

    def __init__(self, *, config: MachineConfig):
        super().__init__({
            "load": In(1), "operand": In(operand_layout(config)), "function": In(1), "numerator": In(QUOTIENT_BITS),
            "done": Out(1), "busy": Out(1), "row": Out(range(config.rows)), "result": Out(isa.ROW_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        rooting = Signal()
        dividing = Signal()
        done = Signal()
        count = Signal(range(ROOT_CYCLES), reset_less=True)
        operand = Signal.like(self.operand, reset_less=True)    # value: radicand, then divisor
        remainder = Signal(REMAINDER_BITS, reset_less=True)
        result = Signal(ROOT_BITS, reset_less=True)             # root, then quotient
        m.d.comb += [self.done.eq(done), self.busy.eq(rooting | dividing | done), self.row.eq(operand.row),
                     self.result.eq(Cat(result[:isa.MULTIPLIER_BITS], operand.shift))]
        m.d.sync += done.eq(dividing & (count == 0))
        with m.If(rooting):
            m.d.sync += count.eq(count - 1)
            root = self.root_steps(m, operand.value, remainder, result)
            with m.If(count == 0):
                m.d.sync += [
                    rooting.eq(0), dividing.eq(1), count.eq(DIVIDE_CYCLES - 1), operand.value.eq(root << ROOT_BITS),
                    remainder.eq(self.first_remainder()), result.eq(0),
                ]
        with m.Elif(dividing):
            m.d.sync += count.eq(count - 1)
            self.divide_steps(m, operand.value[isa.ROW_BITS - DIVISOR_BITS:], remainder, result)
            with m.If(count == 0):
                m.d.sync += dividing.eq(0)
        with m.If(self.load):
            has_root = self.function == isa.RowFunction.INVERSE_SQRT
            m.d.sync += [
                operand.eq(self.operand), rooting.eq(has_root), dividing.eq(~has_root), result.eq(0),
                remainder.eq(Mux(has_root, 0, self.first_remainder())),
                count.eq(Mux(has_root, ROOT_CYCLES - 1, DIVIDE_CYCLES - 1)),
            ]
        return m

    def first_remainder(self):
        """The numerator's part above the 16 quotient bits: below any divisor."""
        return Cat(Const(0, 31 - QUOTIENT_BITS), self.numerator)

    def root_steps(self, m, radicand, remainder, root) -> Signal:
        """Take two bits of the radicand per step, subtract ``4 * root + 1`` where it goes; return the new root."""
        rest, bits = remainder, root
        for step in range(STEPS_PER_CYCLE):
            low = isa.ROW_BITS - 2 * (step + 1)
            rest, bit = subtract(m, Cat(radicand[low:low + 2], rest[:ROOT_BITS + 2]), Cat(Const(1, 2), bits))
            bits = Cat(bit, bits[:ROOT_BITS - 1])
        m.d.sync += [remainder.eq(rest), root.eq(bits), radicand.eq(radicand << 2 * STEPS_PER_CYCLE)]
        return bits

    def divide_steps(self, m, divisor, remainder, quotient):
        """One quotient bit per step: double the remainder, subtract the divisor where it goes."""
        rest, bits = remainder, quotient
        for _ in range(STEPS_PER_CYCLE):
            rest, bit = subtract(m, Cat(Const(0, 1), rest[:DIVISOR_BITS]), divisor)
            bits = Cat(bit, bits[:ROOT_BITS - 1])
        m.d.sync += [remainder.eq(rest), quotient.eq(bits)]


class RowUnit(wiring.Component):
    """Computes ROWOP for rows 0 .. min(rows, R) - 1.

    One row per cycle is read, normalised (one shared shifter) and handed to the next serial unit; all units start
    over together when the first is free again. Latency: :func:`row_cycles`, from the start to ``done``.

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    valid, ready : In(1)
        Both high: start, in the next cycle; the other inputs are stable from then to ``done``.
    function : In(1), rows : In(16), epsilon : In(32), factor : In(packed_layout(ROWOP_FACTOR))
        Of the instruction.
    read_row : Out, value : In(48)
        Source row register, read combinationally.
    write : Out(1), write_row : Out, result : Out(48)
        Destination row register.
    done : Out(1)
        The last result is written in this cycle; with ``rows`` 0, the cycle after the start.
    busy, clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        super().__init__({
            "valid": In(1), "ready": In(1), "function": In(1), "rows": In(ROW_COUNT_BITS), "epsilon": In(32),
            "factor": In(packed_layout(isa.ROWOP_FACTOR)), "read_row": Out(range(config.rows)),
            "value": In(isa.ROW_BITS), "write": Out(1), "write_row": Out(range(config.rows)),
            "result": Out(isa.ROW_BITS), "done": Out(1), "busy": Out(1), "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        units = unit_count(self.config)
        reading = Signal()
        normalising = Signal()
        phase = Signal(range(self.period(isa.RowFunction.INVERSE_SQRT)), reset_less=True)
        row = Signal(range(self.config.rows), reset_less=True)
        operand = Signal(operand_layout(self.config), reset_less=True)
        unit = Signal(range(units), reset_less=True)
        empty = reading & (self.rows == 0)
        issue = reading & ~empty & (phase < units)
        m.d.comb += [self.read_row.eq(row), self.done.eq(empty | (self.write & self.is_last(self.write_row)))]
        m.d.sync += normalising.eq(issue)
        with m.If(self.valid & self.ready):
            m.d.sync += [reading.eq(1), phase.eq(0), row.eq(0)]
        with m.Elif(reading):
            m.d.sync += phase.eq(Mux(phase == self.last_phase(), 0, phase + 1))
            with m.If(empty):
                m.d.sync += reading.eq(0)
            with m.If(issue):
                m.d.sync += [operand.value.eq(self.value + self.epsilon), operand.row.eq(row), unit.eq(phase),
                             row.eq(row + 1), reading.eq(~self.is_last(row))]
        normalised = Signal.like(operand)
        with m.If(normalising):
            self.normalise(m, operand, normalised)
        units = self.connect_units(m, normalising, unit, normalised)
        m.d.comb += [self.busy.eq(reading | normalising | Cat(unit.busy for unit in units).any()),
                     self.clock_enable.eq(self.busy | self.valid)]
        return m

    def is_last(self, row):
        """Whether ``row`` is the last one to compute."""
        return (row == self.config.rows - 1) | (row + 1 == self.rows)

    def period(self, function: isa.RowFunction) -> int:
        """Cycles from one start of unit 0 to the next."""
        return max(unit_count(self.config), work_cycles(function) + 1)

    def last_phase(self):
        """The period less one, of the function in progress."""
        return Mux(self.function == isa.RowFunction.INVERSE_SQRT, self.period(isa.RowFunction.INVERSE_SQRT) - 1,
                   self.period(isa.RowFunction.RECIPROCAL) - 1)

    def normalise(self, m, operand, normalised):
        """Shift left to the top, by an even number of places for the root; count the places."""
        has_root = self.function == isa.RowFunction.INVERSE_SQRT
        value = Mux(has_root, operand.value, Cat(Const(0, isa.ROW_BITS - 32), operand.value[:32]))
        least = Mux(has_root, 1, 1 << isa.ROW_BITS - 32)
        current = Signal(isa.ROW_BITS, name="normalise_start")
        m.d.comb += current.eq(Mux(value == 0, least, value))
        places = []
        for log2 in reversed(range(isa.SHIFT_BITS)):
            moves = Signal(name=f"moves_{1 << log2}")
            shifted = Signal(isa.ROW_BITS, name=f"shifted_{1 << log2}")
            m.d.comb += [
                moves.eq((current[isa.ROW_BITS - (1 << log2):] == 0) & ~(has_root & (log2 == 0))),
                shifted.eq(Mux(moves, current << (1 << log2), current)),
            ]
            current, places = shifted, [moves, *places]
        left = Mux(has_root, Cat(*places[1:]), Cat(*places))
        shift = self.factor.shift - left
        m.d.comb += [
            normalised.value.eq(current),
            normalised.shift.eq(Mux(shift < 0, 0, Mux(shift > isa.MAX_SHIFT, isa.MAX_SHIFT, shift))),
            normalised.row.eq(operand.row),
        ]

    def connect_units(self, m, load, selected, normalised) -> list[SerialUnit]:
        """Build the units, hand the operand to the selected one and write the result of the one that is done."""
        units = [SerialUnit(config=self.config) for _ in range(unit_count(self.config))]
        for index, unit in enumerate(units):
            m.submodules[f"unit_{index}"] = unit
            m.d.comb += [unit.load.eq(load & (selected == index)), unit.operand.eq(normalised),
                         unit.function.eq(self.function), unit.numerator.eq(self.factor.numerator)]
            with m.If(unit.done):
                m.d.comb += [self.write.eq(1), self.write_row.eq(unit.row), self.result.eq(unit.result)]
        return units


def subtract(m, left, right) -> tuple[Signal, Signal]:
    """Return (``left - right`` or ``left``, whether it went)."""
    difference = Signal((left - right).shape())
    fits, rest = Signal(), Signal(REMAINDER_BITS)
    m.d.comb += [difference.eq(left - right), fits.eq(~difference[-1]), rest.eq(Mux(fits, difference, left))]
    return rest, fits
