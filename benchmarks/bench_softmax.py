"""Error of attention with exponentials of 8 and 16 bits against float, and what each costs.

    python benchmarks/bench_softmax.py

Prints the tables of docs/decisions/0005-wide-softmax.md and writes ``results/softmax.json``. Errors are those of the
int8 result before its rounding, in its steps; "two tables" is the high and low byte of one table of 256 exponentials,
which the decision rejects.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonolith.compiler.fixed_point import (
    encode_multiplier,
    encode_reciprocal,
    exponential_table,
    far_offset,
    wide_exponential_tables,
)
from phonolith.compiler.integerize import EXPONENT_STEP, WIDE_EXPONENT_STEP
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.hw.config import MachineConfig
from phonolith.sim.golden.ops import softmax_exp
from phonolith.sim.ladder import execute_rtl, first_difference, machine, make_case

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (256, 499, 1500)
ROWS, WIDTH, SCORE_SCALE = 300, 16, 0.0005
COST_LENGTHS, COST_HEADS, COST_DEPTH = (200, 499, 1500), 3, 32


def eight_bits(scores: np.ndarray) -> np.ndarray:
    """Return the exponentials of 8 bits."""
    multiplier, shift = encode_multiplier(SCORE_SCALE / EXPONENT_STEP)
    return softmax_exp(scores, dtype="uint8", table=exponential_table(EXPONENT_STEP), multiplier=multiplier,
                       shift=shift).astype(float)


def two_tables(scores: np.ndarray) -> np.ndarray:
    """Return the exponentials of 16 bits of one index of 8 bits."""
    step = math.log(2 * 65535) / 255
    index = np.minimum(np.rint((scores.max(axis=1, keepdims=True) - scores.astype(float)) * SCORE_SCALE / step), 255)
    return np.where(index < 255, np.rint(65535 * np.exp(-step * index)), 0)


def three_tables(scores: np.ndarray) -> np.ndarray:
    """Return the exponentials of 16 bits of ``softmax_exp`` with an offset."""
    multiplier, shift = encode_multiplier(SCORE_SCALE / WIDE_EXPONENT_STEP)
    high, low, far = softmax_exp(
        scores, dtype="uint8", table=wide_exponential_tables(WIDE_EXPONENT_STEP), multiplier=multiplier, shift=shift,
        offset=far_offset(multiplier, shift)).astype(float)
    return 256 * high + low + far


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "8 bits": eight_bits, "16 bits, two tables": two_tables, "16 bits": three_tables}


def normal(rng: np.random.Generator, frames: int, spread: float) -> np.ndarray:
    """Return scores of one standard deviation in the exponent."""
    return rng.normal(0, spread, (ROWS, frames))


def long_tail(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return rows whose scores all lie 1 to 9 below the first."""
    scores = np.broadcast_to(-rng.uniform(1, 9, (ROWS, 1)), (ROWS, frames)).copy()
    scores[:, 0] = 0
    return scores


def neighbours(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return rows that attend to the frames around one."""
    distance = (np.arange(frames) - rng.uniform(0, frames, (ROWS, 1))) / rng.uniform(2, 30, (ROWS, 1))
    return rng.normal(0, 0.3, (ROWS, frames)) - distance**2 / 2


KINDS = {
    "flat, spread 1": lambda rng, frames: normal(rng, frames, 1.0),
    "spread 4": lambda rng, frames: normal(rng, frames, 4.0),
    "neighbours": neighbours,
    "one above a long tail": long_tail,
}


def error(kind: Callable, frames: int) -> dict[str, tuple[float, float]]:
    """Return root mean square and largest error of each way."""
    rng = np.random.default_rng(frames)
    scores = np.clip(np.rint(kind(rng, frames) / SCORE_SCALE), -32768, 32767).astype(np.int16)
    values = np.concatenate([np.full((1, WIDTH), 127), rng.integers(-128, -60, (frames - 1, WIDTH))]) \
        if kind is long_tail else rng.integers(-128, 128, (frames, WIDTH))
    real = np.exp((scores - scores.max(axis=1, keepdims=True).astype(float)) * SCORE_SCALE)
    wanted = real @ values / real.sum(axis=1, keepdims=True)
    found = {name: way(scores) for name, way in WAYS.items()}
    off = {name: each @ values / each.sum(axis=1, keepdims=True) - wanted for name, each in found.items()}
    return {name: (float(np.sqrt(np.mean(each**2))), float(np.abs(each).max())) for name, each in off.items()}


def attention(bits: int) -> Graph:
    """Return attention over three inputs."""
    wide = bits == 16
    multiplier, shift = encode_multiplier(SCORE_SCALE / (WIDE_EXPONENT_STEP if wide else EXPONENT_STEP))
    numerator, row_shift = encode_reciprocal(1.0)
    table = wide_exponential_tables(WIDE_EXPONENT_STEP) if wide else exponential_table(EXPONENT_STEP)
    extra, planes = ({"offset": far_offset(multiplier, shift)}, {"wide": True}) if wide else ({}, {})
    heads = {"heads": COST_HEADS}
    nodes = (
        Node("s", "matmul", ("q", "k"), "int16", {}, {"transpose_b": True, "multiplier": 1, "shift": 4, **heads}),
        Node("e", "softmax_exp", ("s",), "uint8", {"table": table},
             {"multiplier": multiplier, "shift": shift, **extra}),
        Node("y", "matmul", ("e", "v"), "int8", {}, {"transpose_b": False, "normalize": True,
             "numerator": numerator, "shift": row_shift, **planes, **heads}),
    )
    return Graph("attention", tuple(Value(name, "int8", (COST_HEADS * COST_DEPTH,)) for name in "qkv"), nodes, ("y",))


def cycles(bits: int, frames: int, config: MachineConfig) -> int:
    """Return the cycles of one attention on RTL; SystemExit unless it is exact."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(-128, 128, (frames, COST_HEADS * COST_DEPTH)).astype(np.int8) for name in "qkv"}
    case = make_case(attention(bits), inputs, config)
    result = execute_rtl(case.program, case.image, machine(config))
    if first_difference(case, "rtl", result.image):
        raise SystemExit(f"attention of {bits} bits differs from the golden model")
    return result.cycles


def main() -> None:
    """Print and write both tables."""
    found = {kind: {frames: error(scores, frames) for frames in LENGTHS} for kind, scores in KINDS.items()}
    print(f"| scores | T | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    for kind, lengths in found.items():
        for frames, ways in lengths.items():
            cells = (f"{rms:.2f} ({largest:.1f})" for rms, largest in ways.values())
            print(f"| {kind} | {frames:,} | {' | '.join(cells)} |")
    cost = {frames: {bits: cycles(bits, frames, MachineConfig()) for bits in (8, 16)} for frames in COST_LENGTHS}
    print(f"\ncycles of attention, {COST_HEADS} heads of {COST_DEPTH}, 16x16\n")
    print("| T | 8 bits | 16 bits |\n|---|---|---|")
    for frames, counts in cost.items():
        print(f"| {frames:,} | {counts[8]:,} | {counts[16]:,} |")
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/softmax.json").write_text(json.dumps({"error": found, "cycles": cost}, indent=1) + "\n")


if __name__ == "__main__":
    main()
