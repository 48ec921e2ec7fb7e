"""The timing model without an RTL to compare with: its clockwork, cutting of segments, what it refuses."""

import pytest

from phonolith.compiler import model_file
from phonolith.compiler.assembler import Emitter
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.timing.clock import Clock, Times
from phonolith.compiler.timing.model import predict
from phonolith.compiler.timing.report import UNITS, explain_program
from phonolith.compiler.timing.vector_ports import Taken
from phonolith.compiler.timing.walks import Cutter, Segment
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Target

CONFIG = MachineConfig(rows=8, columns=8)


def test_processes_run_by_cycle_then_rank():
    clock, seen = Clock(), []

    def process(name, cycle, rank):
        yield clock.at(cycle, rank)
        seen.append((clock.now, name))

    for each in (("a", 5, 1), ("b", 5, 0), ("c", 2, 3)):
        clock.start(process(*each))
    clock.run()
    assert seen == [(2, "c"), (5, "b"), (5, "a")]


def test_processes_wait_for_what_others_post():
    clock = Clock()
    times, seen = Times(clock), []

    def reader():
        while len(times) < 2:
            yield times
        seen.append((clock.now, max(times)))

    def writer():
        times.post(7)
        yield clock.at(3)
        times.post(4)

    clock.start(reader())
    clock.start(writer())
    clock.run()
    assert seen == [(3, 7)]


def test_a_port_is_free_behind_what_takes_it():
    port = Taken()
    port.ranges += [(2, 4), (4, 6), (9, 10)]
    assert [port.free_from(cycle) for cycle in (0, 2, 6, 9)] == [0, 6, 6, 10]
    port.index = 0
    assert [port.at(cycle) for cycle in (1, 3, 4, 7, 9)] == [None, 2, 4, None, 9]


@pytest.mark.parametrize("address, size, bursts", [(0, 1, [1]), (8, 16, [2]), (1000, 32, [2, 1]), (0, 4096, [64] * 4)])
def test_bursts_end_at_multiples_of_64_beats(address, size, bursts):
    assert Cutter(MachineConfig()).bursts(Segment(address, size, True)) == bursts


def test_steps_of_half_a_beat():
    cutter = Cutter(MachineConfig(rows=8, columns=8, bus_bits=256))
    assert cutter.steps(Segment(24, 30, True)) == [(8, 0, True), (16, 0, False), (6, 10, True)]


def assembled(*waits: tuple[str, ...]):
    emit = Emitter()
    for wait in waits:
        emit.load(target=Target.SCRATCHPAD, address=0, segment_bytes=4, wait=wait)
    emit.end()
    return emit.assemble(CONFIG)[0]


def test_cycles_grow_with_work():
    one, two = (predict(assembled(*[()] * count), CONFIG) for count in (1, 2))
    assert one.cycles < two.cycles and len(two.instructions) == 2
    assert two.instructions[0].done < two.instructions[1].done < two.cycles


def test_operators_share_the_cycles_of_a_model():
    config, graph = MachineConfig(), model_file.load(model_file.resolve("encoder-ctc-w8"))
    program = compile_graph(graph, config, 200)
    found = explain_program(program, config)
    parts = found["operators"]
    assert [each["operator"] for each in parts] == [region.node for region in program.regions if region.parts]
    assert sum(each["predicted_cycles"] for each in parts) == found["predicted_cycles"]
    needed = {unit: sum(each["roofline"][unit] for each in parts) for unit in UNITS}
    assert max(needed.values()) < found["predicted_cycles"]
    by_name = {each["operator"]: each for each in parts}
    expand = by_name["layers.0.expand"]
    assert expand["bound"] == "array" and expand["roofline"]["array"] == 96 * expand["roofline"]["drain"] // 16
    assert by_name["front_end.convolutions.0"]["bound"] == "drain"
    assert by_name["output.argmax"]["bound"] == "vector"


def test_a_deadlock_is_named():
    with pytest.raises(PhonolithError, match="LOAD at word 1 never completes") as caught:
        predict(assembled(("ARRAY_LOAD",)), CONFIG)
    assert caught.value.kind == "deadlock"
