"""Program files and DRAM images."""

import numpy as np
import pytest

from phonolith.compiler import program as programs
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from tests.compiler import lowering_cases as cases

CONFIG = cases.MACHINES["8x8"]


@pytest.fixture(scope="module")
def compiled():
    """A program and its inputs."""
    graph, inputs = random_graph(9)
    return compile_graph(graph, CONFIG, len(next(iter(inputs.values())))), inputs


def test_round_trip(compiled, tmp_path):
    program, inputs = compiled
    program.save(tmp_path / "p.program")
    loaded = programs.load(tmp_path / "p.program", CONFIG)
    assert vars(loaded).keys() == vars(program).keys()
    for name in ("config_hash", "name", "inputs", "tensors", "outputs", "size", "regions", "temporaries", "zeros",
                 "metadata"):
        assert getattr(loaded, name) == getattr(program, name), name
    np.testing.assert_array_equal(loaded.words, program.words)
    np.testing.assert_array_equal(loaded.image(inputs), program.image(inputs))
    assert list(tmp_path.iterdir()) == [tmp_path / "p.program"]


def test_another_machine_is_refused(compiled, tmp_path):
    program, _ = compiled
    program.save(tmp_path / "p.program")
    with pytest.raises(PhonolithError) as error:
        programs.load(tmp_path / "p.program", MachineConfig())
    assert error.value.kind == "wrong-configuration"
    assert CONFIG.hash in error.value.message
    programs.load(tmp_path / "p.program", MachineConfig(rows=8, columns=8, dram_latency=99))


def test_other_files_are_refused(compiled, tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(PhonolithError, match="is no Phonolith program"):
        programs.load(tmp_path / "text")
    compiled[0].save(tmp_path / "p.program")
    content = (tmp_path / "p.program").read_bytes()
    (tmp_path / "p.program").write_bytes(content[:-5])
    with pytest.raises(PhonolithError, match="is damaged"):
        programs.load(tmp_path / "p.program")


def test_every_instruction_has_one_node(compiled):
    program, _ = compiled
    covered = np.zeros(len(program.words), int)
    for region in program.regions:
        for start, stop in region.parts:
            covered[start:stop] += 1
    assert (covered[1:-1] == 1).all() and covered[0] == covered[-1] == 0
    assert program.node_at(program.regions[-1].start) == program.regions[-1].node
    with pytest.raises(KeyError):
        program.node_at(len(program.words) - 1)


def test_wrong_inputs(compiled):
    program, inputs = compiled
    (name,) = program.inputs
    with pytest.raises(PhonolithError, match="must be"):
        program.image({name: inputs[name][:-1]} if len(inputs[name]) > 1 else {name: inputs[name].astype(np.int32)})
    with pytest.raises(PhonolithError, match="not missing"):
        program.image({})


def test_allocations_do_not_overlap(compiled):
    """Canaries lie between tensors: every byte belongs to one allocation at most."""
    program, inputs = compiled
    plain, filled = program.image(inputs), program.image(inputs, canary_seed=3)
    changed = plain != filled
    for address, data in program.constants:
        assert not changed[address:address + data.size].any()
    for name in inputs:
        np.testing.assert_array_equal(program.read(filled, name), inputs[name])
    assert not program.writable()[[address for address, _ in program.constants]].any()
    assert changed.any()


def test_stray_writes_are_found(compiled):
    program, inputs = compiled
    before = program.image(inputs, canary_seed=1)
    after = before.copy()
    outside = np.flatnonzero(~program.writable())
    after[outside[[5, -1]]] ^= 1
    after[np.flatnonzero(program.writable())[0]] ^= 1
    assert program.stray_writes(before, after).tolist() == outside[[5, -1]].tolist()


def test_the_words_follow_the_image(compiled):
    program, inputs = compiled
    memory = program.with_program(program.image(inputs))
    assert program.program_address >= program.size
    words = memory[program.program_address:].view("<u4")
    np.testing.assert_array_equal(words[:len(program.words)], program.words)
