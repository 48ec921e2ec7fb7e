"""``simulate`` and ``verify``: run programs and compare the rungs."""

from pathlib import Path

import click

from phonolith.cli.common import MODEL, NEW_FILE, PATH, CommaList, Result, verb
from phonolith.cli.output import cell, percent, print_facts

RUNGS = ("golden", "iss", "rtl")


def render_simulation(result: Result) -> None:
    """Print what was heard, whether it is right to the bit, and what it cost."""
    dram = result["dram_bytes"]
    print_facts([
        ("transcript", result["transcript"] or "(nothing heard)"),
        ("said", result.get("reference") or "(not known)"),
        ("golden model", comparison(result)),
        ("cycles", cell(result["cycles"])),
        ("utilisation", percent(result["utilisation"])),
        ("latency", f"{result['latency_ms']:.3f} ms, {result['real_time_factor']:.2g} of real time"),
        ("energy", f"{result['energy_uj']:.1f} uJ"),
        ("area", f"{cell(result['area_um2'])} um2"),
        ("DRAM", f"{cell(dram['read'])} bytes read, {cell(dram['written'])} written"),
        ("simulator", f"{cell(result['simulated_cycles_per_second'])} cycles/s"),
    ])


def comparison(result: Result) -> str:
    """Say whether the RTL's tensors equal the golden model's."""
    if not result["bit_exact"]:
        return "NOT bit-exact: run `phonolith verify` on this utterance to find the first difference"
    return f"bit-exact: all {result['tensors_compared']} tensors equal"


@click.command()
@click.argument("audio", type=PATH, metavar="WAV|NPY")
@MODEL
@click.option("--waves", type=PATH, metavar="FILE.vcd", help="Write waveforms (slow).")
@click.option("--trace", type=NEW_FILE, metavar="FILE.json",
              help="Write what engines and bus did, for Perfetto or Chrome (docs/tracing.md).")
@click.option("--program", type=PATH, metavar="FILE", help="Run a program that `phonolith compile` made of the model.")
@verb(render_simulation, exit_code=lambda result: 0 if result["bit_exact"] else 1)
def simulate(config, audio: Path, model: str, waves: Path | None, trace: Path | None,
             program: Path | None) -> Result:
    """Run one utterance on the RTL, cycle by cycle: transcript, cycles, energy, area."""
    from phonolith.reports.simulation import simulate as run

    return run(audio, model, config, waves, program, trace)


def render_verification(result: Result) -> None:
    """Print how many runs were compared, and the first difference if there is one."""
    print_facts((name, cell(result[name])) for name in ("checked", "failed", "tensors_compared", "memories_compared")
                if name in result)
    difference = dict(result["first_difference"] or {})
    smallest = difference.pop("smallest", None)
    if difference:
        print("first difference")
        print_facts((f"  {name}", cell(value)) for name, value in difference.items())
    if smallest:
        print("smallest program that differs")
        print("\n".join(f"  {line}" for line in smallest.pop("program")))
        print_facts((f"  {name}", cell(value)) for name, value in smallest.items())
    print("coverage")
    print_facts((f"  {group}", reached(counts)) for group, counts in result["coverage"].items())


def reached(counts: dict[str, int]) -> str:
    """Say how many of some things happened, and which never did."""
    never = [name for name, count in counts.items() if not count]
    seen = f"{len(counts) - len(never)} of {len(counts)}"
    return f"{seen}; never: {', '.join(never)}" if never else seen


def _rungs(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [rung for rung in value if rung not in RUNGS]
    if unknown or len(value) < 2:
        raise click.BadParameter(f"{','.join(value)!r} must be two or more of {', '.join(RUNGS)}.")
    return value


@click.command()
@click.argument("audio", type=PATH, metavar="[WAV|NPY]...", nargs=-1)
@click.option("--data", type=PATH, metavar="DIR", help="Recordings to make strings of.")
@click.option("--strings", type=click.IntRange(min=1), default=5, show_default=True,
              help="Strings made of --data.")
@MODEL
@click.option("--random", "count", type=click.IntRange(min=1), metavar="N",
              help="Check N random cases instead.")
@click.option("--kind", type=click.Choice(["graph", "program"]), default="graph",
              help="What random cases are: compiled graphs, or instruction streams that no compiler made.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="First seed of random cases.")
@click.option("--stalls", is_flag=True, help="Hold up every AXI channel at random (random cases only).")
@click.option("--rungs", type=CommaList(), default=",".join(RUNGS), show_default=True,
              callback=_rungs, help="What to compare.")
@click.option("--waves", type=NEW_FILE, metavar="FILE.vcd",
              help="Write waveforms around the first difference on RTL (not for random programs).")
@verb(render_verification, exit_code=lambda result: 1 if result["failed"] else 0)
def verify(config, audio: tuple[Path, ...], data: Path | None, strings: int, model: str, count: int | None,
           kind: str, seed: int, stalls: bool, rungs: tuple[str, ...], waves: Path | None) -> Result:
    """Compare golden model, instruction-set simulator and RTL on every tensor.

    On utterances (files, or strings of the recordings in --data), on random graphs, or on random programs
    (instruction-set simulator and RTL, all of DRAM and on-chip memory). Exit code 1 on any difference.
    """
    from phonolith.sim import verify as ladder

    if sum((bool(audio), data is not None, count is not None)) != 1:
        raise click.UsageError("Give audio files, or --data DIR, or --random N: exactly one of them.")
    if waves is not None and count is not None and kind == "program":
        raise click.UsageError("--waves does not go with --kind program.")
    if count is not None:
        return ladder.verify_random(kind, count, config, seed, rungs, stalls, waves)
    if data is not None:
        return ladder.verify_strings(data, strings, model, config, rungs, seed, waves)
    return ladder.verify_utterances(audio, model, config, rungs, waves)
