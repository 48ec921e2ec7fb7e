"""Traces of the RTL: every instruction once, in order; stalls add up to the counters; layers are exact."""

import json

import numpy as np
import pytest

from phonolith.compiler.disassembler import trace as issue_order
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.registers import ENGINES
from phonolith.reports.simulation import layers
from phonolith.reports.trace import instruction_spans, layer_times, level_spans, write_trace
from phonolith.sim.ladder import execute_rtl, make_case
from phonolith.sim.rtl.library import EVENT_RECORD
from phonolith.sim.rtl.run import RtlMachine

CONFIG = MachineConfig.load(array="8x8")


@pytest.fixture(scope="module")
def run():
    """A random graph on the RTL with events: (program, result, spans)."""
    graph, inputs = random_graph(0)
    case = make_case(graph, inputs, CONFIG)
    machine = RtlMachine(CONFIG, events=True)
    result = execute_rtl(case.program, case.image, machine, log_writes=True)
    machine.close()
    return case.program, result, instruction_spans(case.program, result.events)


@pytest.fixture(scope="module")
def slices(run, tmp_path_factory):
    """The slices of the written trace by track."""
    program, result, spans = run
    path = tmp_path_factory.mktemp("trace") / "run.json"
    write_trace(path, program, result, spans, CONFIG)
    events = json.loads(path.read_text())["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    tracks = {name: [] for name in names.values()}
    for event in events:
        if event["ph"] == "X":
            tracks[names[event["tid"]]].append(event)
    return tracks


def test_every_instruction_is_there_once_and_in_order(run):
    program, result, spans = run
    assert len(spans) == len(issue_order(program.words, program.arguments))
    for engine in ENGINES:
        own = [span for span in spans if span.engine == engine]
        for first, second in zip(own, own[1:], strict=False):
            assert first.taken < second.taken and first.done < second.done
        assert all(0 <= span.taken < span.done < result.cycles for span in own)


def test_waits_are_obeyed(run):
    """The n-th taker of a semaphore starts no earlier than its n-th raiser is done."""
    _, _, spans = run
    for bit in range(12):
        raised = sorted(span.done for span in spans if span.instruction.signal >> bit & 1)
        taken = sorted(span.taken for span in spans if span.instruction.wait >> bit & 1)
        assert all(done < take for done, take in zip(raised, taken, strict=False))


def test_stalls_add_up_to_the_counters(run, slices):
    _, result, _ = run
    for engine in ENGINES:
        total = dict.fromkeys(result.engines[engine]["stalled"], 0)
        for event in slices[f"{engine} stalls"]:
            total[event["name"]] += event["dur"]
        assert total == result.engines[engine]["stalled"]


def test_beats_add_up_to_the_counters(run, slices):
    _, result, _ = run
    assert sum(event["dur"] for event in slices["AXI read beats"]) == result.dram_read_beats
    assert sum(event["dur"] for event in slices["AXI write beats"]) == result.dram_write_beats


def test_slices_of_a_track_do_not_overlap(slices):
    for track in slices.values():
        ordered = sorted(track, key=lambda event: event["ts"])
        for first, second in zip(ordered, ordered[1:], strict=False):
            assert first["ts"] + first["dur"] <= second["ts"]


def test_names_are_mnemonic_and_node(run, slices):
    program, _, _ = run
    nodes = {region.node for region in program.regions}
    for event in slices["array"]:
        mnemonic, node = event["name"].split(" ", 1)
        assert mnemonic == "MATMUL" and node in nodes


def test_layers_begin_before_and_end_behind_their_writes(run):
    program, result, spans = run
    steps = {region.node: 0 for region in program.regions}
    exact = {row["name"]: row for row in layers(program, steps, result.writes, spans)}
    written = {row["name"]: row for row in layers(program, steps, result.writes)}
    for name, (start, end) in layer_times(spans).items():
        assert (exact[name]["start"], exact[name]["end"]) == (start, end)
        if written[name]["end"]:
            assert start < written[name]["start"]


def test_stretches_of_a_level():
    events = np.array([(3, 0, 1), (5, 0, 3), (6, 1, 2), (9, 0, 2), (12, 0, 1)], EVENT_RECORD)
    assert list(level_spans(events, 0, 20)) == [(3, 6), (12, 20)]
    assert list(level_spans(events, 1, 20)) == [(5, 12)]
    assert list(level_spans(events, 2, 20)) == []
