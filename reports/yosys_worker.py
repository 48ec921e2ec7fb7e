"""What runs inside Yosys: ``python yosys_worker.py JOB.json``, in a process of its own because Yosys may simply exit.

The job names ``verilog``, ``top``, ``libraries`` (plain Liberty files), ``dont_use`` (cells) and ``result``, a file
that exists afterwards only if everything went well. Imports nothing of ours.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from pyosys import libyosys  # pyright: ignore[reportAttributeAccessIssue]

MEMORY = "$mem_v2"
MACRO = "\\phonolith_memory_macro"
MEMORY_PARAMETERS = ("SIZE", "WIDTH", "RD_PORTS", "WR_PORTS", "RD_CLK_ENABLE")
# Smaller memories take less area as flip-flops, shallow ones up to a larger size.
MACRO_BITS, MACRO_WORDS, SHALLOW_MACRO_BITS = 2048, 32, 16384


def main(job_file: str) -> None:
    """Synthesize one job and write its result."""
    job = json.loads(Path(job_file).read_text())
    design = libyosys.Design()
    run(design, f"read_verilog {quoted(job['verilog'])}", f"hierarchy -check -top {job['top']}",
        "proc", "opt_expr", "opt_clean")
    same_as = duplicates(design)
    for name in same_as:
        design.module(libyosys.IdString(name)).makeblackbox()
    run(design, "synth -run coarse:fine")
    memories = take_macros(design)
    libraries = " ".join(f"-liberty {quoted(path)}" for path in job["libraries"])
    unused = " ".join(f"-dont_use {cell}" for cell in job["dont_use"])
    run(design, "synth -run fine:check", f"dfflibmap {libraries} {unused}", f"abc {libraries} {unused}", "opt_clean")
    result = {"modules": cell_counts(design, same_as), "memories": memories, "same_as": same_as}
    temporary = Path(job["result"] + ".part")
    temporary.write_text(json.dumps(result))
    temporary.rename(job["result"])


def run(design, *passes: str) -> None:
    """Run passes in order."""
    for each in passes:
        libyosys.run_pass(each, design)


def quoted(path: str) -> str:
    """Return a path as one word of a Yosys command."""
    return f'"{path}"'


def modules(design):
    """Return all modules by name."""
    return {module.name.str(): module for module in design.all_selected_whole_modules()}


def cells(module):
    """Return a module's cells."""
    return list(module.cells_.values())


def duplicates(design) -> dict[str, str]:
    """Return, for every module that has the same cells as an earlier one, that one's name.

    Same cells: the same operators and registers, equally often, with the same parameters, and instances of modules
    that are themselves the same. Lanes and processing elements differ in nothing but names and what surrounds them.
    """
    known, first, same_as = modules(design), {}, {}

    def signature(name: str) -> str:
        if name in same_as or name not in known:
            return same_as.get(name, name)
        counted = Counter(cell_signature(cell, signature) for cell in cells(known[name]))
        text = repr(sorted(counted.items()))
        if not counted or first.setdefault(text, name) == name:
            return name
        same_as[name] = first[text]
        return first[text]

    for name in sorted(known, key=lambda name: (len(name), name)):
        signature(name)
    return same_as


def cell_signature(cell, of_module) -> str:
    """Return type and parameters of one cell as text."""
    kind = cell.type.str()
    if not kind.startswith("$"):
        return of_module(kind)
    parameters = {key.str(): value.as_string() for key, value in cell.parameters.items() if key.str() != "\\MEMID"}
    return f"{kind} {sorted(parameters.items())}"


def take_macros(design) -> dict[str, list[dict]]:
    """Turn large memories into black boxes; return their shapes by module."""
    found = {}
    for name, module in modules(design).items():
        for cell in cells(module):
            if cell.type.str() != MEMORY:
                continue
            shape = memory_shape(cell)
            if is_macro(shape):
                cell.type = libyosys.IdString(MACRO)
                found.setdefault(name, []).append(shape)
    return found


def memory_shape(cell) -> dict[str, int]:
    """Return words, bits, number of ports and whether reads are clocked."""
    value = {key: cell.parameters[libyosys.IdString(f"\\{key}")].as_int() for key in MEMORY_PARAMETERS}
    return {"words": value["SIZE"], "bits": value["WIDTH"], "read_ports": value["RD_PORTS"],
            "write_ports": value["WR_PORTS"], "clocked": value["RD_CLK_ENABLE"]}


def is_macro(shape: dict[str, int]) -> bool:
    """Tell whether a memory is built as an SRAM macro: large, one write port, one clocked read port."""
    least = MACRO_BITS if shape["words"] >= MACRO_WORDS else SHALLOW_MACRO_BITS
    ports = (shape["read_ports"], shape["write_ports"], shape["clocked"])
    return ports == (1, 1, 1) and shape["words"] * shape["bits"] >= least


def cell_counts(design, left_out) -> dict[str, dict[str, int]]:
    """Return the number of cells and instances of each type, by module, but for some modules."""
    return {name: dict(Counter(cell.type.str() for cell in cells(module)))
            for name, module in modules(design).items() if name not in left_out}


if __name__ == "__main__":
    main(sys.argv[1])
