"""Small programs written by hand, and the DRAM they leave behind, by numpy."""

from dataclasses import dataclass

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig

PROGRAM, A, B, OUTPUT, IMAGE_BYTES = 0x400, 0x1003, 0x2000, 0x3005, 1 << 16
SHIFT = 7
OPERANDS_LOADED, RESULT_WRITTEN = 1 << 0, 1 << 1


@dataclass(frozen=True)
class Case:
    """A DRAM image with a program, and the image expected after it."""

    image: np.ndarray
    program: int
    arguments: tuple[int, ...]
    expected: np.ndarray


def instruction(mnemonic: str, wait: int = 0, signal: int = 0, **operands: int) -> list[int]:
    """Encode one instruction: packed operands as words, VALUE operands as integers; what is not given is 0."""
    definition = isa.BY_MNEMONIC[mnemonic]
    words = [isa.pack(isa.HEADER, opcode=definition.opcode, wait=wait, signal=signal)]
    for operand in definition.operands:
        value = operands.pop(operand.name, 0)
        raw = operand.fields and operand.name == "control"
        words.append(value if raw or value >= 1 << isa.IMMEDIATE_BITS else isa.encode_value(value))
    assert not operands, f"unknown operands {sorted(operands)}"
    return words


def argument(index: int) -> int:
    """Encode a VALUE operand that is the host's argument ``index``."""
    return isa.encode_value(0, 1 + index)


def load(target: isa.Target, signal: int = 0, bank_per_word: int = 0, **operands: int) -> list[int]:
    """Encode LOAD of one row per inner step, one segment each."""
    control = isa.pack(isa.LOAD_CONTROL, target=target, bank_per_word=bank_per_word)
    loops = {"outer_count": 1, "inner_count": 1, "segment_count": 1, "row_words": 1}
    return instruction("LOAD", signal=signal, control=control, **{**loops, **operands})


def tile_program(config: MachineConfig) -> list[int]:
    """Multiply one R x WB by one WB x C tile, requantize to int8 and store row by row."""
    rows, columns, depth = config.rows, config.columns, config.word_bytes
    vector = isa.pack(isa.VECTOR_CONTROL, source=isa.Source.DRAIN, multiplier=isa.Multiplier.IMMEDIATE,
                      saturate=isa.Saturate.INT8, destination=isa.Destination.SCRATCHPAD, destination_byte=1)
    factor = isa.pack(isa.FACTOR, multiplier=1, shift=SHIFT)
    return [
        config.hash_word,
        *load(isa.Target.ACTIVATION, address=A, inner_count=rows, inner_stride=depth, segment_bytes=depth),
        *load(isa.Target.WEIGHT, OPERANDS_LOADED, 1, address=B, segment_bytes=columns * depth),
        *instruction("MATMUL", wait=OPERANDS_LOADED, rows=1, columns=1, k=depth),
        *instruction("VECTOR", signal=RESULT_WRITTEN, control=vector, rows=rows, columns=columns, source_pitch=1,
                     destination_pitch=1, factor=factor),
        *instruction("STORE", wait=RESULT_WRITTEN, address=argument(0), pitch=1, outer_count=1, inner_count=rows,
                     inner_stride=columns + 3, row_bytes=columns),
        *instruction("END"),
    ]


def tile_case(config: MachineConfig, seed: int = 0) -> Case:
    """One tile of random int8 operands at odd addresses; every byte of DRAM is checked."""
    rows, columns, depth = config.rows, config.columns, config.word_bytes
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, IMAGE_BYTES, dtype=np.uint8)
    words = np.array(tile_program(config), "<u4")
    image[PROGRAM:PROGRAM + words.nbytes] = words.view(np.uint8)
    a = image[A:A + rows * depth].view(np.int8).reshape(rows, depth).astype(np.int64)
    b = image[B:B + columns * depth].view(np.int8).reshape(columns, depth).astype(np.int64)
    rounded = a @ b.T + (1 << SHIFT - 1) >> SHIFT
    expected = image.copy()
    for row, values in enumerate(np.clip(rounded, -128, 127).astype(np.int8).view(np.uint8)):
        start = OUTPUT + row * (columns + 3)
        expected[start:start + columns] = values
    return Case(image, PROGRAM, (OUTPUT,), expected)
