"""Random programs on instruction-set simulator and RTL, and that a planted fault is found, named and made small."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter, Issue, assemble
from phonolith.compiler.disassembler import disassemble
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Reduce, Source, Target
from phonolith.sim.iss import vector
from phonolith.sim.ladder import machine
from phonolith.sim.program_case import (
    ProgramCase,
    find_illegal,
    initial_state,
    plain,
    random_image,
    simulate,
    unrolled,
)
from phonolith.sim.program_check import MemoryDifference, check, compare, fill_rtl, last_writer, on_chip
from phonolith.sim.random_programs import random_program
from phonolith.sim.shrink import Shrinker
from phonolith.sim.verify import verify_random

CONFIG = MachineConfig(rows=8, columns=8)


@pytest.fixture(scope="module")
def rtl():
    return machine(CONFIG)


def case_of(emit: Emitter, seed: int = 0) -> ProgramCase:
    emit.end()
    items = tuple(item for item in emit.items if isinstance(item, Issue))
    return ProgramCase(seed, items, emit.assemble(CONFIG)[0], random_image(seed), 1 << 15, ())


def first_program(wanted) -> ProgramCase:
    cases = (random_program(seed, CONFIG) for seed in range(400))
    return next(case for case in cases if len(mnemonics(case)) < 12 and wanted(case))


def mnemonics(case: ProgramCase) -> list[str]:
    return [issue.mnemonic for issue in unrolled(case)[:-1]]


def test_simulator_and_rtl_agree_on_all_memories():
    result = verify_random("program", 100, CONFIG, seed=4000)
    assert result["first_difference"] is None
    assert (result["checked"], result["failed"], result["rungs"]) == (100, 0, ["iss", "rtl"])
    assert min(result["coverage"]["opcode"].values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("array", ["4x4", "8x8", "8x16", "12x20", "16x16"])
def test_a_thousand_programs_agree_and_cover_everything(array):
    config = MachineConfig.load(array=array)
    result = verify_random("program", 1000, config, seed=0)
    assert (result["failed"], result["first_difference"]) == (0, None)
    never = [name for group in result["coverage"].values() for name, count in group.items() if not count]
    # A width runs where words hold a multiple of the weights in a byte.
    assert never == [f"MATMUL.{bits}_bits" for bits in isa.WEIGHT_WIDTHS if config.word_bytes % (8 // bits)]


def test_a_seed_names_a_program():
    one, same, other = (random_program(seed, CONFIG) for seed in (5, 5, 6))
    assert np.array_equal(one.words, same.words) and np.array_equal(one.memory(), same.memory())
    assert not np.array_equal(one.words, other.words)


def test_programs_use_registers_branches_and_semaphores():
    text = "\n".join(line for seed in range(30) for line in disassemble(random_program(seed, CONFIG).words))
    for word in ("BRANCH_LESS", "BRANCH_EQUAL", "SHIFT", "ADD", "=r", "wait=", "signal=", "fence=1", "transpose=1"):
        assert word in text


def test_values_are_lively():
    final = [simulate(random_program(seed, CONFIG), CONFIG).dram for seed in range(60)]
    before = [random_program(seed, CONFIG).image for seed in range(60)]
    written = np.concatenate([after[after != first] for after, first in zip(final, before, strict=True)])
    assert len(np.unique(written)) == 256
    assert np.isin(written, (0, 127, 128, 255)).mean() < 0.5


def test_the_back_door_writes_and_reads_every_memory(rtl):
    state = initial_state(random_program(1, CONFIG), CONFIG)
    fill_rtl(state, rtl)
    memories = list(on_chip(state, rtl.memories(), CONFIG))
    assert all(memory.difference() is None for memory in memories)
    assert sum(memory.state.nbytes for memory in memories) == (
        CONFIG.activation_sram_bytes + CONFIG.weight_sram_bytes + CONFIG.scratchpad_bytes + CONFIG.parameter_bytes
        + CONFIG.table_bytes)
    for memory in memories:
        memory.rtl.flat[-1] ^= 1
        assert memory.difference() is not None


def test_a_race_is_illegal():
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=64)
    emit.store(address=4096, base=0, pitch=1, row_bytes=16)
    assert "may overtake" in str(find_illegal(case_of(emit), CONFIG))


def test_semaphores_matter(rtl):
    """The RTL, given programs without their waits, leaves other memories than the simulator with them."""
    differ = 0
    for seed in range(30):
        case = random_program(seed, CONFIG)
        items = tuple(replace(item, wait=()) if isinstance(item, Issue) else item for item in case.items)
        hasty = replace(case, words=assemble(items, CONFIG)[0])
        expected = simulate(case, CONFIG)
        fill_rtl(initial_state(case, CONFIG), rtl)
        result = rtl.run(hasty.memory(), case.program_address, case.arguments)
        differ += compare(hasty, expected, rtl, result) is not None
    assert differ > 3


@pytest.fixture
def wrong_rounding(monkeypatch):
    """Make the simulator drop the half when it shifts."""
    right = vector.Tile.multiply

    def multiply(self, x, block):
        if self.control["multiplier"] != Multiplier.IMMEDIATE:
            return right(self, x, block)
        factor = isa.unpack(isa.FACTOR, self.operands["factor"])
        return x * vector.signed(factor["multiplier"], isa.MULTIPLIER_BITS) >> min(factor["shift"], isa.MAX_SHIFT)

    monkeypatch.setattr(vector.Tile, "multiply", multiply)


def test_a_planted_fault_shrinks_to_a_few_instructions(wrong_rounding, rtl):
    def fails(case: ProgramCase) -> bool:
        return check(case, rtl) is not None

    case = first_program(lambda case: len(mnemonics(case)) > 3 and fails(case))
    smallest = Shrinker(CONFIG, fails, seconds=60).shrink(case)
    assert mnemonics(smallest) in (["VECTOR"], ["MATMUL", "VECTOR"], ["MATMUL", "VECTOR", "VECTOR"])
    assert check(smallest, rtl) is not None
    sizes = [plain(issue.operands["rows"]) for issue in unrolled(smallest) if issue.mnemonic == "VECTOR"]
    assert max(sizes) <= CONFIG.rows


def test_verify_reports_a_planted_fault(wrong_rounding):
    result = verify_random("program", 25, CONFIG, seed=0)
    difference = result["first_difference"]
    assert result["failed"] > 0
    assert {"rung", "tensor", "index", "expected", "actual", "instruction", "cycle", "memory", "address",
            "case"} <= set(difference)
    assert difference["expected"] != difference["actual"]
    assert "VECTOR" in difference["smallest"]["program"][-2]
    assert "END" in difference["smallest"]["program"][-1]


def test_the_last_writer_is_named():
    emit = Emitter()
    emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=64)
    emit.load(target=Target.SCRATCHPAD, address=0, base=2, segment_bytes=64)
    emit.load(target=Target.SCRATCHPAD, address=640, base=1, segment_bytes=8)
    case = case_of(emit)
    for word, position in ((0, 1), (1, 25), (2, 13), (5, 13)):
        found = last_writer(case, CONFIG, MemoryDifference("scratchpad", (0, word, 3), 0, 1))
        assert str(found).startswith(f"{position}: LOAD")
    assert last_writer(case, CONFIG, MemoryDifference("scratchpad", (1, 0, 0), 0, 1)) is None
    assert last_writer(case, CONFIG, MemoryDifference("DRAM", (100,), 0, 1)) is None


def test_shrinking_keeps_what_the_fault_needs():
    def fails(case: ProgramCase) -> bool:
        return {"STORE", "MATMUL"} <= set(mnemonics(case))

    smallest = Shrinker(CONFIG, fails, seconds=60).shrink(first_program(fails))
    assert sorted(mnemonics(smallest)) in (["MATMUL", "STORE"], ["MATMUL", "STORE", "VECTOR"])


def test_shrinking_keeps_the_sequencer_when_the_fault_is_there():
    def fails(case: ProgramCase) -> bool:
        return any("BRANCH" in line for line in disassemble(case.words))

    smallest = Shrinker(CONFIG, fails, seconds=60).shrink(first_program(fails))
    assert len(disassemble(smallest.words)) == 3
    assert find_illegal(smallest, CONFIG) is None


# Programs that random ones found: what the simulator got wrong, by docs/isa.md.

@pytest.mark.parametrize("reduce", [Reduce.SUM, Reduce.MAX, Reduce.ARGMAX])
def test_a_vector_without_columns_changes_nothing(rtl, reduce):
    emit = Emitter()
    emit.vector(rows=4, columns=0, source=Source.ZERO, reduce=reduce, reduce_register=1,
                destination=Destination.SCRATCHPAD)
    case = case_of(emit)
    assert check(case, rtl) is None
    assert np.array_equal(simulate(case, CONFIG).row_registers, initial_state(case, CONFIG).row_registers)


@pytest.mark.parametrize("byte", [False, True])
def test_overlapping_rows_of_vector_are_written_chunk_by_chunk(rtl, byte):
    emit = Emitter()
    emit.vector(rows=5, columns=60, source=Source.SCRATCHPAD, source_base=1000, source_pitch=8, destination_pitch=1,
                destination=Destination.SCRATCHPAD, destination_byte=byte)
    assert check(case_of(emit), rtl) is None


@pytest.mark.parametrize("row_words", [0, 1, 2, 3])
def test_overlapping_columns_of_a_transposing_load_are_written_block_by_block(rtl, row_words):
    emit = Emitter()
    emit.load(target=Target.WEIGHT, address=3, base=10, row_words=row_words, outer_count=45, outer_stride=16,
              segment_bytes=13, transpose=True)
    assert check(case_of(emit), rtl) is None
