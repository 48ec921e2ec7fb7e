"""Chunk by chunk equals the same model run whole, to the bit, and nothing else is written."""

import numpy as np
import pytest

from phonolith.compiler import stream as compiler
from phonolith.compiler.random_conformers import Attending, conformer, random_stream
from phonolith.compiler.random_graphs import Builder
from phonolith.compiler.stream import Stream, compile_stream
from phonolith.hw.config import MachineConfig
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import Case, execute_iss, execute_rtl, first_difference, machine
from phonolith.sim.stream import run_chunks
from phonolith.sim.verify import string_cases

CHUNK, LEFT, KERNEL_SEED = 6, 2, 11


@pytest.fixture(scope="module")
def config():
    return MachineConfig.load(array="8x8")


@pytest.fixture(scope="module")
def model():
    """A Conformer of four input frames per row, with relative positions."""
    kind = Attending(2, 12, longest=(LEFT + 1) * CHUNK, chunk=CHUNK, left=LEFT)
    return conformer(Builder(KERNEL_SEED), "stream", 20, (2, 2), 1, kind)[0]


@pytest.fixture(scope="module")
def stream(model, config):
    return compile_stream(model, config)


def features(graph, rows: int, more: int = 0) -> dict[str, np.ndarray]:
    """Return random features of so many rows, and ``more`` frames that make no row."""
    (value,) = graph.inputs
    return {value.name: np.random.default_rng(rows).integers(-128, 128, (4 * rows + 3 + more, *value.tail), np.int8)}


def on_simulator(config: MachineConfig):
    def execute(case: Case) -> tuple[np.ndarray, dict | None]:
        image = execute_iss(case, config)
        return image, first_difference(case, "iss", image)

    return execute


def differences(stream: Stream, graph, inputs, config) -> list[dict | None]:
    """Run a stream on the instruction-set simulator; return what differs, chunk by chunk."""
    ids, found = [], []
    for run in run_chunks(stream, graph, inputs, on_simulator(config)):
        ids.append(run.case.expected[graph.outputs[0]])
        found.append(run.outcome)
    np.testing.assert_array_equal(np.concatenate(ids), interpret(graph, inputs)[graph.outputs[0]])
    return found


@pytest.mark.parametrize("seed", range(8))
def test_random_streams(seed):
    small, (graph, inputs) = MachineConfig.load(array="4x4"), random_stream(seed)
    assert not any(differences(compile_stream(graph, small), graph, inputs, small))


@pytest.mark.parametrize(("rows", "more"), [
    (1, 0), (1, 3), (CHUNK - 1, 0), (CHUNK, 0), (CHUNK, 3), (CHUNK + 1, 0), (2 * CHUNK, 1), (5 * CHUNK + 1, 2)])
def test_lengths(stream, model, config, rows, more):
    found = differences(stream, model, features(model, rows, more), config)
    assert found == [None] * -(-rows // CHUNK)


def test_every_number_of_rows_in_the_last_chunk(stream, model, config):
    for rows in range(4 * CHUNK + 1, 5 * CHUNK):
        assert not any(differences(stream, model, features(model, rows), config)), rows


def test_history_that_is_not_kept_is_found(model, config, monkeypatch):
    monkeypatch.setattr(compiler, "keep_history", lambda ctx, rhythm: None)
    found = differences(compile_stream(model, config), model, features(model, 3 * CHUNK), config)
    assert found[0] is None and all(found[1:])


def run_rtl(stream: Stream, graph, inputs, config) -> list[int]:
    """Run a stream on RTL, all tensors as they should be; return the cycles of its chunks."""
    def execute(case: Case) -> tuple[np.ndarray, int]:
        result = execute_rtl(case.program, case.image, machine(config), log_writes=True)
        assert first_difference(case, "rtl", result.image, result.writes) is None
        return result.image, result.cycles

    return [run.outcome for run in run_chunks(stream, graph, inputs, execute)]


def test_on_rtl_the_time_per_chunk_is_constant_once_the_context_is_full(stream, model, config):
    cycles = run_rtl(stream, model, features(model, 7 * CHUNK + 1), config)
    assert len(set(cycles[LEFT:7])) == 1 and cycles[7] < cycles[LEFT]


@pytest.mark.slow
def test_twenty_utterances_on_rtl(fsdd):
    default, stream, full = MachineConfig(), None, set()
    for _, graph, inputs in string_cases(fsdd, 20, "conformer-ctc-stream-w8"):
        stream = stream or compile_stream(graph, default)
        full |= set(run_rtl(stream, graph, inputs, default)[stream.rhythm.left:-1])
    assert len(full) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_streams_on_rtl(seed):
    default, (graph, inputs) = MachineConfig(), random_stream(seed)
    assert run_rtl(compile_stream(graph, default), graph, inputs, default)
