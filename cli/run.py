"""``simulate`` and ``verify``: run programs and compare the rungs."""

from pathlib import Path

import click

from phonolith.cli.common import MODEL, NEW_FILE, PATH, CommaList, Result, verb
from phonolith.cli.explain import EXPLAIN_RUN, print_prediction
from phonolith.cli.output import cell, percent, print_facts, print_table

RUNGS = ("golden", "iss", "rtl")
CHUNK_COLUMNS = ("frames", "rows", "cycles", "latency_ms")


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
    if "operators" in result:
        print_prediction(result, result["cycles"])
    if "chunks" in result:
        print(f"chunks of {result['chunk_ms']:g} ms, each ready {result['max_latency_ms']:.3f} ms after its last frame "
              "or earlier")
        print_table(("chunk", *CHUNK_COLUMNS), ((number, *(chunk[name] for name in CHUNK_COLUMNS))
                                                for number, chunk in enumerate(result["chunks"])))


def comparison(result: Result) -> str:
    """Say whether the RTL's tensors equal the golden model's."""
    if not result["bit_exact"] and "chunks" in result:
        return f"NOT bit-exact: first {cell(result['first_difference'])}"
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
@click.option("--stream", is_flag=True, help="Chunk by chunk, with the latency of each (docs/streaming.md).")
@EXPLAIN_RUN
@verb(render_simulation, exit_code=lambda result: 0 if result["bit_exact"] else 1)
def simulate(config, audio: Path, model: str, waves: Path | None, trace: Path | None,
             program: Path | None, stream: bool, explained: bool) -> Result:
    """Run one utterance on the RTL, cycle by cycle: transcript, cycles, energy, area."""
    from phonolith.reports.simulation import simulate as run
    from phonolith.reports.streaming import simulate_stream

    if stream and (waves or trace or program or explained):
        raise click.UsageError("--stream goes with none of --waves, --trace, --program and --explain.")
    if stream:
        return simulate_stream(audio, model, config)
    return run(audio, model, config, waves, program, trace, explained)


def render_verification(result: Result) -> None:
    """Print how many runs were compared, and the first difference if there is one."""
    print_facts((name, cell(result[name])) for name in ("checked", "failed", "tensors_compared", "memories_compared")
                if name in result)
    if "injected" in result:
        print("injected faults")
        print_facts((f"  {each['case']}", render_injection(each)) for each in result["injected"])
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


def render_injection(injected: dict) -> str:
    """Say what was flipped, when, and what came of it."""
    effect = f"found ({injected['effect']})" if injected["found"] else injected["effect"]
    return f"{injected['register']} bit {injected['bit']} in cycle {injected['cycle']}: {effect}"


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


def _bits(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    """Numbers are checked by the library."""
    if value is None or value == "any":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of bits nor any.")
    return int(value)


@click.command()
@click.argument("audio", type=PATH, metavar="[WAV|NPY]...", nargs=-1)
@click.option("--data", type=PATH, metavar="DIR", help="Recordings to make strings of.")
@click.option("--strings", type=click.IntRange(min=1), default=5, show_default=True,
              help="Strings made of --data.")
@MODEL
@click.option("--random", "count", type=click.IntRange(min=1), metavar="N",
              help="Check N random cases instead.")
@click.option("--kind", type=click.Choice(["graph", "conformer", "program"]), default="graph",
              help="Random cases: compiled graphs, whole Conformers, or instruction streams that no compiler made.")
@click.option("--bits", metavar="B|any", callback=_bits,
              help="Bits of the weights of random graphs and Conformers: 1, 2, 4 or 8; any of them by default.")
@click.option("--scheme", metavar="S",
              help="Their scales and zero points: tensor, symmetric or asymmetric (per channel), or per block, "
                   "symmetric-32 or asymmetric-128, for example.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="First seed of random cases.")
@click.option("--stalls", is_flag=True, help="Hold up every AXI channel at random (random cases only).")
@click.option("--rungs", type=CommaList(), default=",".join(RUNGS), show_default=True,
              callback=_rungs, help="What to compare.")
@click.option("--inject-fault", "fault", type=click.IntRange(min=0), metavar="SEED",
              help="Flip one register bit of the RTL in one cycle of each case, both drawn from SEED, and see whether "
                   "it is found. Without a case: on the clip of the demo.")
@click.option("--waves", type=NEW_FILE, metavar="FILE.vcd",
              help="Write waveforms around the first difference on RTL (not for random programs).")
@verb(render_verification, exit_code=lambda result: 1 if result["failed"] else 0)
def verify(config, audio: tuple[Path, ...], data: Path | None, strings: int, model: str, count: int | None,
           kind: str, bits: int | str | None, scheme: str | None, seed: int, stalls: bool, rungs: tuple[str, ...],
           fault: int | None, waves: Path | None) -> Result:
    """Compare golden model, instruction-set simulator and RTL on every tensor.

    On utterances (files, or strings of the recordings in --data), on random graphs, or on random programs
    (instruction-set simulator and RTL, all of DRAM and on-chip memory). Exit code 1 on any difference.
    """
    from phonolith.sim import verify as ladder

    chosen = sum((bool(audio), data is not None, count is not None))
    if chosen > 1 or (chosen == 0 and fault is None):
        raise click.UsageError("Give audio files, or --data DIR, or --random N: exactly one of them.")
    if waves is not None and (fault is not None or (count is not None and kind == "program")):
        raise click.UsageError("--waves goes neither with --kind program nor with --inject-fault.")
    if (bits, scheme) != (None, None) and (count is None or kind == "program"):
        raise click.UsageError("--bits and --scheme go with --random N and --kind graph or conformer.")
    if fault is not None:
        return inject(config, audio, data, strings, model, count, kind, bits, scheme, seed, stalls, rungs, fault)
    if count is not None:
        return ladder.verify_random(kind, count, config, seed, rungs, stalls, waves, bits or "any", scheme)
    if data is not None:
        return ladder.verify_strings(data, strings, model, config, rungs, seed, waves)
    return ladder.verify_utterances(audio, model, config, rungs, waves)


def inject(config, audio: tuple[Path, ...], data: Path | None, strings: int, model: str, count: int | None, kind: str,
           bits: int | str | None, scheme: str | None, seed: int, stalls: bool, rungs: tuple[str, ...],
           fault: int) -> Result:
    """Verify with one register bit flipped in each case."""
    from phonolith.reports.sweep import shipped_clip
    from phonolith.sim import verify as ladder
    from phonolith.sim.inject import inject_into_graphs, inject_into_programs

    if "rtl" not in rungs:
        raise click.UsageError("--inject-fault needs the rung rtl.")
    if count is not None and kind == "program":
        return inject_into_programs(count, config, fault, seed, stalls)
    if count is not None:
        cases = ladder.RANDOM_CASES[kind](count, seed, bits or "any", scheme)
    elif data is not None:
        cases = ladder.string_cases(data, strings, model, seed)
    else:
        cases = ladder.utterance_cases(audio or [shipped_clip()], model)
    return inject_into_graphs(cases, config, fault, rungs, stalls and count is not None)
