"""Footprints against the instruction-set simulator: no instruction touches a word outside its footprint."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phonolith.compiler.assembler import Emitter
from phonolith.compiler.disassembler import Resolved, trace
from phonolith.compiler.footprint import Access, Memory, accesses
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Pre, Source, Target, Width
from phonolith.sim.iss import Machine

MACHINES = (MachineConfig(rows=4, columns=4, bus_bits=64), MachineConfig(rows=5, columns=8),
            MachineConfig(rows=12, columns=20, bus_bits=256))
DRAM = 1 << 14
count = st.integers(0, 6)


@st.composite
def instructions(draw) -> tuple[Emitter, MachineConfig]:
    """One instruction, with MATMUL followed by the VECTOR that drains it, for a machine."""
    emitter, config = Emitter(), draw(st.sampled_from(MACHINES))
    kind = draw(st.sampled_from(["load", "flat", "vector", "drain", "store"]))
    if kind == "load":
        transpose, target = draw(st.booleans()), draw(st.sampled_from([Target.ACTIVATION, Target.WEIGHT]))
        pattern = {"bank_per_word": draw(st.booleans()), "one_bank": draw(st.booleans())}
        if target == Target.ACTIVATION and draw(st.booleans()):
            pattern = {"window": draw(st.integers(1, 4))}
        emitter.load(
            target=target, address=5000, base=draw(count),
            row_words=draw(count), outer_count=draw(count), outer_stride=draw(st.integers(-400, 400)),
            inner_count=draw(count), inner_stride=draw(st.integers(-100, 100)), transpose=transpose,
            segment_count=1 if transpose else draw(count), segment_stride=draw(st.integers(-50, 50)),
            segment_bytes=draw(st.integers(0, 8 if transpose else 70)), **pattern)
    elif kind == "flat":
        emitter.load(
            target=draw(st.sampled_from([Target.SCRATCHPAD, Target.PARAMETER, Target.TABLE])), address=3000,
            base=draw(count), row_words=draw(count), inner_count=draw(st.integers(0, 3)), inner_stride=11,
            segment_bytes=draw(st.integers(0, 200)))
    elif kind == "store":
        emitter.store(address=4000, base=draw(count), pitch=draw(count), outer_count=draw(count),
                      outer_stride=draw(st.integers(-300, 300)), inner_count=draw(count),
                      inner_stride=draw(st.integers(-300, 300)), row_bytes=draw(st.integers(0, 200)))
    elif kind == "vector":
        vector(draw, emitter, config)
    else:
        rows, columns = draw(st.sampled_from([(1, 2), (2, 1)]))
        emitter.matmul(a_base=draw(count), a_tile_words=draw(count), w_base=draw(count), w_tile_words=draw(count),
                       rows=rows * config.rows, columns=columns * config.columns, k=draw(st.integers(1, 90)),
                       band=draw(st.booleans()))
        emitter.vector(rows=1, columns=1, source=Source.DRAIN)
        emitter.vector(rows=1, columns=1, source=Source.DRAIN)
    emitter.end()
    return emitter, config


def vector(draw, emitter: Emitter, config: MachineConfig) -> None:
    """Emit a VECTOR with random operands; its source and residual operand lie in different banks."""
    multiplier = draw(st.sampled_from([Multiplier.ONE, Multiplier.COLUMN, Multiplier.ELEMENT]))
    destination, byte = draw(st.sampled_from(Destination)), draw(st.booleans())
    can_pair = destination is Destination.SCRATCHPAD and (byte or config.rows % 2 == 0)
    emitter.vector(
        rows=draw(st.integers(1, 9)), columns=draw(st.integers(1, 50)), source=Source.SCRATCHPAD,
        source_base=draw(count), source_pitch=draw(count), source_width=draw(st.sampled_from(Width)),
        pre=draw(st.sampled_from([Pre.NONE, Pre.BIAS])), parameter_base=draw(count),
        multiplier=multiplier, residual=multiplier != Multiplier.ELEMENT and draw(st.booleans()),
        residual_base=config.scratch_bank_depth, residual_pitch=draw(count),
        destination=destination, destination_base=100 + draw(count), destination_pitch=draw(count),
        destination_byte=byte, nibble=can_pair and draw(st.booleans()), table=draw(st.booleans()))


def memories(state, config: MachineConfig) -> dict[Memory, np.ndarray]:
    """Return the memories as arrays whose last axis is the footprint's unit and first axis counts words."""
    word, wide = config.word_bytes, config.scratch_word_bytes
    return {
        Memory.ACTIVATION: state.activation.reshape(config.rows, -1, word).transpose(1, 0, 2),
        Memory.WEIGHT: state.weight.reshape(config.columns, -1, word).transpose(1, 0, 2),
        Memory.SCRATCHPAD: state.scratchpad.reshape(-1, wide),
        Memory.PARAMETER: state.parameter[:config.parameter_depth * config.parameter_word_bytes].reshape(
            config.parameter_depth, -1),
        Memory.TABLE: state.table.reshape(1, -1),
        Memory.DRAM: state.dram.reshape(-1, 1),
    }


def execute(words: np.ndarray, config: MachineConfig, seed: int, keep: list[Access] | None) -> dict:
    """Run with random memory contents; with ``keep``, words outside those accesses hold other contents."""
    machine = Machine(words, np.zeros(DRAM, np.uint8), config)
    for memory, content in memories(machine.state, config).items():
        content[:] = np.random.default_rng((memory, 0)).integers(0, 256, content.shape)
        if keep is not None:
            other = np.random.default_rng((memory, seed)).integers(0, 256, content.shape).astype(np.uint8)
            inside = np.zeros(len(content), bool)
            for access in keep:
                if access.memory is memory:
                    inside[access.low:access.high] = True
            content[~inside] = other[~inside]
    before = {memory: content.copy() for memory, content in memories(machine.state, config).items()}
    machine.run()
    after = memories(machine.state, config)
    return {memory: (before[memory], after[memory]) for memory in before}


def written_rows(found: list[Access], memory: Memory, size: int) -> np.ndarray:
    """Return a mask of the words that accesses write."""
    mask = np.zeros(size, bool)
    for access in found:
        if access.write and access.memory is memory:
            mask[access.low:access.high] = True
    return mask


def touched(words: np.ndarray, config: MachineConfig) -> list[Access]:
    """Return the accesses of all instructions."""
    return [access for instruction in trace(words) for access in accesses(instruction, config)]


def fits_banks(found: list[Access], config: MachineConfig) -> bool:
    """Tell whether operands lie within their banks; many rows in a single bank need not."""
    depths = {Memory.ACTIVATION: config.activation_depth, Memory.WEIGHT: config.weight_depth}
    return all(access.high <= depths.get(access.memory, access.high) for access in found)


@settings(max_examples=300, deadline=None)
@given(instructions())
def test_nothing_else_is_touched(case):
    emitter, config = case
    words, _ = emitter.assemble(config)
    found = touched(words, config)
    assume(fits_banks(found, config))
    plain, disturbed = execute(words, config, 1, None), execute(words, config, 1, found)
    for memory, (before, after) in plain.items():
        mask = written_rows(found, memory, len(before))
        np.testing.assert_array_equal(after[~mask], before[~mask], err_msg=f"{memory.name} written")
        np.testing.assert_array_equal(after[mask], disturbed[memory][1][mask], err_msg=f"{memory.name} read")


def only(emitter: Emitter, config: MachineConfig) -> Resolved:
    """Return the first instruction of a program."""
    return trace(emitter.assemble(config)[0])[0]


@pytest.mark.parametrize("stride, interval", [(100, (1000, 1210)), (-100, (800, 1010))])
def test_dram_interval_follows_the_sign_of_strides(stride, interval):
    emitter = Emitter()
    emitter.store(address=1000, base=0, pitch=1, row_bytes=10, inner_count=3, inner_stride=stride)
    emitter.end()
    write = next(a for a in accesses(only(emitter, MACHINES[0]), MACHINES[0]) if a.memory is Memory.DRAM)
    assert (write.low, write.high) == interval
