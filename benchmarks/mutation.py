"""Mutation run: change one thing in the RTL at a time and see whether a fast test fails.

    python benchmarks/mutation.py [--count 60] [--seed 1] [--survivors] [--only NUMBER ...]

Yosys draws the mutations, as many from each block (PE, array, requantizer, vector unit, DMA, sequencer), and puts all
into one design, so that one build of the simulator serves them all. For each, the tests of ``TESTS`` that run the
8x8 machine are run by pytest in a process of its own, in which that machine is the mutant; the first failure ends it.
Without a mutation all of them must pass. ``--survivors`` runs only what survived last time.

Writes ``docs/verification/mutants.csv``, and the figures and the survivors into ``docs/verification.md``. Why a
survivor does no harm stands in ``docs/verification/survivors.toml``.
"""

import argparse
import csv
import multiprocessing
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from multiprocessing.connection import Connection

import pytest
from page import ROOT, TABLES, write_section, write_table

from phonolith.hw.config import MachineConfig
from phonolith.sim import verify
from phonolith.sim.rtl import run as rtl
from phonolith.sim.rtl.build import BuiltModel, build
from phonolith.sim.rtl.instrument import mutated, select
from phonolith.sim.rtl.source import LOADED_SOURCES

RESULTS = TABLES / "mutants.csv"
REASONS = TABLES / "survivors.toml"

CONFIG = MachineConfig().with_array("8x8")
TOP = "phonolith_top"
BLOCKS = {
    "PE": ("phonolith_row.pe*",),
    "array": ("phonolith_row", "phonolith_row.sum", f"{TOP}.array", f"{TOP}.array.*"),
    "requantizer": (f"{TOP}.vector.lane_*.requantizer",),
    "vector unit": (f"{TOP}.vector", f"{TOP}.vector.issue", f"{TOP}.vector.issue.*", f"{TOP}.vector.lane_?",
                    f"{TOP}.vector.reduction", f"{TOP}.vector.registers", f"{TOP}.vector.row_unit",
                    f"{TOP}.vector.row_unit.*"),
    "DMA": (f"{TOP}.load", f"{TOP}.load.*", f"{TOP}.activation_writes", f"{TOP}.store", f"{TOP}.store.*",
            f"{TOP}.arbiter"),
    "sequencer": (f"{TOP}.sequencer", f"{TOP}.fetch", f"{TOP}.fetch.*", f"{TOP}.semaphores", f"{TOP}.*_dispatcher",
                  f"{TOP}.*_dispatcher.*"),
}
# The fast tests that run an 8x8 machine with its RTL; the quickest to find something first.
TESTS = ("tests/rtl/test_top.py", "tests/sim/test_random_programs.py", "tests/rtl/test_cycles.py",
         "tests/sim/test_depthwise.py", "tests/sim/test_large_counts.py", "tests/rtl/test_recovery.py",
         "tests/sim/test_ladder.py", "tests/sim/test_rmsnorm.py", "tests/sim/test_rowop.py", "tests/rtl/test_faults.py",
         "tests/numerics/test_corners.py")
# Other machines are not the mutant; tests of the comparison itself expect differences.
LEFT_OUT = "not 16x16 and not cocotb and not planted and not reports and not shrinking"
# No run of these tests comes near: what goes on for longer has hung.
MAX_CYCLES, QUIET_CYCLES = 2_000_000, 1_200_000
TIMEOUT_SECONDS = 600
COLUMNS: tuple[str, ...] = (
    "number", "block", "module", "cell", "port", "portbit", "ctrlbit", "mode", "wire", "wirebit", "src", "killed_by",
    "seconds")
ABORTED = "the simulation (aborted)"

Row = dict[str, str]


class FirstFailure:
    """A pytest plugin that keeps the name of the first test that fails."""

    def __init__(self):
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed and not self.name:
            self.name = report.nodeid


def make_mutant(built: BuiltModel, number: int) -> None:
    """Let every 8x8 machine of this process be the mutant, hang after bounded cycles, and comparisons stop early."""
    create, run = rtl.RtlMachine.__init__, rtl.RtlMachine.run

    def mutant(self, config, verilog_text=None, **options):
        if config.hash != CONFIG.hash or options:
            return create(self, config, verilog_text, **options)
        create(self, config, built=built)
        select(self, number)
        self.reset()

    def bounded(self, *arguments, max_cycles=MAX_CYCLES, quiet_cycles=QUIET_CYCLES, **options):
        return run(self, *arguments, max_cycles=min(max_cycles, MAX_CYCLES),
                   quiet_cycles=min(quiet_cycles, QUIET_CYCLES), **options)

    rtl.RtlMachine.__init__, rtl.RtlMachine.run = mutant, bounded
    verify.check, verify.climb = stopping(verify.check), stopping(verify.climb)


def stopping(compare):
    """Return a comparison that raises what it finds instead of returning it."""
    def checked(*arguments, **options):
        found = compare(*arguments, **options)
        assert found is None, found
    return checked


def run_tests(built: BuiltModel, number: int, answer: Connection) -> None:
    """Run the tests on one mutant in this process, silently; answer with the first that fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    make_mutant(built, number)
    first = FirstFailure()
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-m", "not slow", "-k", LEFT_OUT, *TESTS],
                       plugins=[first])
    answer.send(first.name or ("" if code == pytest.ExitCode.OK else f"pytest ended with {code!r}"))
    os._exit(0)


def killer(built: BuiltModel, number: int) -> str:
    """Return which test fails on a mutant, or nothing."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=run_tests, args=(built, number, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(TIMEOUT_SECONDS) else f"the limit of {TIMEOUT_SECONDS} s"
    except EOFError:
        return ABORTED
    finally:
        child.kill()
        child.join()


def run_mutants(built: BuiltModel, table: list[dict], wanted: Iterable[int], known: dict[int, Row]) -> list[Row]:
    """Run the wanted mutants and return a row for every one that is now known; write them as they come."""
    for number in wanted:
        begin = time.monotonic()
        found = killer(built, number)
        seconds = time.monotonic() - begin
        row = known[number] = {**table[number - 1], "killed_by": found, "seconds": f"{seconds:.1f}"}
        print(f"{number:4} {row['block']:12} {place(row):60} {found or 'SURVIVED'} ({seconds:.1f} s)", flush=True)
        write_table(RESULTS, COLUMNS, [known[each] for each in sorted(known)])
    return [known[each] for each in sorted(known)]


def place(row: Row) -> str:
    """Name the place and the kind of a mutation: what survivors.toml knows it by."""
    control = f" by bit {row['ctrlbit']}" if row.get("ctrlbit") else ""
    return f"{row['module']} {row['cell']} {row['port']}[{row['portbit']}] {row['mode']}{control}"


def read_rows() -> dict[int, Row]:
    """Return the results of the last run by number."""
    with RESULTS.open(newline="") as file:
        return {int(row["number"]): row for row in csv.DictReader(file)}


def report(rows: list[Row], seed: int) -> str:
    """Return score and survivors as text."""
    reasons = tomllib.loads(REASONS.read_text()) if REASONS.exists() else {}
    drawn, killed = Counter(row["block"] for row in rows), Counter(row["block"] for row in rows if row["killed_by"])
    lines = [f"Machine {CONFIG.array}, {CONFIG.bus_bits}-bit bus, `hw/` as of `{LOADED_SOURCES}`, seed {seed}.",
             "", "| block | mutants | killed | score |", "|---|---|---|---|"]
    lines += [f"| {block} | {drawn[block]} | {killed[block]} | {share(killed[block], drawn[block])} |"
              for block in BLOCKS]
    lines += [f"| all | {len(rows)} | {killed.total()} | **{share(killed.total(), len(rows))}** |", "",
              "What survives:", "", "| number | where | net | source | why |", "|---|---|---|---|---|"]
    lines += [f"| {row['number']} | `{place(row)}` | {net(row)} | {row.get('src', '')} | "
              f"{reasons.get(place(row), 'NOT EXPLAINED')} |" for row in rows if not row["killed_by"]]
    return "\n".join(lines) + "\n"


def share(part: int, whole: int) -> str:
    """Return a percentage."""
    return f"{100 * part / max(whole, 1):.1f} %"


def net(row: Row) -> str:
    """Name the signal bit that is mutated, if it has a name."""
    return f"`{row['wire']}[{row['wirebit']}]`" if row.get("wire") else ""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="mutants per block")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--survivors", action="store_true", help="run only what survived last time")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="run only these")
    return parser.parse_args()


def main() -> None:
    """Run mutants and write what became of them."""
    chosen = arguments()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    design = mutated(CONFIG, {name: " ".join(each) for name, each in BLOCKS.items()}, chosen.count, chosen.seed)
    built = build(design.verilog, CONFIG)
    unmutated = killer(built, 0)
    if unmutated:
        raise SystemExit(f"{unmutated} fails without a mutation.")
    again = chosen.survivors or chosen.only
    known = read_rows() if again else {}
    survivors = [number for number, row in known.items() if not row["killed_by"]]
    wanted = chosen.only or (survivors if chosen.survivors else range(1, len(design.table) + 1))
    rows = run_mutants(built, design.table, wanted, known)
    write_section("mutation.py", report(rows, chosen.seed))


if __name__ == "__main__":
    main()
