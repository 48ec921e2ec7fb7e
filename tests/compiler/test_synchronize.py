"""Semaphores: what the pass adds is enough, and the checks notice when any of it is missing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.compiler.assembler import SEMAPHORES, Emitter, Reg
from phonolith.compiler.disassembler import trace
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.races import find_deadlock, find_races, pair_tokens
from phonolith.compiler.synchronize import synchronize
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Queue, Source, Target
from phonolith.sim.iss import run
from tests.compiler import lowering_cases as cases

CONFIG = MachineConfig(rows=4, columns=4, bus_bits=64, scratchpad_bytes=1024)
FENCE = 1 << isa.STORE_CONTROL["fence"][0]


def assembled(emitter: Emitter) -> np.ndarray:
    """Return the words of a program with END."""
    emitter.end()
    return emitter.assemble(CONFIG)[0]


@st.composite
def programs(draw) -> np.ndarray:
    """Straight-line programs that fight for a few words of every memory."""
    emitter = Emitter()
    small = st.integers(0, 6)
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["load", "store", "vector", "product"]))
        base = draw(small)
        if kind == "load":
            target = draw(st.sampled_from([Target.ACTIVATION, Target.WEIGHT, Target.SCRATCHPAD]))
            emitter.load(target=target, address=draw(small) * 64, base=base, row_words=1,
                         inner_count=draw(small), inner_stride=8, segment_bytes=8)
        elif kind == "store":
            emitter.store(address=draw(small) * 64, base=base, pitch=1, inner_count=draw(small), inner_stride=8,
                          row_bytes=8)
        elif kind == "vector":
            emitter.vector(rows=draw(st.integers(1, 4)), columns=4, source=Source.SCRATCHPAD, source_base=base,
                           source_pitch=1, destination=Destination.SCRATCHPAD,
                           destination_base=base + draw(st.integers(4, 9)), destination_pitch=1)
        else:
            emitter.matmul(a_base=base, w_base=draw(small), k=8)
            emitter.vector(rows=4, columns=4, source=Source.DRAIN, destination=Destination.ACTIVATION,
                           destination_base=draw(small), destination_pitch=1)
    return assembled(emitter)


@settings(max_examples=200, deadline=None)
@given(programs())
def test_synchronized_programs_have_neither_races_nor_deadlocks(words):
    ordered = synchronize(words, CONFIG)
    assert find_races(ordered, CONFIG) == []
    assert find_deadlock(ordered, CONFIG) == []
    run(ordered, np.zeros(4096, np.uint8), CONFIG)


def without_semaphore(words: np.ndarray, semaphore: int) -> np.ndarray:
    """Return a program that does not use one semaphore."""
    words = words.copy()
    keep = ~sum(1 << isa.HEADER[name][0] + semaphore for name in ("wait", "signal")) & 0xFFFFFFFF
    for instruction in trace(words):
        words[instruction.position] &= np.uint32(keep)
    return words


def test_removing_one_token_is_a_race():
    """Each token of a compiled program is needed: without any one of them, something is unordered."""
    config = cases.MACHINES["8x8"]
    program = compile_graph(cases.linear(np.random.default_rng(0), 40, 20, residual=True, y="int16"), config, 30)
    instructions = trace(program.words, program.arguments)
    tokens = [(bit, token) for bit, tokens in pair_tokens(instructions).items() for token in tokens]
    assert len(tokens) > 10 and len({token.early for _, token in tokens}) == 2
    for bit, token in tokens:
        words = program.words.copy()
        waiting, signalling = instructions[token.wait].position, instructions[token.signal].position
        words[waiting] &= np.uint32(~(1 << isa.HEADER["wait"][0] + bit) & 0xFFFFFFFF)
        field = isa.LOAD_CONTROL["early"] if token.early else isa.HEADER["signal"]
        words[signalling + token.early] &= np.uint32(~(1 << field[0] + bit) & 0xFFFFFFFF)
        assert find_races(words, config, program.arguments)


def test_a_product_follows_its_weights():
    """It waits for the early signal of the LOAD, and a product that reads other words does not race with it either."""
    config = cases.MACHINES["8x8"]
    program = compile_graph(cases.linear(np.random.default_rng(0), 40, 20), config, 30)
    early = [i for i in trace(program.words, program.arguments) if i.queue is Queue.LOAD and i.control["early"]]
    assert early and all(i.control["target"] == isa.Target.WEIGHT for i in early)


def test_removing_a_fence_is_a_race():
    config = cases.MACHINES["8x8"]
    graph = cases.attention(np.random.default_rng(0), 1, 8, fused=False)
    program = compile_graph(graph, config, 12)
    words = program.words.copy()
    fenced = [i for i in trace(words, program.arguments) if i.queue is Queue.STORE and i.control["fence"]]
    assert fenced
    words[fenced[0].position + 1] &= np.uint32(~FENCE & 0xFFFFFFFF)
    races = find_races(words, config, program.arguments)
    assert any("in DRAM" in race for race in races)


def test_a_wait_that_nothing_signals():
    emitter = Emitter()
    emitter.load(target=Target.WEIGHT, address=0, segment_bytes=8, wait=("STORE_LOAD",))
    with pytest.raises(ValueError, match="LOAD at word 1 waits for STORE_LOAD, which nothing signals"):
        find_races(assembled(emitter), CONFIG)


def test_a_product_that_waits_for_its_own_results_is_a_deadlock():
    """The array cannot complete before VECTOR takes its tiles, and VECTOR waits until it has completed."""
    emitter = Emitter()
    emitter.matmul(a_base=0, w_base=0, k=8, columns=3 * CONFIG.columns, signal=("ARRAY_VECTOR",))
    emitter.vector(rows=4, columns=12, source=Source.DRAIN, wait=("ARRAY_VECTOR",))
    assert find_deadlock(assembled(emitter), CONFIG) == ["MATMUL at word 1", "VECTOR at word 10"]


def test_products_ahead_of_full_queues_are_a_deadlock():
    """The queue of the array fills before the first VECTOR is reached."""
    def ahead(count: int) -> list[str]:
        emitter = Emitter()
        for _ in range(count):
            emitter.matmul(a_base=0, w_base=0, k=8)
        for _ in range(count):
            emitter.vector(rows=4, columns=4, source=Source.DRAIN)
        return find_deadlock(assembled(emitter), CONFIG)

    assert ahead(10) == []
    assert ahead(30)


def test_a_vector_that_reads_what_it_writes():
    emitter = Emitter()
    emitter.vector(rows=2, columns=4, source=Source.SCRATCHPAD, source_base=3, source_pitch=1,
                   destination=Destination.SCRATCHPAD, destination_base=4, destination_pitch=1)
    assert find_races(assembled(emitter), CONFIG) == ["VECTOR at word 1 reads what it writes"]


def test_signals_never_run_too_far_ahead():
    """A producer that nothing else holds back waits for its consumer from time to time."""
    emitter = Emitter()
    for row in range(100):
        emitter.load(target=Target.SCRATCHPAD, address=0, base=row % 128, segment_bytes=8)
        emitter.store(address=64 * row, base=row % 128, pitch=1, row_bytes=8)
    words = synchronize(assembled(emitter), MachineConfig(rows=4, columns=4, bus_bits=64))
    machine = MachineConfig(rows=4, columns=4, bus_bits=64)
    assert find_races(words, machine) == []
    unbounded = without_semaphore(words, SEMAPHORES.index("STORE_LOAD"))
    assert any("may overflow LOAD_STORE" in line for line in find_races(unbounded, machine))


def test_loops_cannot_be_synchronized():
    emitter = Emitter()
    emitter.set(5, 0)
    emitter.label("again")
    emitter.load(target=Target.WEIGHT, address=0, segment_bytes=8)
    emitter.add(5, Reg(5), 1)
    emitter.branch_less(Reg(5), 3, "again")
    with pytest.raises(ValueError, match="only straight-line programs"):
        synchronize(assembled(emitter), CONFIG)
