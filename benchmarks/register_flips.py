"""Flip 200 register bits of the 8x8 machine, one in each of 100 random graphs and 100 random programs.

    python benchmarks/register_flips.py [SEED]

Writes every flip and its effect to ``docs/verification/flips.csv``, and how many had which into
``docs/verification.md``. The same flips as ``phonolith verify --random 100 --array 8x8 --inject-fault SEED`` with
``--kind graph`` and ``--kind program``.
"""

import sys
from collections import Counter

from page import TABLES, write_section, write_table

from phonolith.hw.config import MachineConfig
from phonolith.sim.inject import NO_EFFECT, inject_into_graphs, inject_into_programs
from phonolith.sim.verify import graph_cases

CONFIG = MachineConfig().with_array("8x8")
EACH = 100
COLUMNS = ("kind", "case", "register", "bit", "cycle", "effect")
MEANING = {
    "output": "a tensor, or another byte of DRAM, differs",
    "status": "error status, or a program that ended too early",
    "memory": "an on-chip memory differs, no tensor does",
    "counters": "cycles or another counter differ, nothing else",
    "hang": "no end, or no answer on the control port",
    "axi-protocol": "the accelerator breaks the rules of AXI4",
    "register": "the control port answers with an error",
    NO_EFFECT: "everything compared is equal, in the run after it too",
}


def main() -> None:
    """Flip, and write what came of it."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    results = {"graph": inject_into_graphs(graph_cases(EACH, 0), CONFIG, seed),
               "program": inject_into_programs(EACH, CONFIG, seed)}
    rows = [{"kind": kind, **flip} for kind, result in results.items() for flip in result["injected"]]
    write_table(TABLES / "flips.csv", COLUMNS, [{name: row[name] for name in COLUMNS} for row in rows])
    counts = Counter(row["effect"].removeprefix("next run: ") for row in rows)
    lines = [f"{len(rows)} flips, seed {seed}: {sum(row['found'] for row in rows)} found.", "",
             "| effect | flips | what it means |", "|---|---|---|"]
    lines += [f"| {effect} | {count} | {MEANING[effect]} |" for effect, count in counts.most_common()]
    write_section("register_flips.py", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
