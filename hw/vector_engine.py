"""The vector engine: C lanes behind the array, one row per cycle, and the row functions."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.layouts import (
    ADDRESS_BITS,
    BankReadSignature,
    DrainSignature,
    EngineStatusSignature,
    WriteSignature,
    instruction_stream,
    operands_layout,
    packed_layout,
)
from phonolith.hw.row_registers import RowReduction, RowRegisters
from phonolith.hw.row_unit import RowUnit
from phonolith.hw.scratchpad import QUARTERS
from phonolith.hw.sram import Sram
from phonolith.hw.vector_issue import VectorIssue, beat_layout
from phonolith.hw.vector_lane import VectorLane

ELEMENT_STAGE = 0
RESIDUAL_STAGE = 3
PARTIAL_STAGE = 3
TABLE_STAGE = 4
WRITE_STAGE = 5
REDUCE_STAGE = 7


def table_write_layout(config: MachineConfig) -> data.StructLayout:
    """WB bytes for the tables: byte k of ``data`` becomes entry ``entry + k``; entries beyond 255 are dropped."""
    return data.StructLayout({"entry": 8, "data": 8 * config.word_bytes})


class VectorEngine(wiring.Component):
    """VECTOR and ROWOP of ``docs/isa.md``.

    VECTOR takes one row of C lanes per cycle. Latency: an instruction accepted in cycle a puts its first row into
    stage 0 in cycle a + 1 (source DRAIN: as soon as ``drain.valid``). A row in stage 0 in cycle t is written in cycle
    t + 5; its reduction is in the row register from cycle t + 8 on. ``status.done`` pulses in the cycle of the last
    write: t + 5, or t + 7 with a reduction; the next instruction may be accepted in that same cycle. So B rows take
    B + 5 (B + 7) cycles per instruction when nothing waits, and an empty instruction 1. A VECTOR that takes tiles as
    the one before it does (:meth:`follows`) is accepted as soon as that one's last row is in stage 0: B cycles. ROWOP
    takes :func:`phonolith.hw.row_unit.row_cycles`.

    Partial sums of a row are read one cycle before they are written. So the rows of a tile must enter two cycles or
    more after those of the tile before it, even if a tile has one row only; the array leaves max(R, C).

    ===== ==========================================================================================
    stage work of the row in it (registers of the lanes and all reads belong to :class:`VectorLane`)
    ===== ==========================================================================================
    0     address of source and parameters, drain row; residual operand read as multiplier (ELEMENT)
    1     row registers read
    3     residual operand read as residual; partial sum of the block before read
    4     partial sum of the block written; of a last block, the row goes on
    5     scratchpad or activation written; reduction of groups of lanes
    6     reduction of groups
    7     row register updated
    ===== ==========================================================================================

    Parameters
    ----------
    config : MachineConfig

    Members
    -------
    instruction_vector, instruction_row : In(stream)
        Operands of VECTOR and ROWOP; at most one ``valid`` at a time.
    status : Out(EngineStatusSignature)
    drain : In(DrainSignature)
    source_read, residual_read : Out(BankReadSignature(16 * C))
        Scratchpad; data are used in the cycle after ``enable`` only.
    parameter_read : Out(BankReadSignature(64 * C))
        Data must stay until the next read.
    scratch_write : Out(WriteSignature(16 * C, 4))
        Always accepted; a granule is a quarter of a word.
    activation_write : Out(WriteSignature(8 * WB, WB / C)), activation_bank : Out
        Always accepted.
    table_write : In(stream(table_write_layout))
        Takes WB cycles per transfer, one byte each.
    clock_enable : Out(1)
        See :mod:`phonolith.hw.clock_enable`; low while the next row waits for the drain, too.
    """

    def __init__(self, *, config: MachineConfig):
        self.config = config
        self.registers = RowRegisters(config=config)
        columns, word_bytes = config.columns, config.word_bytes
        super().__init__({
            "instruction_vector": In(instruction_stream(isa.BY_MNEMONIC["VECTOR"])),
            "instruction_row": In(instruction_stream(isa.BY_MNEMONIC["ROWOP"])),
            "status": Out(EngineStatusSignature()),
            "drain": In(DrainSignature(config)),
            "source_read": Out(BankReadSignature(16 * columns)),
            "residual_read": Out(BankReadSignature(16 * columns)),
            "parameter_read": Out(BankReadSignature(64 * columns)),
            "scratch_write": Out(WriteSignature(16 * columns, QUARTERS)),
            "activation_write": Out(WriteSignature(8 * word_bytes, word_bytes // columns)),
            "activation_bank": Out(range(config.rows)),
            "table_write": In(stream.Signature(table_write_layout(config))),
            "clock_enable": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        control = Signal(packed_layout(isa.VECTOR_CONTROL), reset_less=True)
        factor = Signal(packed_layout(isa.FACTOR), reset_less=True)
        m.submodules.issue = issue = VectorIssue(config=self.config)
        m.submodules.registers = registers = self.registers
        m.submodules.row_unit = row_unit = RowUnit(config=self.config)
        stages, beats = self.pipeline(m, control, issue)
        lanes = self.lanes(m, control, stages, beats, issue)
        self.accept(m, control, factor, issue, row_unit)
        self.finish(m, control, stages, beats, issue, row_unit)
        self.read_memories(m, control, issue, stages, beats)
        self.share_row(m, control, factor, beats, registers, lanes)
        self.write_memories(m, control, stages, beats, lanes)
        self.reduce(m, control, stages, beats, registers, lanes)
        self.connect_row_unit(m, registers, row_unit)
        self.write_tables(m, lanes)
        return m

    def pipeline(self, m, control, issue) -> tuple[Signal, list]:
        """Move rows through the stages: bit k of the first result says that stage k holds beat k of the second.

        Rows leave after the write stage unless they are reduced, and before it unless they belong to the last block.
        """
        self.held = held = Signal(REDUCE_STAGE, name="held")
        stages = Cat(issue.valid, held)
        m.d.sync += held.eq(stages)
        with m.If(control.reduce == isa.Reduce.NONE):
            m.d.sync += held[WRITE_STAGE].eq(0)
        beats = [issue.beat]
        for stage in range(1, REDUCE_STAGE + 1):
            beat = Signal(beat_layout(self.config), name=f"beat_{stage}", reset_less=True)
            with m.If(stages[stage - 1]):
                m.d.sync += beat.eq(beats[-1])
            beats.append(beat)
        with m.If(~beats[TABLE_STAGE].ends):
            m.d.sync += held[TABLE_STAGE].eq(0)
        return stages, beats

    def lanes(self, m, control, stages, beats, issue) -> list[VectorLane]:
        """Build the lanes and connect what differs between them."""
        columns, lanes = self.config.columns, []
        active = Mux(beats[WRITE_STAGE].tail, issue.tail_mask, ~0)
        m.submodules.partial_sums = partial = Sram(data_bits=32 * columns, depth=self.config.rows)
        for index in range(columns):
            m.submodules[f"lane_{index}"] = lane = VectorLane()
            parameter = self.parameter_read.data.word_select(index, 64)
            m.d.comb += [
                lane.control.eq(control),
                lane.stages.eq(stages),
                lane.accumulator.eq(self.drain.data[index]),
                lane.word.eq(self.source_read.data.word_select(index, 16)),
                lane.low_byte.eq(self.source_read.data.word_select(index, 8)),
                lane.high_byte.eq(self.source_read.data.word_select(columns + index, 8)),
                lane.half.eq(beats[1].quarter[0]),
                lane.bias.eq(parameter[:32]),
                lane.multiplier.eq(parameter[32:32 + isa.MULTIPLIER_BITS]),
                lane.shift.eq(parameter[32 + isa.MULTIPLIER_BITS:32 + isa.MULTIPLIER_BITS + isa.SHIFT_BITS]),
                lane.row_sum.eq(self.drain.row_sum),
                lane.zero.eq(parameter[64 - isa.ZERO_BITS:]),
                lane.adds.eq(beats[TABLE_STAGE].adds),
                lane.ends.eq(beats[TABLE_STAGE].ends),
                lane.partial.eq(partial.read.data.word_select(index, 32)),
                lane.residual.eq(self.residual_read.data.word_select(index, 16)),
                lane.active.eq(active[index]),
            ]
            lanes.append(lane)
        m.d.comb += [
            partial.read.enable.eq(stages[PARTIAL_STAGE] & control.partial & beats[PARTIAL_STAGE].adds),
            partial.read.address.eq(beats[PARTIAL_STAGE].row),
            partial.write.enable.eq(stages[TABLE_STAGE] & ~beats[TABLE_STAGE].ends),
            partial.write.address.eq(beats[TABLE_STAGE].row),
            partial.write.data.eq(Cat(lane.partial_sum for lane in lanes)),
        ]
        return lanes

    def accept(self, m, control, factor, issue, row_unit):
        """Take the next instruction when there is none, in the last cycle of the previous one, or right behind it."""
        vector, row = self.instruction_vector, self.instruction_row
        pending = Signal(range(WRITE_STAGE + 2))    # instructions whose last row is not written
        starts = row.valid & row.ready
        columns, is_vector = Signal(32, reset_less=True), Signal(reset_less=True)
        ready, chained = Signal(), Signal()
        m.d.comb += [
            ready.eq((pending == 0) | ((pending == 1) & self.status.done)),
            chained.eq(vector.valid & (pending != 0) & is_vector & self.follows(control, factor, columns)),
            self.status.busy.eq(pending != 0),
            vector.ready.eq(ready | (chained & issue.free)),
            row.ready.eq(ready),
            issue.load.eq(vector.valid & vector.ready),
            issue.operands.eq(vector.payload),
            issue.control.eq(control),
            issue.chained.eq(chained),
            row_unit.valid.eq(row.valid),
            row_unit.ready.eq(row.ready),
            self.clock_enable.eq(self.held.any() | issue.busy | row_unit.busy | self.table_write.valid
                                 | (((pending == 0) | ~issue.running) & (vector.valid | row.valid))),
        ]
        m.d.sync += pending.eq(pending + (issue.load | starts) - self.status.done)
        with m.If(issue.load):
            m.d.sync += [control.eq(vector.payload.control), factor.eq(vector.payload.factor),
                         columns.eq(vector.payload.columns), is_vector.eq(1)]
        with m.If(starts):
            m.d.sync += is_vector.eq(0)

    def follows(self, control, factor, columns):
        """Whether the VECTOR at hand may enter the pipeline behind another that is still in it.

        Both take tiles from the drain with the same settings, so that no stage sees a change, and neither reads what
        the other may still write: no residual operand, no reduction.
        """
        new = self.instruction_vector.payload
        same = (new.control == control.as_value()) & (new.factor == factor.as_value()) & (new.columns == columns)
        alone = (control.source == isa.Source.DRAIN) & ~control.residual & (
            control.multiplier != isa.Multiplier.ELEMENT) & (control.reduce == isa.Reduce.NONE)
        return same & alone & (new.rows[:ADDRESS_BITS] != 0) & (new.columns[:ADDRESS_BITS] != 0)

    def finish(self, m, control, stages, beats, issue, row_unit):
        """Say when the instruction in progress is done, and whether it waits for the array."""
        written = stages[WRITE_STAGE] & beats[WRITE_STAGE].final & (control.reduce == isa.Reduce.NONE)
        last = written | (stages[REDUCE_STAGE] & beats[REDUCE_STAGE].final)
        m.d.comb += [
            self.status.done.eq(last | issue.empty | row_unit.done),
            self.status.stalled_drain.eq(issue.waiting),
        ]

    def read_memories(self, m, control, issue, stages, beats):
        """Drive the drain and the read ports that follow the pipeline."""
        from_drain = control.source == isa.Source.DRAIN
        needs_parameters = ((control.pre == isa.Pre.BIAS) | control.post_bias | control.row_sum
                            | (control.multiplier == isa.Multiplier.COLUMN))
        element = control.multiplier == isa.Multiplier.ELEMENT
        m.d.comb += [
            issue.drain_valid.eq(self.drain.valid),
            self.drain.start.eq(issue.drain_start),
            self.drain.soon.eq(issue.drain_soon),
            self.drain.row.eq(Mux(from_drain, issue.beat.row, 0)),
            self.source_read.enable.eq(issue.valid & (control.source == isa.Source.SCRATCHPAD)),
            self.source_read.address.eq(issue.source),
            self.parameter_read.enable.eq(issue.chunk_start & needs_parameters),
            self.parameter_read.address.eq(issue.parameter),
            self.residual_read.enable.eq(Mux(element, stages[ELEMENT_STAGE],
                                             stages[RESIDUAL_STAGE] & control.residual & beats[RESIDUAL_STAGE].ends)),
            self.residual_read.address.eq(Mux(element, beats[ELEMENT_STAGE].residual,
                                              beats[RESIDUAL_STAGE].residual)),
        ]

    def share_row(self, m, control, factor, beats, registers, lanes):
        """Give every lane the addend and the factor that belong to the row, or to the instruction."""
        addend, shared = Signal(signed(32)), Signal(packed_layout(isa.FACTOR))
        m.d.comb += [registers.left_register.eq(control.row_register), registers.left_row.eq(beats[1].row),
                     registers.right_register.eq(control.factor_register), registers.right_row.eq(beats[1].row)]
        with m.Switch(control.pre):
            with m.Case(isa.Pre.MINUS_ROW):
                m.d.comb += addend.eq(-registers.left)
            with m.Case(isa.Pre.MINUS_INDEX):
                m.d.comb += addend.eq(registers.left[:16] - 65535)
        with m.Switch(control.multiplier):
            with m.Case(isa.Multiplier.ONE):
                m.d.comb += shared.multiplier.eq(1)
            with m.Case(isa.Multiplier.ROW):
                m.d.comb += shared.eq(registers.right)
            with m.Case(isa.Multiplier.IMMEDIATE, isa.Multiplier.ELEMENT):
                m.d.comb += shared.eq(factor)
        for lane in lanes:
            m.d.comb += [lane.addend.eq(addend), lane.factor.eq(shared)]

    def write_memories(self, m, control, stages, beats, lanes):
        """Write the row in the write stage; the data lines of the other memory stay zero."""
        beat, values = beats[WRITE_STAGE], [lane.value for lane in lanes]
        words, octets = Cat(v[:16] for v in values), Cat(v[:8] for v in values)
        half = beat.quarter[0]
        granules = self.config.word_bytes // self.config.columns
        with m.If(stages[WRITE_STAGE] & (control.destination == isa.Destination.SCRATCHPAD)):
            m.d.comb += self.scratch_write.address.eq(beat.destination)
            with m.Switch(Cat(control.destination_byte, control.nibble)):
                with m.Case(0b00):
                    m.d.comb += [self.scratch_write.enable.eq(0b1111), self.scratch_write.data.eq(words)]
                with m.Case(0b01):
                    m.d.comb += [self.scratch_write.enable.eq(Mux(half, 0b1100, 0b0011)),
                                 self.scratch_write.data.eq(octets.replicate(2))]
                with m.Case(0b10):
                    pairs = self.row_pairs(m, stages, beat, values)
                    m.d.comb += [self.scratch_write.enable.eq(Mux(half, 0b1100, 0b0011)),
                                 self.scratch_write.data.eq(pairs.replicate(2))]
                with m.Case(0b11):
                    nibbles = Cat(v[:4] for v in values)
                    m.d.comb += [self.scratch_write.enable.eq(1 << beat.quarter),
                                 self.scratch_write.data.eq(nibbles.replicate(4))]
        with m.If(stages[WRITE_STAGE] & (control.destination == isa.Destination.ACTIVATION)):
            m.d.comb += [
                self.activation_write.enable.eq(Mux(half, 0b10, 0b01) if granules == 2 else 1),
                self.activation_write.address.eq(beat.destination),
                self.activation_write.data.eq(octets.replicate(granules)),
                self.activation_bank.eq(beat.row),
            ]

    def row_pairs(self, m, stages, beat, values):
        """Return bytes whose low nibbles belong to an even row and whose high ones, to the odd row behind it.

        An even row has zeros above it, which the odd one, if it comes, replaces.
        """
        even = Signal(4 * self.config.columns, reset_less=True)
        odd = beat.row[0]
        with m.If(stages[WRITE_STAGE]):
            m.d.sync += even.eq(Cat(v[:4] for v in values))
        return Cat(Cat(Mux(odd, even.word_select(lane, 4), value[:4]), Mux(odd, value[:4], 0))
                   for lane, value in enumerate(values))

    def reduce(self, m, control, stages, beats, registers, lanes):
        """Reduce the row in the write stage and update its row register two cycles later."""
        m.submodules.reduction = reduction = RowReduction(config=self.config)
        beat = beats[REDUCE_STAGE]
        m.d.comb += [
            reduction.reduce.eq(control.reduce),
            reduction.stages.eq(stages[WRITE_STAGE:REDUCE_STAGE]),
            reduction.active.eq(Cat(lane.active for lane in lanes)),
            reduction.index.eq(beats[WRITE_STAGE].index),
            *(value.eq(lane.value) for value, lane in zip(reduction.values, lanes, strict=True)),
            registers.write.eq(stages[REDUCE_STAGE]),
            registers.write_register.eq(control.reduce_register),
            registers.write_row.eq(beat.row),
            registers.reduce.eq(control.reduce),
            registers.reduce_first.eq(beat.first),
            registers.total.eq(reduction.total),
        ]

    def connect_row_unit(self, m, registers, row_unit):
        """Hold the operands of ROWOP; while it works, the row registers are its own."""
        held = Signal(operands_layout(isa.BY_MNEMONIC["ROWOP"]), reset_less=True)
        control = data.View(packed_layout(isa.ROWOP_CONTROL), held.control[:5])
        working = Signal()
        with m.If(row_unit.valid & row_unit.ready):
            m.d.sync += [held.eq(self.instruction_row.payload), working.eq(1)]
        with m.Elif(row_unit.done):
            m.d.sync += working.eq(0)
        m.d.comb += [
            row_unit.function.eq(control.function),
            row_unit.rows.eq(held.rows),
            row_unit.epsilon.eq(held.epsilon),
            row_unit.factor.eq(held.factor),
            row_unit.value.eq(registers.left),
        ]
        with m.If(working):
            m.d.comb += [
                registers.left_register.eq(control.source_register),
                registers.left_row.eq(row_unit.read_row),
                registers.write.eq(row_unit.write),
                registers.write_register.eq(control.destination_register),
                registers.write_row.eq(row_unit.write_row),
                registers.reduce.eq(isa.Reduce.NONE),
                registers.total.eq(row_unit.result),
            ]

    def write_tables(self, m, lanes):
        """Give every lane a table and write them all, one byte per cycle."""
        port, config = self.table_write, self.config
        place = Signal(range(config.word_bytes))
        byte = Signal(8)
        last = place == config.word_bytes - 1
        m.d.comb += port.ready.eq(last)
        with m.If(port.valid):
            m.d.sync += place.eq(Mux(last, 0, place + 1))
            with m.Switch(place):
                for index in range(config.word_bytes):
                    with m.Case(index):
                        m.d.comb += byte.eq(port.payload.data.word_select(index, 8))
        for index, lane in enumerate(lanes):
            m.submodules[f"table_{index}"] = table = Sram(data_bits=8, depth=256)
            m.d.comb += [
                table.write.enable.eq(port.valid),
                table.write.address.eq(port.payload.entry + place),
                table.write.data.eq(byte),
                table.read.enable.eq(lane.stages[TABLE_STAGE] & lane.control.table & lane.ends),
                table.read.address.eq(lane.table_index),
                lane.table_entry.eq(table.read.data),
            ]
