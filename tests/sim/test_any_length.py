"""One program for utterances of every length up to its longest."""

import numpy as np
import pytest

from phonolith.compiler import model_file
from phonolith.compiler.pipeline import compile_graph, for_frames
from phonolith.compiler.shapes import minimum_frames
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.ladder import execute_iss, execute_rtl, first_difference, machine, make_case

LONGEST = 300


@pytest.fixture(scope="module")
def graph():
    return model_file.load(model_file.resolve("encoder-ctc-w8"))


def features(graph, frames: int) -> dict[str, np.ndarray]:
    (value,) = graph.inputs
    rng = np.random.default_rng(frames)
    return {value.name: rng.integers(-128, 128, (frames, *value.tail)).astype(np.int8)}


@pytest.fixture(scope="module")
def config():
    return MachineConfig.load(array="8x8")


@pytest.fixture(scope="module")
def program(graph, config):
    return compile_graph(graph, config, LONGEST)


def lengths(graph, count: int) -> list[int]:
    """The ends, what fills the array's rows exactly and one more, and random ones."""
    least = minimum_frames(graph)
    chosen = {least, least + 1, least + 4 * 7, least + 4 * 8, LONGEST - 1, LONGEST}
    rng = np.random.default_rng(0)
    while len(chosen) < count:
        chosen.add(int(rng.integers(least, LONGEST)))
    return sorted(chosen)


def test_every_rung_agrees_at_every_length(graph, config, program):
    """All tensors on the instruction-set simulator and on RTL, and no byte written behind the last frame."""
    for frames in lengths(graph, 6):
        case = make_case(graph, features(graph, frames), config, program)
        assert first_difference(case, "iss", execute_iss(case, config)) is None, frames
        result = execute_rtl(case.program, case.image, machine(config), log_writes=True)
        assert first_difference(case, "rtl", result.image, result.writes) is None, frames


@pytest.mark.slow
def test_twenty_lengths_on_the_default_machine(graph):
    config = MachineConfig()
    program = compile_graph(graph, config, LONGEST)
    for frames in lengths(graph, 20):
        case = make_case(graph, features(graph, frames), config, program)
        result = execute_rtl(case.program, case.image, machine(config), log_writes=True)
        assert first_difference(case, "rtl", result.image, result.writes) is None, frames


def test_what_a_longer_utterance_left_does_not_matter(graph, config, program):
    """The same DRAM serves one utterance after the other: only features and the length change."""
    (value,), image = graph.inputs, None
    for frames in (LONGEST, 100, 37, 280):
        inputs = features(graph, frames)
        case = make_case(graph, inputs, config, program)
        image = case.image if image is None else image
        case.program.inputs[value.name].write(image, inputs[value.name])
        for name, copy in case.program.unfolded:
            copy.write(image, inputs[name])
        image = execute_rtl(case.program, image, machine(config)).image[:len(image)]
        for name in graph.outputs:
            np.testing.assert_array_equal(case.program.read(image, name), case.expected[name])


def test_a_shorter_utterance_takes_fewer_cycles(graph, config, program):
    cycles = []
    for frames in (60, 150, LONGEST):
        inputs = features(graph, frames)
        set_up = for_frames(program, graph, frames)
        cycles.append(execute_rtl(set_up, set_up.image(inputs), machine(config)).cycles)
    assert cycles[0] < cycles[1] / 1.5 < cycles[2] / 2.5


def test_no_frame_at_all_ends_at_once(graph, config, program):
    """The host refuses empty input; a program given none stops by itself, well."""
    image = program.image(nothing(graph))
    for frames in (0, 5, minimum_frames(graph) - 1):
        result = machine(config).run(program.with_program(image), program.program_address, (frames,))
        assert result.done and result.dram_write_beats == 0 and result.cycles < 600


def nothing(graph) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(tensor) for name, tensor in features(graph, LONGEST).items()}


def test_longer_input_is_refused(graph, config, program):
    with pytest.raises(PhonolithError, match=f"at most {LONGEST}") as error:
        make_case(graph, features(graph, LONGEST + 1), config, program)
    assert error.value.kind == "input-too-long" and f"--frames {LONGEST + 1}" in error.value.remedy
    with pytest.raises(PhonolithError) as error:
        for_frames(program, graph, 3)
    assert error.value.kind == "input-too-short"


def test_another_models_program_is_refused(graph, program):
    other = graph.with_nodes(graph.nodes[:-1])
    with pytest.raises(PhonolithError) as error:
        for_frames(program, type(graph)(other.name, other.inputs, other.nodes, (other.nodes[-1].name,)), 100)
    assert error.value.kind == "wrong-program"
