"""What the instruction-set simulator refuses, and its sequencer; tests/compiler compares the engines with numpy."""

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter, Reg
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Destination, Multiplier, Saturate, Source, Target
from phonolith.sim.iss import Machine, run

CONFIG = MachineConfig(rows=8, columns=8)
DRAM = np.arange(4096, dtype=np.uint32).astype(np.uint8)


def program(emit: Emitter) -> np.ndarray:
    return emit.assemble(CONFIG)[0]


def refuse(emit: Emitter, message: str, dram: np.ndarray = DRAM) -> None:
    with pytest.raises(PhonolithError, match=message) as caught:
        run(program(emit), dram, CONFIG)
    assert caught.value.kind == "illegal-program"


def matmul(emit: Emitter, **operands) -> None:
    emit.matmul(**{"a_base": 0, "w_base": 0, "k": 4} | operands)


def test_registers_loops_and_arguments():
    emit = Emitter()
    emit.set(5, 0)
    emit.shift(6, Reg(1), 2)
    emit.label("loop")
    emit.add(5, Reg(5), 1)
    emit.add(6, Reg(6), -3)
    emit.branch_less(Reg(5), 4, "loop")
    emit.add(0, 9, 9)
    emit.end()
    machine = Machine(program(emit), DRAM.copy(), CONFIG, args=(10,))
    assert machine.run() == 16
    assert (machine.state.registers[0], machine.state.registers[5], machine.state.registers[6]) == (0, 4, 28)


def test_waiting_for_what_nobody_signals_is_a_deadlock():
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=4, wait=("ARRAY_LOAD",))
    refuse(emit, "at word 1: waits for semaphore .* deadlock")


def test_a_semaphore_serves_one_queue():
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=4, signal=("LOAD_ARRAY",))
    emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=4, signal=("LOAD_ARRAY",))
    matmul(emit, wait=("LOAD_ARRAY",))
    emit.store(address=0, base=0, pitch=1, row_bytes=4, wait=("LOAD_ARRAY",))
    refuse(emit, "waited for by STORE and ARRAY")


def test_tiles_must_be_drained():
    emit = Emitter()
    matmul(emit)
    emit.end()
    refuse(emit, "END with 1 finished tiles")


def test_a_drain_needs_a_tile():
    emit = Emitter()
    emit.vector(rows=8, columns=9, source=Source.DRAIN)
    refuse(emit, "drains 2 tiles but only 0")


def test_too_many_undrained_products():
    emit = Emitter()
    for _ in range(9):
        matmul(emit)
    refuse(emit, "8 MATMULs are not drained")


@pytest.mark.parametrize(("build", "message"), [
    (lambda e: e.load(target=Target.SCRATCHPAD, address=4090, segment_bytes=8), "DRAM bytes 4090..4097"),
    (lambda e: e.load(target=Target.ACTIVATION, address=0, base=10_000, segment_bytes=8), "operand bank bytes"),
    (lambda e: e.load(target=Target.WEIGHT, address=0, segment_bytes=40, transpose=True), "transposing LOAD"),
    (lambda e: e.load(target=Target.WEIGHT, address=0, segment_bytes=8, window=2), "all activation banks"),
    (lambda e: e.load(target=Target.ACTIVATION, address=0, segment_bytes=8, window=2, bank_per_word=True),
     "all activation banks"),
    (lambda e: e.store(address=0, base=1 << 20, pitch=1, row_bytes=4), "scratchpad bytes"),
    (lambda e: matmul(e, k=0), "k of at least 1"),
    (lambda e: matmul(e, bits=2, band=True), "a band has weights of 8 bits"),
    (lambda e: e.vector(rows=1, columns=1, source=Source.ZERO, blocks=1), "partial sums of tiles from the drain only"),
    (lambda e: matmul(e, a_base=1 << 16), "beyond the end of the a banks"),
    (lambda e: e.shift(1, 1, 32), "SHIFT by 32"),
    (lambda e: e.vector(rows=1, columns=1, source=Source.SCRATCHPAD, residual=True, residual_base=1,
                        saturate=Saturate.INT16, destination=Destination.NONE), "source and residual"),
    (lambda e: e.vector(rows=1, columns=1, source=Source.SCRATCHPAD, multiplier=Multiplier.ELEMENT, residual_base=1),
     "source and residual"),
    (lambda e: e.vector(rows=1, columns=1, source=Source.ZERO, multiplier=Multiplier.ELEMENT, residual=True),
     "no residual besides"),
])
def test_what_hardware_could_not_do(build, message):
    emit = Emitter()
    build(emit)
    refuse(emit, message)


def test_a_program_that_runs_off_its_end():
    emit = Emitter()
    emit.set(1, 1)
    refuse(emit, "no word 4")
