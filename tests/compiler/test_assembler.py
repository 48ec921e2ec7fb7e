"""Encoding, disassembly and the trace of engine instructions."""

import numpy as np
import pytest

from phonolith.compiler.assembler import SEMAPHORES, Emitter, Reg
from phonolith.compiler.disassembler import count_instructions, disassemble, signed, trace
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Reduce, Source, Target

CONFIG = MachineConfig()


def words_of(emitter: Emitter) -> np.ndarray:
    """Return a program's words, with END."""
    emitter.end()
    return emitter.assemble(CONFIG)[0]


def test_one_semaphore_per_pair_of_engines():
    assert len(set(SEMAPHORES)) == isa.SEMAPHORES


def test_lines():
    emitter = Emitter()
    emitter.load(target=Target.WEIGHT, bank_per_word=True, address=4096, base=3, segment_bytes=100,
                 signal=("LOAD_ARRAY",))
    emitter.vector(rows=7, columns=20, source=Source.ZERO, multiplier=Multiplier.IMMEDIATE, factor=(-5, 9),
                   destination=Destination.SCRATCHPAD, reduce=Reduce.MAX, wait=("LOAD_VECTOR", "STORE_VECTOR"))
    lines = disassemble(words_of(emitter))
    assert lines[0] == f"0: configuration {CONFIG.hash_word:08x}"
    assert lines[1] == ("1: LOAD target=WEIGHT bank_per_word=1 address=4096 base=3 row_words=0 outer_count=1 "
                        "outer_stride=0 inner_count=1 inner_stride=0 segment_count=1 segment_stride=0 "
                        "segment_bytes=100 signal=LOAD_ARRAY")
    assert lines[2].startswith("13: VECTOR source=ZERO multiplier=IMMEDIATE saturate=NONE destination=SCRATCHPAD "
                               "reduce=MAX rows=7 columns=20 ")
    assert lines[2].endswith("factor.multiplier=-5 shift=9 parameter_base=0 wait=LOAD_VECTOR,STORE_VECTOR")
    assert lines[3] == "25: END"


def test_large_addresses_go_through_registers():
    emitter = Emitter()
    emitter.store(address=(1 << 26) - 1, base=0, pitch=1, row_bytes=1)
    emitter.store(address=1 << 26, base=0, pitch=1, row_bytes=1)
    emitter.store(address=0xFFFFFFF0, base=0, pitch=1, row_bytes=1, outer_stride=-(1 << 27))
    words = words_of(emitter)
    stores = trace(words)
    assert [s.operands["address"] for s in stores] == [(1 << 26) - 1, 1 << 26, 0xFFFFFFF0]
    assert signed(stores[2].operands["outer_stride"]) == -(1 << 27)
    assert count_instructions(words) == {"STORE": 3, "SET": 3, "END": 1}


def test_loop():
    """Sizes from an argument register; strides by ADD and SHIFT."""
    emitter = Emitter()
    emitter.set(5, 0)
    emitter.label("next")
    emitter.shift(6, Reg(5), 4)
    emitter.load(target=Target.ACTIVATION, address=Reg(6, 100), inner_count=Reg(1), segment_bytes=8)
    emitter.add(5, Reg(5), 1)
    emitter.branch_less(Reg(5), Reg(2), "next")
    emitter.branch_equal(Reg(1), 7, "over")
    emitter.load(target=Target.WEIGHT, address=0, segment_bytes=8)
    emitter.label("over")
    words = words_of(emitter)
    assert [i.operands["address"] for i in trace(words, (7, 3))] == [100, 116, 132]
    assert trace(words, (7, 3))[0].operands["inner_count"] == 7
    assert len(trace(words, (8, 3))) == 4


def test_right_shift_is_arithmetic():
    emitter = Emitter()
    emitter.set(5, -64)
    emitter.shift(6, Reg(5), -4)
    emitter.load(target=Target.ACTIVATION, address=Reg(6, 10), segment_bytes=8)
    assert trace(words_of(emitter))[0].operands["address"] == 6


def test_mistakes():
    emitter = Emitter()
    emitter.branch_less(0, 1, "nowhere")
    with pytest.raises(ValueError, match="unknown label 'nowhere'"):
        words_of(emitter)
    with pytest.raises(ValueError, match="epsilon"):
        isa.pack(isa.FACTOR, epsilon=1)
    with pytest.raises(ValueError, match="shift must fit 6 bits"):
        Emitter().vector(rows=1, columns=1, source=Source.ZERO, factor=(1, 64))
    with pytest.raises(ValueError, match="unknown opcode"):
        disassemble(np.array([0, 63], np.uint32))
