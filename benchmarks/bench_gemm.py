"""Single products on the RTL, beside the same products on other accelerators (``peers.toml``).

    python benchmarks/bench_gemm.py

Writes its section of ``docs/results.md``, and ``results/gemm.json``. Every result is compared with the golden model.
"""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

from page import RESULTS, ROOT, percent, prediction, table, write_section

from phonolith.hw.config import MachineConfig
from phonolith.sim.bench import bench_gemm

PEERS = Path(__file__).with_name("peers.toml")
NOT_MEASURED = "-"

# M, K, N, whether B is row-major along K, DRAM latency.
Key = tuple[int, int, int, bool, int]


def key(product: dict) -> Key:
    """Return what was multiplied, and at which latency."""
    return (product["m"], product["k"], product["n"], product.get("transpose_b", False),
            product.get("latency", MachineConfig().dram_latency))


def measure(product: Key, config: MachineConfig) -> dict:
    """Return our figures of a product; SystemExit unless it is exact."""
    m, k, n, transpose_b, latency = product
    result = bench_gemm(m, k, n, replace(config, dram_latency=latency), transpose_b=transpose_b, explained=True)
    if not result["bit_exact"]:
        raise SystemExit(f"{name(product)} differs from the golden model")
    (operator,) = result["operators"]
    print(f"{name(product)}: {result['cycles']:,} cycles", flush=True)
    return {"product": product, "cycles": result["cycles"], "utilisation": result["utilisation"],
            "predicted": result["predicted_cycles"], "bound": operator["bound"], "roofline": operator["roofline"],
            "engines": result["engines"]}


def name(product: Key) -> str:
    """Name a product and what is special about it."""
    m, k, n, transpose_b, latency = product
    special = f", latency {latency}" if latency != MachineConfig().dram_latency else ""
    return f"{m}x{k}x{n}{' `--transpose-b`' if transpose_b else ''}{special}"


def bound(result: dict) -> str:
    """Say which unit is busy longest, and how long."""
    return f"{result['bound']} ({max(result['roofline'].values()):,})"


def theirs(machine: dict, product: Key) -> str:
    """Return a peer's figures of a product."""
    found = next((each for each in machine["product"] if key(each) == product), {})
    shares = [f"{found[each]} %{note}" for each, note in (("utilisation", ""), ("best", " by hand")) if each in found]
    cycles = [f"{found['cycles']:,} cycles"] if "cycles" in found else []
    return ", ".join(shares + cycles) or NOT_MEASURED


def beside_peers(results: list[dict], machines: list[dict]) -> list[str]:
    """Return the table of our default machine and of others."""
    rows = [[name(result["product"]), f"{result['cycles']:,}", percent(result["utilisation"]), prediction(result),
             bound(result), *(theirs(machine, result["product"]) for machine in machines)] for result in results]
    return table(["M x K x N", "cycles", "utilisation", "predicted", "bound by",
                  *(machine["name"] for machine in machines)], rows)


def section(results: list[dict], machines: list[dict]) -> str:
    """Return the text of the section."""
    config = MachineConfig()
    lines = [
        f"Ours: {config.array}, int8, {config.bus_bits}-bit bus, DRAM latency {config.dram_latency} unless said, "
        f"{config.sram_bytes:,} bytes of SRAM (configuration `{config.hash}`). Cycles on RTL under Verilator, from the "
        "start command to the last result in DRAM, program fetch included; every result equals the golden model's. "
        "*Predicted* is the timing model's figure and its distance, *bound by* the unit that is needed longest and for "
        "how many cycles (`phonolith bench gemm M K N --explain`).", "",
        *beside_peers(results, machines), "",
        "The others (`benchmarks/peers.toml`); utilisation with their own tiling, and by hand:", "",
        *(f"- **{each['name']}** {each['version']}: {each['provenance']} ({each['tool']}; {each['date']}). "
          f"{each['configuration']}." for each in machines)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write section and figures."""
    machines = tomllib.loads(PEERS.read_text())["machine"]
    products = list(dict.fromkeys(key(product) for machine in machines for product in machine["product"]))
    results = [measure(product, MachineConfig()) for product in products]
    write_section(Path(__file__).name, section(results, machines), RESULTS)
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/gemm.json").write_text(json.dumps({"products": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
