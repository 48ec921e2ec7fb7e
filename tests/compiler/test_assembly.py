"""Assembly text: what the listing writes, the assembler reads back to the same words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonolith.compiler.assembler import Emitter, Reg
from phonolith.compiler.assembly import assemble_text, assemble_words
from phonolith.compiler.disassembler import trace
from phonolith.compiler.listing import listing, program_text
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

CONFIG = MachineConfig(rows=8, columns=8)

LOOP = """
; rows of 8 bytes, ARG1 of them, to activation banks
    SET destination=r5 literal=0
next:
    SHIFT destination=r6 a=r5 amount=4
    LOAD address=r6+0x64 segment_bytes=8 target=ACTIVATION   # comment
    ADD destination=r5 a=r5 b=1
    BRANCH_LESS a=r5 b=r1 target=next
    VECTOR rows=1 columns=2 source=ZERO multiplier=IMMEDIATE factor.multiplier=-5 shift=9 wait=LOAD_VECTOR
end: END
"""


def compiled(seed: int):
    graph, inputs = random_graph(seed)
    return compile_graph(graph, CONFIG, len(inputs["x"]))


@pytest.mark.parametrize("seed", range(6))
def test_compiled_programs_round_trip(seed):
    program = compiled(seed)
    again = assemble_text(program_text(program), CONFIG, like=program)
    np.testing.assert_array_equal(again.words, program.words)
    assert again.regions == program.regions
    assert again.words.dtype == np.uint32


def test_hand_written_loop():
    words = assemble_words(LOOP)
    assert [i.operands["address"] for i in trace(words, (3,)) if i.instruction.mnemonic == "LOAD"] == [100, 116, 132]
    vector = trace(words, (1,))[-1]
    assert vector.parts["factor"] == {"multiplier": (1 << 17) - 5, "shift": 9, "blocks": 0}
    assert vector.control["multiplier"] == isa.Multiplier.IMMEDIATE
    np.testing.assert_array_equal(assemble_words(listing(words)), words)


def test_labels_stand_where_branches_go():
    text = listing(assemble_words(LOOP)).splitlines()
    label = next(line for line in text if line.endswith(":"))
    assert text[text.index(label) + 1].split()[0] == "SHIFT"
    assert any(f"target={label[:-1]} " in line for line in text)


def test_text_equals_the_emitter():
    emitter = Emitter()
    emitter.load(target=isa.Target.WEIGHT, address=Reg(3, -4), segment_bytes=1 << 30, transpose=True)
    emitter.end()
    text = "LOAD target=WEIGHT address=r3-4 segment_bytes=0x40000000 transpose=1\nEND"
    np.testing.assert_array_equal(assemble_words(text, CONFIG.hash_word), emitter.assemble(CONFIG)[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=40), st.integers(0, 8))
def test_any_words_round_trip(words, opcode_index):
    """Not only programs: unknown opcodes, unused bits, values outside their enumeration, a cut at the end."""
    some = [i.opcode for i in isa.INSTRUCTIONS][opcode_index]
    words = np.array([words[0], *(w & 0x3FFFFFC0 | some if w & 7 else w for w in words[1:])], np.uint32)
    np.testing.assert_array_equal(assemble_words(listing(words)), words)


@pytest.mark.parametrize(("line", "message"), [
    ("LOAB address=1", "unknown instruction 'LOAB'"),
    ("LOAD address=1", "LOAD needs segment_bytes"),
    ("LOAD address=1 base=0 segment_bytes=8 colour=3", "LOAD has no operand colour"),
    ("LOAD address=1 base=0 segment_bytes=8 target=MOON", "'MOON' is no number; target is one of ACTIVATION, WEIGHT"),
    ("LOAD address=1 base=0 segment_bytes=8 target=9", "target must fit 3 bits, not 9"),
    ("LOAD address=1 base=0 segment_bytes=8 wait=LOAD_MOON", "there is no semaphore LOAD_MOON"),
    ("LOAD address=1 address=2", "address is given twice"),
    ("LOAD address", "'address' is not of the form name=value"),
    ("SET destination=5 literal=0", "destination must be a register, not 5"),
    ("SET destination=r32 literal=0", "register must be 0..31, not 32"),
    ("ADD destination=r1 a=0x1ffffffff b=0", "0x1ffffffff does not fit 32 bits"),
    ("BRANCH_LESS a=0 b=1 target=nowhere", "there is no label 'nowhere'"),
    ("here: here: END", "label 'here' is there twice"),
    (".word", ".word takes one number"),
])
def test_mistakes_name_the_line(line, message):
    with pytest.raises(PhonolithError) as caught:
        assemble_text(f"END\n{line}\n", CONFIG, name="a.s")
    assert caught.value.kind == "assembly"
    assert caught.value.message.startswith(f"a.s:2: {message}")


def test_text_for_another_machine_is_refused():
    with pytest.raises(PhonolithError, match="is for configuration 00000001") as caught:
        assemble_text(".configuration 1\nEND", CONFIG)
    assert caught.value.kind == "wrong-configuration"
