"""One product and the shipped encoder on machines of several shapes: cycles on the RTL beside those predicted.

    python benchmarks/bench_machines.py

Writes its section of ``docs/results.md``, and ``results/machines.json``. Every result is compared with the golden
model.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from page import RESULTS, ROOT, percent, prediction, table, write_section

from phonolith.compiler import model_file
from phonolith.compiler.ir import Graph
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.timing.report import UNITS, explain_program
from phonolith.hw.config import MachineConfig
from phonolith.sim.bench import bench_gemm
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine

ARRAYS, BUSES = ("8x8", "8x32", "12x20", "32x32"), (64, 256)
PRODUCT = (128, 512, 512)
MODEL, FRAMES = "encoder-ctc-w8", 851


def measure_product(config: MachineConfig) -> dict:
    """Return the figures of a product; SystemExit unless it is exact."""
    result = bench_gemm(*PRODUCT, config, explained=True)
    return figures(result["cycles"], result["macs"], result["bit_exact"], result, config)


@cache
def encoder() -> tuple[Graph, dict[str, np.ndarray], np.ndarray]:
    """Return the shipped encoder, noise to hear, and the ids that the golden model makes of it."""
    graph = model_file.load(model_file.resolve(MODEL))
    inputs = {graph.inputs[0].name: np.random.default_rng(0).integers(-100, 100, (FRAMES, 40)).astype(np.int8)}
    return graph, inputs, interpret(graph, inputs)[graph.outputs[0]]


def measure_encoder(config: MachineConfig) -> dict:
    """Return the figures of the encoder; SystemExit unless it is exact."""
    graph, inputs, expected = encoder()
    program = compile_graph(graph, config, FRAMES)
    result = execute_rtl(program, program.image(inputs), machine(config))
    exact = np.array_equal(program.read(result.image, graph.outputs[0]), expected)
    return figures(result.cycles, sum(region.macs for region in program.regions), exact,
                   explain_program(program, config), config)


def figures(cycles: int, macs: int, exact: bool, explained: dict, config: MachineConfig) -> dict:
    """Return what is known of a run; SystemExit unless it is exact."""
    if not exact:
        raise SystemExit(f"{config.array} with a bus of {config.bus_bits} bits differs from the golden model")
    needs = {unit: sum(each["roofline"][unit] for each in explained["operators"]) for unit in UNITS}
    predicted = explained["predicted_cycles"]
    print(f"{config.array}, {config.bus_bits}-bit bus: {cycles:,} cycles, predicted {predicted:,}", flush=True)
    return {"array": config.array, "bus_bits": config.bus_bits, "cycles": cycles, "predicted": predicted,
            "utilisation": macs / (config.rows * config.columns * cycles), "needs": needs,
            "bound": max(UNITS, key=lambda unit: needs[unit])}


def row(result: dict) -> list[str]:
    """Return the cells of one machine."""
    return [result["array"], f"{result['bus_bits']} bits", f"{result['cycles']:,}", prediction(result),
            percent(result["utilisation"]), f"{result['bound']} ({max(result['needs'].values()):,})"]


def section(products: list[dict], encoders: list[dict]) -> str:
    """Return the text of the section."""
    config, (graph, _, ids) = MachineConfig(), encoder()
    header = ("array", "bus", "cycles", "predicted", "utilisation", "needed longest")
    lines = [
        f"DRAM latency {config.dram_latency}; memories as in the default machine. *Predicted*: the compiler's timing "
        "model (`--explain`), which knows the program and the machine's dimensions, and its distance from the RTL. "
        "*Needed longest*: of array, bus, drain, vector engine and stores, the unit that all operators together need "
        "for most cycles.", "",
        f"{'x'.join(map(str, PRODUCT))}:", "", *table(header, map(row, products)), "",
        f"The shipped encoder (`{graph.name}`), {FRAMES} feature frames of noise, {len(ids)} output frames, features "
        "to ids:", "", *table(header, map(row, encoders))]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write section and figures."""
    configs = [MachineConfig.load(array=array, bus_bits=bits) for array in ARRAYS for bits in BUSES]
    products = [measure_product(config) for config in configs]
    encoders = [measure_encoder(config) for config in (MachineConfig(), *configs)]
    write_section(Path(__file__).name, section(products, encoders), RESULTS)
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/machines.json").write_text(json.dumps({"product": products, "encoder": encoders}, indent=1) + "\n")


if __name__ == "__main__":
    main()
