"""RMSNorm as a program, on the hardware as it is: the vector engine takes functions that no operator has yet."""

from math import isqrt

import numpy as np
import pytest

from phonolith.compiler.assembler import Emitter
from phonolith.compiler.synchronize import synchronize
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Reduce, Saturate, Source, Target
from phonolith.sim.iss import run as run_iss
from phonolith.sim.ladder import machine

CONFIG = MachineConfig(rows=8, columns=8)
ROWS, WIDTH = 11, 29
NUMERATOR, FACTOR_SHIFT, EPSILON = 44_000, 23 - 10 + 16, 7
GAMMA_SHIFT = 17
X, GAMMA, Y, PROGRAM, SIZE = 0, 1024, 2048, 4096, 16384
PITCH = -(-WIDTH // CONFIG.columns)


def shifted(value: int, shift: int) -> int:
    """Round half up."""
    return value + (1 << shift >> 1) >> shift


def rms_norm(x: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Return int8 ``x * gamma * NUMERATOR / sqrt(sum x^2 + EPSILON)`` in Python integers, row by row."""
    result = np.zeros(x.shape, np.int8)
    for r, row in enumerate(x.tolist()):
        total = sum(value * value for value in row) + EPSILON
        exponent = (48 - total.bit_length()) // 2
        factor = (NUMERATOR << 31) // (isqrt(total << 2 * exponent) << 8)
        for c, value in enumerate(row):
            normal = min(max(shifted(value * factor, FACTOR_SHIFT - exponent), -32768), 32767)
            result[r, c] = min(max(shifted(normal * int(gamma[c]), GAMMA_SHIFT), -128), 127)
    return result


def rms_norm_program() -> np.ndarray:
    """Return the program: 16-bit rows in, sum of squares, inverse square root, two multiplications, bytes out."""
    emit = Emitter()
    emit.load(target=Target.PARAMETER, address=GAMMA, segment_bytes=8 * WIDTH)
    for first in range(0, ROWS, CONFIG.rows):
        rows = min(CONFIG.rows, ROWS - first)
        block = {"rows": rows, "columns": WIDTH, "source": Source.SCRATCHPAD, "source_pitch": PITCH}
        normal = 64
        emit.load(target=Target.SCRATCHPAD, address=X + first * 2 * WIDTH, row_words=PITCH, outer_count=rows,
                  outer_stride=2 * WIDTH, segment_bytes=2 * WIDTH)
        emit.vector(**block, multiplier=Multiplier.SQUARE, reduce=Reduce.SUM, reduce_register=2)
        emit.rowop(function=1, source_register=2, destination_register=3, rows=rows,
                   factor=(NUMERATOR, FACTOR_SHIFT), epsilon=EPSILON)
        emit.vector(**block, multiplier=Multiplier.ROW, factor_register=3, saturate=Saturate.INT16,
                    destination=Destination.SCRATCHPAD, destination_base=normal, destination_pitch=PITCH)
        emit.vector(**block | {"source_base": normal}, multiplier=Multiplier.COLUMN, saturate=Saturate.INT8,
                    destination=Destination.SCRATCHPAD, destination_base=128, destination_pitch=PITCH,
                    destination_byte=True)
        emit.store(address=Y + first * WIDTH, base=128, pitch=PITCH, outer_count=rows, outer_stride=WIDTH,
                   row_bytes=WIDTH)
    emit.end()
    return synchronize(emit.assemble(CONFIG)[0], CONFIG)


@pytest.fixture(scope="module")
def case():
    """Memory image with random rows (one constant zero, one extreme) and the expected result."""
    rng = np.random.default_rng(3)
    x = rng.integers(-3000, 3000, (ROWS, WIDTH)).astype(np.int16)
    x[4], x[9] = 0, np.where(np.arange(WIDTH) % 2, -32768, 32767)
    gamma = rng.integers(-65536, 65536, WIDTH)
    image = np.zeros(SIZE, np.uint8)
    image[X:X + x.nbytes] = x.reshape(-1).view(np.uint8)
    parameters = np.stack([np.zeros(WIDTH), (gamma & 0x1FFFF) | GAMMA_SHIFT << 17], axis=1).astype("<u4")
    image[GAMMA:GAMMA + parameters.nbytes] = parameters.reshape(-1).view(np.uint8)
    return image, rms_norm(x, gamma)


def result(image: np.ndarray) -> np.ndarray:
    return image[Y:Y + ROWS * WIDTH].view(np.int8).reshape(ROWS, WIDTH)


def test_reference_normalises(case):
    assert len(np.unique(case[1])) > 100


def test_on_the_instruction_set_simulator(case):
    image, expected = case
    assert np.array_equal(result(run_iss(rms_norm_program(), image, CONFIG)), expected)


def test_on_rtl(case):
    image, expected = case
    words = rms_norm_program().astype("<u4").view(np.uint8)
    memory = image.copy()
    memory[PROGRAM:PROGRAM + words.size] = words
    run = machine(CONFIG).run(memory, PROGRAM, max_cycles=100_000)
    assert run.done
    assert np.array_equal(result(run.image), expected)
