"""Program words as text that :mod:`phonolith.compiler.assembly` turns back into the same words.

One instruction per line, its word index as a comment; labels for branch targets; ``.node`` names the node of the model
that the following instructions compute; ``.word`` holds what is no instruction.
"""

from collections.abc import Iterator

import numpy as np

from phonolith.compiler.disassembler import instruction_text
from phonolith.compiler.program import Program
from phonolith.hw.isa import BY_OPCODE, HEADER, Instruction, unpack

INDENT = "    "
HEADER_BITS = sum(width for _, width in HEADER.values())
BRANCHES = ("BRANCH_LESS", "BRANCH_EQUAL")


def program_text(program: Program) -> str:
    """Return a program's words as text, with the nodes they belong to."""
    return listing(program.words, nodes_by_word(program))


def nodes_by_word(program: Program) -> dict[int, str]:
    """Return the node of each program word by its index."""
    return {word: region.node for region in program.regions
            for start, stop in region.parts for word in range(start, stop)}


def listing(words: np.ndarray, nodes: dict[int, str] | None = None) -> str:
    """Return words (uint32) as text; ``nodes`` names the node of a word by its index."""
    found = list(instructions(words))
    labels = branch_labels(words, found)
    lines, node = [f".configuration {int(words[0]):#010x}"], ""
    for position, instruction in found:
        owner = (nodes or {}).get(position, "")
        lines += [f".node {owner}".rstrip()] if owner != node else []
        lines += [f"{labels[position]}:"] if position in labels else []
        lines.append(f"{INDENT}{item_text(words, position, instruction, labels)} ; {position}")
        node = owner
    if len(words) in labels:
        lines.append(f"{labels[len(words)]}:")
    return "\n".join(lines) + "\n"


def instructions(words: np.ndarray) -> Iterator[tuple[int, Instruction | None]]:
    """Yield (index, instruction) in order; None for a word that begins no instruction."""
    position = 1
    while position < len(words):
        header = int(words[position])
        instruction = BY_OPCODE.get(unpack(HEADER, header)["opcode"])
        if instruction and (header >> HEADER_BITS or position + len(instruction.operands) >= len(words)):
            instruction = None
        yield position, instruction
        position += 1 + (len(instruction.operands) if instruction else 0)


def branch_labels(words: np.ndarray, found: list[tuple[int, Instruction | None]]) -> dict[int, str]:
    """Return a label for each branch target at which an item begins, by word index."""
    starts = {position for position, _ in found} | {len(words)}
    targets = {int(words[position + 1 + instruction.index("target")])
               for position, instruction in found if instruction and instruction.mnemonic in BRANCHES}
    return {target: f"L{target}" for target in targets & starts}


def item_text(words: np.ndarray, position: int, instruction: Instruction | None, labels: dict[int, str]) -> str:
    """Return an instruction, or a word that is none."""
    if instruction is None:
        return f".word {int(words[position]):#010x}"
    return instruction_text(words, position, instruction, labels)
