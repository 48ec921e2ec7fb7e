"""Narrow weights on the RTL: products of 8 to 1 bits, and where the shipped Conformer's cycles go at 8 and at 1 bit.

    python benchmarks/bench_narrow.py

Writes its section of ``docs/results.md``. Every result equals the golden model's. Needs torch (``make setup
EXTRAS=train``), but no recordings: the Conformer is quantized after training, on noise, for cycles alone.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from page import RESULTS, ROOT, percent, table, write_section

from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.quantization import Quantization
from phonolith.compiler.quantize import import_encoder, noise_features, quantize
from phonolith.compiler.timing.report import UNITS, explain_program
from phonolith.compiler.weight_quantizer import WeightScheme
from phonolith.hw.config import MachineConfig
from phonolith.models.checkpoint import load_model
from phonolith.sim.bench import bench_gemm
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine

CHECKPOINT = ROOT / "models/checkpoints/conformer-ctc.safetensors"
# Rows, bits, scheme, block along K; K and N are 768.
PRODUCTS: list[tuple[int, int, str, int | None]] = [
    *((rows, bits, "symmetric", None) for rows in (512, 1) for bits in (8, 4, 2, 1)),
    (512, 2, "symmetric", 64), (512, 2, "asymmetric", 64), (512, 1, "symmetric", 128), (512, 1, "asymmetric", 128),
    (512, 4, "asymmetric", 32), (512, 1, "symmetric", 32),
]
# Bits of weights, of keys and values.
MODELS = [(8, 8), (1, 8), (1, 4)]
FRAMES = 1000


def product(rows: int, bits: int, scheme: str, block: int | None, config: MachineConfig) -> dict:
    """Return the figures of a product; SystemExit unless it is exact."""
    result = bench_gemm(rows, 768, 768, config, bits=bits, scheme=scheme, block=block)
    if not result["bit_exact"]:
        raise SystemExit(f"{rows} rows, {bits} bits, {scheme}, {block}: differs from the golden model")
    print(f"{rows} rows, {bits} bits, {scheme}, block {block}: {result['cycles']:,} cycles", flush=True)
    return result


def product_rows(config: MachineConfig) -> list[list[str]]:
    """Return the table of products, each beside that of as many rows and 8 bits."""
    results = [(each, product(*each, config)) for each in PRODUCTS]
    whole = {rows: result["cycles"] for (rows, bits, _, _), result in results if bits == 8}
    return [[f"{rows}x768x768", str(bits), scheme, str(block or "channel"), f"{result['cycles']:,}",
             f"{result['cycles'] / whole[rows]:.4f}", percent(result["utilisation"]),
             f"{result['engines']['array']['stalled']['drain']:,}"]
            for (rows, bits, scheme, block), result in results]


def conformer(bits: int, kv_bits: int, config: MachineConfig) -> dict:
    """Return cycles, engines, and what each kind of operator needs; SystemExit unless the run is exact."""
    model = load_model(CHECKPOINT)
    noise = noise_features(4, model.features.mels, 0)
    options = Quantization(WeightScheme(bits), kv_bits=kv_bits)
    graph = quantize(import_encoder(model, "conformer-ctc"), noise, options)
    (value,) = graph.inputs
    inputs = {value.name: np.random.default_rng(0).integers(-128, 128, (FRAMES, *value.tail)).astype(np.int8)}
    program = compile_graph(graph, config, FRAMES)
    result = execute_rtl(program, program.image(inputs), machine(config))
    if (program.read(result.image, graph.outputs[0]) != interpret(graph, inputs)[graph.outputs[0]]).any():
        raise SystemExit(f"{bits} bits, {kv_bits} of keys and values: differs from the golden model")
    explained = explain_program(program, config)
    kinds: dict[str, Counter] = {}
    for each in explained["operators"]:
        kinds.setdefault(each["op"], Counter()).update({"cycles": each["predicted_cycles"], **each["roofline"]})
    print(f"Conformer, {bits} and {kv_bits} bits: {result.cycles:,} cycles", flush=True)
    return {"cycles": result.cycles, "engines": result.engines, "kinds": kinds}


def conformer_rows(results: list[dict]) -> list[list[str]]:
    """Return the table of operators: cycles of each model, and what the last one's need most."""
    *_, last = results
    rows = []
    for kind, needs in sorted(last["kinds"].items(), key=lambda item: -item[1]["cycles"]):
        bound = max(UNITS, key=lambda unit: needs[unit])
        rows.append([kind, *(f"{result['kinds'][kind]['cycles']:,}" for result in results),
                     *(f"{needs[unit]:,}" for unit in ("array", "drain", "vector")), bound])
    return [*rows, ["all", *(f"{result['cycles']:,}" for result in results), "", "", "", ""]]


def stall_rows(results: list[dict]) -> list[list[str]]:
    """Return the table of what the array did."""
    rows = []
    for (bits, kv_bits), result in zip(MODELS, results, strict=True):
        array = result["engines"]["array"]
        stalled = {cause: f"{cycles:,}" for cause, cycles in array["stalled"].items()}
        rows.append([f"{bits}, {kv_bits}", f"{array['busy']:,}", stalled["drain"], stalled["token"], stalled["dram"],
                     stalled["config"], f"{array['idle']:,}"])
    return rows


def main() -> None:
    """Measure, and write the section."""
    config = MachineConfig()
    products = product_rows(config)
    results = [conformer(bits, kv_bits, config) for bits, kv_bits in MODELS]
    names = [f"{bits}, {kv_bits}" for bits, kv_bits in MODELS]
    text = "\n".join([
        f"{config.array}, {config.bus_bits}-bit bus, DRAM latency {config.dram_latency} (configuration "
        f"`{config.hash}`); cycles on RTL, results equal to the golden model's. *Against 8 bits*: of the product with "
        "as many rows. *Drain*: cycles in which the array waits for its sums to leave (`phonolith bench gemm M K N "
        "--bits B --scheme S --block N`).", "",
        *table(["M x K x N", "bits", "scheme", "scale per", "cycles", "against 8 bits", "utilisation", "drain"],
               products), "",
        f"The shipped Conformer (4 blocks of 64 columns) on {FRAMES} frames, weights of the blocks and keys and values "
        "of so many bits; cycles by which each kind of operator ends later than all before it, and what those of the "
        "last model need of array, drain and vector unit at least:", "",
        *table(["operator", *names, "array", "drain", "vector", "needs most"], conformer_rows(results)), "",
        "What the array did. It waits for the drain where sums leave more slowly than they are made (with 64 columns "
        "one of 1-bit weights takes 8 steps, and 16 cycles to leave; scores of heads of 16 columns take 16), and where "
        "their VECTOR has not begun: the vector unit is then busy with exponentials and normalisations, which do not "
        "get faster. What waits for a token waits for rows that are still being made.", "",
        *table(["bits", "busy", "waits for the drain", "for a token", "for DRAM", "for its instruction", "idle"],
               stall_rows(results)), ""])
    write_section(Path(__file__).name, text, RESULTS)


if __name__ == "__main__":
    main()
