"""Area of one processing element and its ratio to a plain int8 one (``plain_pe.v``): same library, script and options.

    python benchmarks/bench_pe_area.py [LIBERTY ...]

Each LIBERTY file is a library of its own; by default SKY130 and IHP SG13G2 of ``../shared/data/liberty``, where they
exist. Writes ``results/pe_area.json``.
"""

import json
import sys
from pathlib import Path

from phonolith.hw.array_verilog import synthesized_row
from phonolith.hw.config import MachineConfig
from phonolith.hw.systolic_array import ROW_MODULE
from phonolith.reports.liberty import Library, read_library
from phonolith.reports.synthesis import MAPPING, synthesize, tool

ROOT = Path(__file__).resolve().parents[1]
PLAIN = Path(__file__).with_name("plain_pe.v")
LIBERTY = ROOT.parent / "shared/data/liberty"
LIBRARIES = ("sky130hd_tt.lib.gz", "ihp_sg13g2_typ_1p20V_25C.lib.gz")


def compare(library: Library) -> dict:
    """Return um2 of our element, of the plain one, their ratio, and um2 of a row's sum, which its elements share."""
    config = MachineConfig().with_array("8x8")
    row = list(synthesize(synthesized_row(config), ROW_MODULE, library).instances())
    shared = sum(part.logic_um2 for part in row if part.path == f"{ROW_MODULE}.sum")
    ours = (sum(part.logic_um2 for part in row) - shared) / config.columns
    plain = synthesize(PLAIN.read_text(), "plain_pe", library).logic_um2
    return {"library": library.name, "pe_um2": round(ours, 1), "plain_pe_um2": round(plain, 1),
            "ratio": round(ours / plain, 3), "row_sum_um2": round(shared, 1), "tool": tool(), "mapping": MAPPING}


def main() -> None:
    """Compare in every library, print and write."""
    given = [Path(name) for name in sys.argv[1:]] or [LIBERTY / name for name in LIBRARIES]
    results = [compare(read_library([path])) for path in given if path.exists()]
    for result in results:
        print("{library}: PE {pe_um2} um2, plain PE {plain_pe_um2} um2, ratio {ratio}; sum of a row {row_sum_um2} um2"
              .format_map(result))
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results/pe_area.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
