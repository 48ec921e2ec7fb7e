"""Which graphs run chunk by chunk, in what rhythm, and what a stream's programs share."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.inspect import node_macs
from phonolith.compiler.ir import Graph, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.races import find_deadlock, find_races
from phonolith.compiler.random_conformers import (
    Attending,
    attention,
    conformer,
    depthwise,
    random_conformer,
    random_stream,
    subsampling,
)
from phonolith.compiler.random_graphs import Builder, Tensor
from phonolith.compiler.rhythm import rhythm_of
from phonolith.compiler.shapes import infer_shapes, minimum_frames
from phonolith.compiler.stream import compile_stream
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

STREAMING = Attending(2, 8, longest=40, chunk=5, left=2)


@pytest.fixture(scope="module")
def config():
    return MachineConfig.load(array="4x4")


def streaming(kind: Attending = STREAMING) -> Graph:
    """Return a small streaming Conformer, lowered; four input frames per row."""
    return lower_graph(conformer(Builder(3), "stream", 20, (2, 2), 1, kind)[0])


def changed(op: str, graph: Graph | None = None, **attributes) -> Graph:
    """Return a graph whose operators ``op`` have other attributes."""
    graph = graph or streaming()
    return graph.with_nodes(replace(node, attributes=node.attributes | attributes) if node.op == op else node
                            for node in graph.nodes)


def test_rhythm():
    rhythm = rhythm_of(streaming())
    assert (rhythm.chunk, rhythm.left, rhythm.step, rhythm.frames) == (5, 2, 20, 23)
    assert [rhythm.chunks(frames) for frames in (7, 23, 26, 27, 43, 47)] == [1, 1, 1, 2, 2, 3]
    assert sorted(set(rhythm.rates.values())) == [1, 2, 4]
    assert set(rhythm.history.values()) > {10}, "keys and values, and what depthwise convolutions read"


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_chunk_gets_as_many_frames_as_its_rows_need(seed):
    graph = lower_graph(random_stream(seed)[0])
    rhythm, (ids,) = rhythm_of(graph), graph.outputs
    assert infer_shapes(graph, rhythm.frames)[ids][0] == rhythm.chunk
    if rhythm.frames > minimum_frames(graph):
        assert infer_shapes(graph, rhythm.frames - 1)[ids][0] == rhythm.chunk - 1


def refused(graph: Graph) -> PhonolithError:
    with pytest.raises(PhonolithError) as caught:
        rhythm_of(graph)
    assert caught.value.kind == "not-streamable"
    return caught.value


@pytest.mark.parametrize(("graph", "reason"), [
    (streaming(Attending(2, 8, longest=40)), "it attends to the whole utterance"),
    (changed("attention", chunk=30), "its positions are for 40 rows; chunks see 90"),
    (changed("depthwise_conv1d", padding=[1, 1]), "it is not causal"),
    (changed("conv2d", padding=[1, 0]), "it is padded in time"),
])
def test_refused_operators(graph, reason):
    assert reason in refused(graph).message


def test_absolute_positions_are_refused():
    seed = next(seed for seed in range(100) if any(node.op == "add_rows" for node in random_conformer(seed)[0].nodes))
    graph = lower_graph(random_conformer(seed)[0])
    assert "from the beginning of the utterance" in refused(changed("attention", changed(
        "depthwise_conv1d", graph, padding=[]), chunk=1)).message


def with_input(b: Builder, *nodes: Tensor, width: int = 16) -> Graph:
    return lower_graph(Graph("g", (Value("x", "int8", (width,)),), tuple(b.nodes), (nodes[-1].name,)))


def test_what_looks_back_at_the_input_is_refused():
    b, x = Builder(0), Tensor("x", "int8", (9, 16), 74.0)
    assert "looks back at the input 'x' itself" in refused(with_input(b, attention(b, x, x, x, STREAMING))).message


def test_a_convolution_of_part_of_a_tensor_is_refused():
    b = Builder(0)
    x = b.linear(Tensor("x", "int8", (9, 16), 74.0), 32, "int8")
    half = b.append("slice", (x,), "int8", (9, 16), x.rms, start=0, stop=16)
    y = attention(b, *[depthwise(b, half, 3, [2, 0], "int8")] * 3, STREAMING)
    assert "a part of another tensor" in refused(with_input(b, y)).message


def test_a_front_end_behind_the_attention_is_refused():
    b = Builder(0)
    x = b.linear(Tensor("x", "int8", (31, 16), 74.0), 16, "int8")
    y = b.reshape(attention(b, x, x, x, STREAMING), 16, 1)
    assert "behind an operator that looks back" in refused(with_input(b, subsampling(b, y, 2, (2,)))).message


def test_no_attention_is_refused():
    b = Builder(0)
    y = b.linear(Tensor("x", "int8", (9, 16), 74.0), 16, "int8")
    assert "no attention" in refused(with_input(b, y)).message


def test_chunks_of_two_sizes_are_refused():
    graph = streaming()
    last = next(node for node in reversed(graph.nodes) if node.op == "attention")
    two = replace(last, name="two", attributes=last.attributes | {"chunk": 4})
    assert "its chunks have 4 rows, others 5" in refused(graph.with_nodes([*graph.nodes, two])).message


def test_programs_have_the_same_memory(config):
    stream = compile_stream(streaming(), config)
    assert len(stream.programs) == 3 and {program.size for program in stream.programs} == {len(stream.image())}
    first = stream.programs[0]
    for program in stream.programs[1:]:
        assert program.inputs == first.inputs and program.tensors == first.tensors
        assert program.constants is first.constants
    places = [address for address, _ in first.constants]
    contents = [data.tobytes() for _, data in first.constants]
    assert len(set(places)) == len(places) and len(set(contents)) == len(contents)


@pytest.mark.parametrize("seed", range(4))
def test_programs_are_free_of_races_and_deadlocks(config, seed):
    graph, inputs = random_stream(seed)
    for chunk in compile_stream(graph, config).chunks(len(inputs["features"])):
        words, arguments = chunk.program.words, chunk.program.arguments
        assert find_races(words, config, arguments) == [] == find_deadlock(words, config, arguments)


def test_macs_of_all_chunks_are_those_of_the_utterance(config):
    graph = streaming()
    stream, frames = compile_stream(graph, config), 4 * 33 + 3
    shapes = infer_shapes(graph, frames)
    assert shapes[graph.outputs[0]][0] == 33
    total: dict[str, int] = {}
    for chunk in stream.chunks(frames):
        for region in chunk.program.regions:
            total[region.node] = total.get(region.node, 0) + region.macs
    for node in graph.nodes:
        if node.op in ("attention", "linear", "depthwise_conv1d"):
            assert total[node.name] == node_macs(node, shapes), node.name


def test_the_shortest_utterance(config):
    stream = compile_stream(streaming(), config)
    (chunk,) = stream.chunks(7)
    assert chunk.frames == 7 and chunk.program.arguments == (7,)
    with pytest.raises(PhonolithError) as caught:
        list(stream.chunks(6))
    assert caught.value.kind == "input-too-short"


def test_the_image_starts_without_history(config):
    stream = compile_stream(streaming(), config)
    image = stream.image(canary_seed=1)
    for name, rows in stream.rhythm.history.items():
        view = stream.programs[0].tensors[name]
        assert not np.any(image[view.address - rows * view.strides[0]:view.address])
