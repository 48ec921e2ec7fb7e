"""Results of 4 bits: VECTOR writes them two to a byte, and products take them as weights of 4 bits."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter
from phonolith.compiler.ir import Graph, Value
from phonolith.compiler.pipeline import compile_graph, generate
from phonolith.compiler.program import load
from phonolith.compiler.random_conformers import Attending, attention, conformer
from phonolith.compiler.random_graphs import Builder, Tensor
from phonolith.compiler.random_weights import WeightChoice
from phonolith.compiler.stream import compile_stream
from phonolith.compiler.timing.model import predict
from phonolith.compiler.views import NibbleView, Pairs
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Destination, Saturate, Source
from phonolith.sim.bench import runtime_product
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.iss.machine import Machine
from phonolith.sim.ladder import execute_iss, execute_rtl, first_difference, machine, make_case
from phonolith.sim.stream import run_chunks

TINY = MachineConfig.load("tiny")
# Bases and pitch of a VECTOR, in words.
SOURCE, SOURCE_PITCH, RESULT, RESULT_PITCH = 0, 8, 600, 5
UNTOUCHED = 0xA5


def vector_rows(values: np.ndarray, config: MachineConfig, **control) -> np.ndarray:
    """Return the scratchpad, uint8 ``[words, word bytes]``, after a VECTOR wrote int16 ``values`` at RESULT."""
    emit = Emitter()
    rows, columns = values.shape
    emit.vector(rows=rows, columns=columns, source=Source.SCRATCHPAD, source_base=SOURCE, source_pitch=SOURCE_PITCH,
                destination_base=RESULT, destination_pitch=RESULT_PITCH,
                **{"saturate": Saturate.UINT8, "destination": Destination.SCRATCHPAD, "nibble": True} | control)
    emit.end()
    simulator = Machine(emit.assemble(config)[0], np.zeros(64, np.uint8), config)
    state, size = simulator.state, config.scratch_word_bytes
    state.table[:] = np.arange(256)[::-1]
    words = state.scratchpad.reshape(-1, size)
    words[:] = UNTOUCHED
    for row, row_values in enumerate(values.astype("<i2")):
        start = (SOURCE + row * SOURCE_PITCH) * size
        state.scratchpad[start:start + 2 * columns] = row_values.view(np.uint8)
    simulator.run()
    return words


def corners(rows: int, columns: int) -> np.ndarray:
    """Return values on both sides of the range of 4 bits, and far outside."""
    return np.random.default_rng(rows).choice([-32768, -9, -8, -7, -1, 0, 1, 6, 7, 8, 32767], (rows, columns))


@pytest.mark.parametrize("config", [TINY, TINY.with_array("4x7")], ids=["4x4", "4x7"])
@pytest.mark.parametrize("columns", [1, 4, 7, 21, 30])
def test_columns_in_pairs(config, columns):
    values = corners(5, columns)
    words = vector_rows(values, config, destination_byte=True)
    written = -(-columns // config.columns) * config.columns
    expected = np.zeros((5, written), np.uint8)
    expected[:, :columns] = np.clip(values, -8, 7) & 15
    for row in range(5):
        octets = words[RESULT + row * RESULT_PITCH:][:RESULT_PITCH].reshape(-1)
        nibbles = np.stack([octets & 15, octets >> 4], axis=1).reshape(-1)
        assert nibbles[:written].tolist() == expected[row].tolist()
        assert octets[-(-written // 2):].tolist() == [UNTOUCHED] * (octets.size - -(-written // 2))


@pytest.mark.parametrize("pairs", Pairs)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (4, 5), (7, 7), (6, 8)])
def test_the_host_writes_what_it_reads(pairs, rows, columns):
    """And half a byte of zero where there is no element."""
    view = NibbleView(5, (rows, columns), (11, 1), "int4", pairs=pairs)
    image, values = np.full(100, UNTOUCHED, np.uint8), corners(rows, columns).clip(-8, 7).astype(np.int8)
    view.write(image, values)
    assert (view.read(image) == values).all()
    whole = (rows, columns + columns % 2) if pairs is Pairs.COLUMNS else (rows + rows % 2, columns)
    padded = replace(view, shape=whole).read(image)
    assert not padded[rows:].any() and not padded[:, columns:].any()
    assert (image[:5] == UNTOUCHED).all() and (image != UNTOUCHED).sum() <= padded.size // 2


def test_numbers_of_more_bits_are_refused():
    graph = runtime_product(np.ones((3, 4), np.int8), np.ones((5, 4), np.int8), True, bits=4)
    inputs = {"a": np.ones((3, 4), np.int8), "b": np.full((5, 4), 8, np.int8)}
    with pytest.raises(PhonolithError, match=r"'b' of program 'gemm' reaches 8 .. 8; int4 is -8 .. 7"):
        generate(graph, {"a": (3, 4), "b": (5, 4), "y": (3, 5)}, TINY).image(inputs)
    with pytest.raises(ValueError, match=r"'b' reaches 8 .. 8; int4 is -8 .. 7"):
        interpret(graph, inputs)


@pytest.mark.parametrize("rows", [1, 4, 7, 10])
def test_rows_in_pairs(rows):
    values = corners(rows, 10)
    words = vector_rows(values, TINY)
    clipped = np.zeros((rows + rows % 2, 12), np.int64)
    clipped[:rows, :10] = np.clip(values, -8, 7) & 15
    for pair in range(-(-rows // 2)):
        octets = words[RESULT + pair * RESULT_PITCH:][:RESULT_PITCH].reshape(-1)
        assert octets[:12].tolist() == (clipped[2 * pair] | clipped[2 * pair + 1] << 4).tolist()
        assert octets[12:].tolist() == [UNTOUCHED] * (octets.size - 12)


def test_a_table_comes_behind_the_clip():
    words = vector_rows(np.array([[-100, 100]]), TINY, destination_byte=True, table=True)
    assert words[RESULT, 0] == (255 - (-8 & 255)) & 15 | ((255 - 7) & 15) << 4


@pytest.mark.parametrize(("config", "control", "message"), [
    (TINY, {"destination": Destination.ACTIVATION}, "to the scratchpad only"),
    (TINY.with_array("5x4"), {}, "rows in pairs, but a tile has 5"),
])
def test_what_is_refused(config, control, message):
    with pytest.raises(PhonolithError, match=message):
        vector_rows(corners(2, 2), config, **control)


def attention_graph(frames: int, kind: Attending, k: str = "int4", v: str = "int4") -> Graph:
    """Return projections of x to queries, keys and values, and attention over them."""
    b, width = Builder(3, WeightChoice(None, None)), kind.heads * kind.head_width
    x = Tensor("x", "int8", (frames, width), 74.0)
    q, keys, values = (b.linear(x, width, dtype) for dtype in ("int8", k, v))
    y = attention(b, q, keys, values, kind)
    return Graph("attention", (Value("x", "int8", (width,)),), tuple(b.nodes), (y.name,))


def frames_of(graph: Graph, frames: int) -> dict[str, np.ndarray]:
    """Return random inputs."""
    (value,) = graph.inputs
    return {value.name: np.random.default_rng(frames).integers(-128, 128, (frames, *value.tail), np.int8)}


def layouts(graph: Graph, config: MachineConfig, frames: int = 13) -> list[Pairs | None]:
    """Return how keys and values are stored."""
    tensors = compile_graph(graph, config, frames).tensors
    views = [tensors[node.name] for node in graph.nodes if node.op == "linear"][1:3]
    return [view.pairs if isinstance(view, NibbleView) else None for view in views]


def test_one_program_for_every_length():
    """All tensors on the instruction-set simulator and on RTL, in the cycles predicted."""
    graph = attention_graph(27, Attending(2, 10))
    program = compile_graph(graph, TINY, 27)
    rtl = machine(TINY)
    for frames in (1, 3, 4, 5, 18, 27):
        case = make_case(graph, frames_of(graph, frames), TINY, program)
        assert first_difference(case, "iss", execute_iss(case, TINY)) is None, frames
        result = execute_rtl(case.program, case.image, rtl, log_writes=True)
        assert first_difference(case, "rtl", result.image, result.writes) is None, frames
        assert predict(case.program.words, TINY, case.program.arguments).cycles == result.cycles, frames


KIND = Attending(2, 10)


@pytest.mark.parametrize(("array", "kind", "expected"), [
    ("4x4", KIND, [Pairs.COLUMNS, Pairs.ROWS]),
    ("5x4", KIND, [Pairs.COLUMNS, None]),
    ("4x5", KIND, [None, Pairs.ROWS]),
    ("4x4", Attending(2, 9), [None, Pairs.ROWS]),
    ("4x4", Attending(1, 9), [Pairs.COLUMNS, Pairs.ROWS]),
    ("4x4", replace(KIND, chunk=4, left=1), [Pairs.COLUMNS, Pairs.ROWS]),
    ("4x4", replace(KIND, chunk=3, left=1), [Pairs.COLUMNS, None]),
], ids=str)
def test_where_pairs_do_not_fit_values_take_bytes(array, kind, expected):
    config, graph = TINY.with_array(array), attention_graph(13, kind)
    assert layouts(graph, config) == expected
    case = make_case(graph, frames_of(graph, 13), config)
    assert first_difference(case, "iss", execute_iss(case, config)) is None


def test_keys_that_are_values_take_bytes():
    graph = attention_graph(9, KIND)
    *rest, node = graph.nodes
    q, k, _ = node.inputs
    shared = replace(graph, nodes=(*rest, replace(node, inputs=(q, k, k))))
    assert layouts(shared, TINY) == [None, None]
    case = make_case(shared, frames_of(shared, 9), TINY)
    assert first_difference(case, "iss", execute_iss(case, TINY)) is None


def test_program_files_keep_the_layout(tmp_path):
    program = compile_graph(attention_graph(9, KIND), TINY, 9)
    program.save(tmp_path / "attention.program")
    assert load(tmp_path / "attention.program", TINY).tensors == program.tensors


@pytest.mark.parametrize("chunk", [3, 4])
def test_streams_keep_a_history_of_pairs(chunk):
    kind = Attending(2, 12, longest=3 * chunk, chunk=chunk, left=2)
    graph = next(graph for seed in range(40) if stored_in_pairs(
        graph := conformer(Builder(seed, WeightChoice("any", None)), "stream", 20, (2, 2), 1, kind)[0]))
    inputs = frames_of(graph, 4 * (4 * chunk + 1) + 3)
    for run in run_chunks(compile_stream(graph, TINY), graph, inputs, on_simulator):
        assert run.outcome is None


def stored_in_pairs(graph: Graph) -> bool:
    """Tell whether some attention has keys and values of 4 bits."""
    dtypes = {node.name: node.dtype for node in graph.nodes}
    return any([dtypes[name] for name in node.inputs[1:]] == ["int4", "int4"]
               for node in graph.nodes if node.op == "attention")


def on_simulator(case) -> tuple[np.ndarray, dict | None]:
    """Run a chunk on the instruction-set simulator; return the image and what differs."""
    image = execute_iss(case, TINY)
    return image, first_difference(case, "iss", image)
