"""``verilog``, ``area``, ``sweep``, ``config``, ``version``: the machine itself, without a run."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import click

from phonolith.cli.common import MODEL, NEW_FOLDER, PATH, CommaList, Result, verb
from phonolith.cli.common import version as installed_version
from phonolith.cli.output import cell, print_facts, print_table

WAIVERS = "phonolith.vlt"


def render_verilog(result: Result) -> None:
    """Print the Verilog itself, or the files it was written to."""
    if "verilog" in result:
        print(result["verilog"], end="")
    else:
        print_facts([("top", result["top"]), *(("wrote", str(path)) for path in result["files"])])


@click.command()
@click.option("-o", "--output", type=NEW_FOLDER, metavar="DIR",
              help="Folder to write to; without it the Verilog goes to stdout.")
@verb(render_verilog)
def verilog(config, output: Path | None) -> Result:
    """Write the configured accelerator as Verilog: AXI4 and AXI4-Lite at its pins.

    With -o also phonolith.h (registers, error codes, opcodes for C), registers.md, and phonolith.vlt (waivers, with
    reasons, for `verilator --lint-only -Wall`).
    """
    from phonolith.compiler.files import write_folder
    from phonolith.hw import header
    from phonolith.hw.verilog import TOP
    from phonolith.sim.rtl.source import generate_verilog

    text = generate_verilog(config)
    if output is None:
        return {"top": TOP, "verilog": text}
    files = {f"{TOP}.v": text, header.HEADER: header.c_header(config), header.TABLE: header.register_table(config),
             WAIVERS: resources.files("phonolith.hw").joinpath(WAIVERS).read_text()}
    written = write_folder(output, {name: content.encode() for name, content in files.items()})
    return {"top": TOP, "files": written, "lines": text.count("\n")}


def render_area(result: Result) -> None:
    """Print the totals, what they were made with, and one line per block."""
    print_facts((name, cell(value)) for name, value in result.items() if name != "blocks")
    print()
    blocks = result["blocks"]
    rows = blocks.items() if isinstance(blocks, dict) else [block.values() for block in blocks]
    print_table(("block", "um2"), rows)


@click.command()
@click.option("--liberty", type=PATH, multiple=True, metavar="FILE",
              help="Standard-cell library to synthesize to (repeatable); built-in figures without it.")
@verb(render_area)
def area(config, liberty: tuple[Path, ...]) -> Result:
    """Price the configured accelerator in silicon area."""
    from phonolith.reports.area import area as price

    return price(config, liberty)


def render_sweep(result: Result) -> None:
    """Print one line per machine and the files written."""
    points = result["points"]
    columns = tuple(points[0]) if points else ()
    print_table(columns, [[point[column] for column in columns] for point in points])
    for path in result.get("files", ()):
        print(f"wrote {path}")


@click.command()
@click.option("--arrays", type=CommaList(), default="8x8,16x16", show_default=True, metavar="RxC,...")
@MODEL
@click.option("--audio", type=PATH, metavar="WAV|NPY",
              help="Utterance; a shipped clip by default.")
@click.option("-o", "--output", type=NEW_FOLDER, metavar="DIR",
              help="Folder for sweep.csv and sweep.png.")
@verb(render_sweep)
def sweep(config, arrays: tuple[str, ...], model: str, audio: Path | None,
          output: Path | None) -> Result:
    """Run one utterance on several machines: cycles, area, energy."""
    from phonolith.reports.sweep import sweep as run

    return run(config, arrays, model, audio=audio, output=output)


def render_config(result: Result) -> None:
    """Print the configuration as TOML that --config accepts."""
    print(result["toml"], end="")


@click.command()
@click.option("--print-default", is_flag=True, help="The default machine, ignoring --config and overrides.")
@verb(render_config)
def config(machine, print_default: bool) -> Result:
    """Print a machine configuration as TOML, ready to edit."""
    from phonolith.hw.config import MachineConfig

    chosen = MachineConfig() if print_default else machine
    return {"machine": chosen.as_dict(), "toml": to_toml(chosen.as_dict())}


def to_toml(table: dict[str, Any]) -> str:
    """Return a flat table of numbers, strings and booleans as TOML (its JSON notation is the same)."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


@click.command("version")
@verb(lambda result: print(installed_version()))
def version_(_config) -> Result:
    """Print the installed version."""
    return {}
