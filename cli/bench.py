"""``bench``: single products on the accelerator, and the simulator's own speed."""

from pathlib import Path
from typing import Any

import click

from phonolith.cli.common import PATH, Result, verb
from phonolith.cli.explain import EXPLAIN, print_explanation, print_prediction
from phonolith.cli.output import cell, percent, print_facts, print_table

SIZE = click.IntRange(min=1)
BITS = click.option("--bits", type=click.Choice(["8", "4", "2", "1"]), default="8", show_default=True,
                    help="Bits of a weight.")


@click.group()
def bench() -> None:
    """Measure one product, or how fast the simulator runs."""


def render_product(result: Result) -> None:
    """Print the figures of a product and where each engine's cycles went."""
    print_facts([
        ("cycles", cell(result["cycles"])),
        ("MACs", cell(result["macs"])),
        ("utilisation", percent(result["utilisation"])),
        ("bit-exact", cell(result["bit_exact"])),
    ])
    print_engines(result["engines"])
    if "operators" in result:
        print_prediction(result, result["cycles"])
    if "products" in result:
        print_explanation(result["products"])


def print_engines(engines: dict[str, dict[str, Any]]) -> None:
    """Print busy, idle and stalled cycles of every engine."""
    causes = sorted({cause for engine in engines.values() for cause in engine["stalled"]})
    rows = [(name, engine["busy"], engine["idle"], *(engine["stalled"].get(cause, 0) for cause in causes))
            for name, engine in engines.items()]
    print()
    print_table(("engine", "busy", "idle", *causes), rows)


@bench.command()
@click.argument("m", type=SIZE)
@click.argument("k", type=SIZE)
@click.argument("n", type=SIZE)
@BITS
@click.option("--scheme", type=click.Choice(["symmetric", "asymmetric"]), default="symmetric", show_default=True,
              help="Of constant weights: with or without zero points.")
@click.option("--block", type=click.Choice(["channel", "32", "64", "128", "256"]), default="channel", show_default=True,
              help="What of K shares a scale.")
@click.option("--transpose-b", is_flag=True, help="B is made at run time, N x K (as in Q K^T).")
@click.option("--runtime-b", is_flag=True, help="B is made at run time, K x N (as in P V).")
@EXPLAIN
@click.option("--a", type=PATH, metavar="NPY", help="int8 matrix M x K; random by default.")
@click.option("--b", type=PATH, metavar="NPY", help="int8 matrix B; random by default.")
@verb(render_product, exit_code=lambda result: 0 if result["bit_exact"] else 1)
def gemm(config, m: int, k: int, n: int, bits: str, scheme: str, block: str, transpose_b: bool, runtime_b: bool,
         explained: bool, a: Path | None, b: Path | None) -> Result:
    """Multiply A (M x K) by B (K x N) on the RTL; by default B is a constant weight."""
    from phonolith.sim.bench import bench_gemm

    if transpose_b and runtime_b:
        raise click.UsageError("--transpose-b and --runtime-b exclude each other.")
    return bench_gemm(m, k, n, config, transpose_b=transpose_b, runtime_b=runtime_b, a=a, b=b, explained=explained,
                      bits=int(bits), scheme=scheme, block=None if block == "channel" else int(block))


@bench.command()
@click.argument("frames", type=SIZE, metavar="T")
@click.argument("channels", type=SIZE, metavar="C")
@click.argument("kernel", type=SIZE, metavar="K")
@EXPLAIN
@verb(render_product, exit_code=lambda result: 0 if result["bit_exact"] else 1)
def dwconv(config, frames: int, channels: int, kernel: int, explained: bool) -> Result:
    """Convolve T steps of C channels, each with a kernel of K of its own (depthwise), on the RTL."""
    from phonolith.sim.bench import bench_dwconv

    return bench_dwconv(frames, channels, kernel, config, explained=explained)


@bench.command()
@BITS
@verb(lambda result: print_facts((name, cell(value)) for name, value in result.items()))
def speed(config, bits: str) -> Result:
    """Measure simulated cycles per CPU second, and what the build costs."""
    from phonolith.sim.bench import bench_speed

    return bench_speed(config, int(bits))
