"""Depthwise convolutions and Conformers on the RTL.

    python benchmarks/bench_conformer.py

Writes its section of ``docs/results.md``, and ``results/conformer.json``. Every result is compared with the golden
model.
"""

import json

import numpy as np
from page import RESULTS, ROOT, percent, table, write_section

from phonolith.compiler.inspect import node_macs
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_conformers import Attending, sized_conformer
from phonolith.compiler.shapes import infer_shapes
from phonolith.hw.config import MachineConfig
from phonolith.sim.bench import bench_dwconv
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine

CONFIG = MachineConfig()
PEAK = CONFIG.rows * CONFIG.columns
CONVOLUTIONS = ((250, 144, 31), (500, 256, 31), (250, 64, 15), (250, 144, 3))
# d, heads, kernel; 250 frames after subsampling, relative positions, 32 channels of 40 mels in front, 11 tokens.
CONFORMERS = ((64, 4, 15), (144, 4, 31), (256, 4, 31))
FRAMES, MELS, CHANNELS, TOKENS, LONGEST = 1003, 40, 32, 11, 256


def convolution(frames: int, channels: int, kernel: int) -> dict:
    """Return the figures of a depthwise convolution; SystemExit unless it is exact."""
    result = bench_dwconv(frames, channels, kernel, CONFIG)
    if not result["bit_exact"]:
        raise SystemExit(f"depthwise {frames} {channels} {kernel} differs from the golden model")
    return {"size": [frames, channels, kernel], **{key: result[key] for key in ("cycles", "macs", "utilisation")}}


def run(width: int, heads: int, kernel: int, layers: int) -> dict:
    """Return cycles, MACs and the array's stalls of a Conformer; SystemExit unless its ids are exact."""
    graph = sized_conformer(FRAMES, MELS, CHANNELS, Attending(heads, width // heads, LONGEST), kernel, layers, TOKENS)
    features = np.random.default_rng(0).integers(-128, 128, (FRAMES, MELS)).astype(np.int8)
    program = compile_graph(graph, CONFIG, FRAMES)
    result = execute_rtl(program, program.image({"features": features}), machine(CONFIG))
    (ids,) = graph.outputs
    if not np.array_equal(program.read(result.image, ids), interpret(graph, {"features": features})[ids]):
        raise SystemExit(f"{graph.name} differs from the golden model")
    shapes = infer_shapes(graph, FRAMES)
    print(f"{graph.name}: {result.cycles:,} cycles", flush=True)
    return {"cycles": result.cycles, "macs": sum(node_macs(node, shapes) for node in graph.nodes),
            "drain": result.engines["array"]["stalled"]["drain"]}


def conformer(width: int, heads: int, kernel: int) -> dict:
    """Return the figures of one block, which are what a second one adds, and of two between features and ids."""
    one, two = (run(width, heads, kernel, layers) for layers in (1, 2))
    block = {key: two[key] - one[key] for key in two}
    return {"width": width, "heads": heads, "kernel": kernel, "block": block, "whole": two}


def rows(results: list[dict]) -> list[list[str]]:
    """Return the table's cells."""
    cells = []
    for each in results:
        block, whole = each["block"], each["whole"]
        cells.append([f"d = {each['width']}, {each['heads']} heads, k = {each['kernel']}", f"{block['cycles']:,}",
                      percent(block["macs"] / PEAK / block["cycles"]), percent(block["drain"] / block["cycles"]),
                      f"{whole['cycles']:,}", percent(whole["macs"] / PEAK / whole["cycles"])])
    return cells


def main() -> None:
    """Measure everything and write it down."""
    convolutions = [convolution(*size) for size in CONVOLUTIONS]
    conformers = [conformer(*size) for size in CONFORMERS]
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/conformer.json").write_text(json.dumps({"convolutions": convolutions, "conformers": conformers}))
    lines = [f"{CONFIG.array}, int8, {CONFIG.bus_bits}-bit bus, DRAM latency {CONFIG.dram_latency} (configuration "
             f"`{CONFIG.hash}`); cycles on RTL, every result equal to the golden model's. Depthwise convolutions "
             "(`phonolith bench dwconv T C K`): k of every C + k - 1 steps of the array are of use, 67.4 % for 31 "
             "taps; x lies channel by channel in DRAM.",
             "", *table(("T x C x k", "cycles", "utilisation"), (
                 ["x".join(map(str, each["size"])), f"{each['cycles']:,}", percent(each["utilisation"])]
                 for each in convolutions)), "",
             f"Conformers, relative positions, random weights, T = 250 after subsampling ({FRAMES} frames of {MELS} "
             f"mels, convolutions of {CHANNELS} channels): a block is what the second one adds; *drain*: the array "
             "waits for the vector unit.", "",
             *table(("Conformer", "cycles per block", "utilisation", "drain", "two blocks, features to ids",
                     "utilisation"), rows(conformers))]
    write_section("bench_conformer.py", "\n".join([*lines, ""]), RESULTS)


if __name__ == "__main__":
    main()
