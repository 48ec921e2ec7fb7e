"""What runs inside Yosys: ``python yosys_worker.py JOB.json``, in a process of its own because Yosys may simply exit.

Writes a design in which one thing can be made wrong while it is simulated: one of many mutations, or one bit of one
register in one cycle. A control word says which; it travels down all modules as an input ``instrument_word``, and the
module ``phonolith_top.instrument`` holds it in a memory that the simulator's back door writes.

The job names ``kind`` (``mutate``, ``flip``), ``sources`` (RTLIL files), ``top``, ``verilog`` and ``table``, files that
exist afterwards only if everything went well, and for mutations ``seed``, ``count`` (per block) and ``blocks``, the
modules of each. Imports nothing of ours.
"""

import itertools
import json
import re
import sys
from pathlib import Path

from pyosys import libyosys as ys  # pyright: ignore[reportAttributeAccessIssue]

CONTROL = "instrument_word"
CONTROL_BITS = 32
# A control word of a register flip: which register, from 1 on, and which bit of it.
ID_BITS = 20
BIT_BITS = CONTROL_BITS - ID_BITS
# Memories start with what the simulator puts there.
PREPARE = ("delete t:$meminit*", "hierarchy -check -top {top}", "proc", "opt_expr", "opt_clean", "wreduce",
           "opt_clean", "memory_collect", "opt_clean")
# Logic that nothing uses, or that is always the same, would only make mutants that change nothing.
PRUNE = ("opt_hier", "opt_expr", "wreduce", "splitcells", "opt_clean") * 2
SOURCE = re.compile(r".*/hw/")
# Yosys ignores it, but does not read paths with spaces.
SOURCE_OPTION = re.compile(r" -src .*?(?= -[a-z]|$)")
CLOCK_PORT = re.compile(r"-port \S*(?:clk|CLK)\b")
# The control word acts in the cycle after the one in which it is in the memory; a flip then ends by itself.
CONTROL_MODULE = """
module \\{top}.instrument (input clk, output reg [31:0] instrument_word);
  reg [31:0] memory [0:0];
  always @(posedge clk) begin
    instrument_word <= memory[0];
    memory[0] <= {next};
  end
endmodule
"""
HOLD = {"mutate": "memory[0]", "flip": "0"}


class Instrument:
    """One design and what is done to it; see the module's docstring for the job."""

    def __init__(self, job: dict):
        self.job = job
        self.design = ys.Design()
        for source in job["sources"]:
            self.run(f"read_rtlil {source}")
        self.run(*(each.format(top=job["top"]) for each in PREPARE))
        self.modules = {module.name.str(): module for module in self.design.all_selected_whole_modules()}
        self.sizes: dict[str, int] = {}
        self.table: list[dict] = []

    def run(self, *passes: str) -> None:
        """Run Yosys' passes in order."""
        for each in passes:
            ys.run_pass(each, self.design)

    def instances(self, module) -> list:
        """Return a module's cells that are modules."""
        return [cell for cell in module.cells_.values() if cell.type.str() in self.modules]

    def registers(self, module) -> list:
        """Return a module's flip-flops; RuntimeError for those that a flip could not reach by their D."""
        cells = [cell for cell in module.cells_.values() if cell.is_builtin_ff()]
        other = {cell.type.str() for cell in cells} - {"$dff"}
        if other:
            raise RuntimeError(f"{module.name.str()} has registers of type {sorted(other)}")
        return cells

    def add_inputs(self) -> None:
        """Give every module the input ``instrument_word``, the top a source for it."""
        for name, module in self.modules.items():
            wire = module.addWire(name_of(CONTROL), CONTROL_BITS)
            if name != f"\\{self.job['top']}":
                wire.port_input = True
                module.fixup_ports()

    def add_control(self) -> None:
        """Instantiate the module that holds the control word."""
        top = self.modules[f"\\{self.job['top']}"]
        cell = top.addCell(name_of("instrument"), name_of(f"{self.job['top']}.instrument"))
        cell.setPort(name_of("clk"), ys.SigSpec(top.wire(name_of("clk"))))
        cell.setPort(name_of(CONTROL), control(top))

    def mutate(self) -> None:
        """Draw mutations block by block and apply all, mutation n (from 1 on) while the control word is n."""
        self.run(*PRUNE)
        lines = [(block, line) for block, names in self.job["blocks"].items() for line in self.draw(names)]
        self.add_inputs()
        for module in self.modules.values():
            for cell in self.instances(module):
                cell.setPort(name_of(CONTROL), control(module))
        for number, (block, line) in enumerate(lines, 1):
            self.run(f"{SOURCE_OPTION.sub('', line)} -ctrl {CONTROL} {CONTROL_BITS} {number}")
            self.table.append({"number": number, "block": block, **described(line)})

    def draw(self, names: str) -> list[str]:
        """Return ``count`` mutations of a block, one command each; clocks stay as they are."""
        path, count = Path("drawn"), self.job["count"]
        self.run(f'mutate -list {2 * count} -seed {self.job["seed"]} -o {path} {names}')
        lines = path.read_text().splitlines()
        path.unlink()
        return [line for line in lines if not CLOCK_PORT.search(line) and self.changes_something(line)][:count]

    def changes_something(self, line: str) -> bool:
        """Whether a mutation is not one of a constant into itself, or of a value that is undefined anyway."""
        options = described(line)
        module = self.design.module(escaped(options["module"]))
        value = module.cell(escaped(options["cell"])).getPort(escaped(options["port"])).extract(
            int(options["portbit"]), 1)
        same = {"const0": value.is_fully_zero(), "const1": value.is_fully_ones()}.get(options["mode"], False)
        return not (same or value.is_fully_undef())

    def flip(self) -> None:
        """Let every register invert the bit that the control word names when it takes its next value."""
        self.add_inputs()
        self.number(self.modules[f"\\{self.job['top']}"], "")
        for module in self.modules.values():
            for index, cell in enumerate(self.registers(module), 1):
                self.make_flippable(module, cell, index)
            self.pass_on(module)

    def number(self, module, path: str) -> None:
        """List the registers of a module and of all below it, in the order of their numbers."""
        for cell in self.registers(module):
            output = cell.getPort(name_of("Q"))
            self.table.append({"register": f"{path}{register_name(output)}", "bits": output.size()})
        for cell in self.instances(module):
            self.number(self.modules[cell.type.str()], f"{path}{plain(cell.name)}.")

    def size(self, module) -> int:
        """Return how many registers a module holds, those of its instances included."""
        name = module.name.str()
        if name not in self.sizes:
            below = (self.size(self.modules[cell.type.str()]) for cell in self.instances(module))
            self.sizes[name] = len(self.registers(module)) + sum(below)
        return self.sizes[name]

    def make_flippable(self, module, cell, index: int) -> None:
        """Put ``D ^ (1 << bit)`` in front of a register while the control word holds its number."""
        port = name_of("D")
        value = cell.getPort(port)
        chosen = module.Eq(fresh(), control(module).extract(0, ID_BITS), ys.SigSpec(index, ID_BITS))
        bit = control(module).extract(ID_BITS, BIT_BITS)
        mask = module.addWire(fresh(), value.size())
        module.addShl(fresh(), ys.SigSpec(1, value.size()), bit, ys.SigSpec(mask))
        flipped = module.Xor(fresh(), value, ys.SigSpec(mask))
        cell.setPort(port, module.Mux(fresh(), value, flipped, chosen))

    def pass_on(self, module) -> None:
        """Hand the control word to the instances, each with numbers that start at 1 in it."""
        before = len(self.registers(module))
        for cell in self.instances(module):
            number = module.Sub(fresh(), control(module).extract(0, ID_BITS), ys.SigSpec(before, ID_BITS))
            number.append(control(module).extract(ID_BITS, BIT_BITS))
            cell.setPort(name_of(CONTROL), number)
            before += self.size(self.modules[cell.type.str()])

    def write(self) -> None:
        """Write the design, then the table."""
        verilog, table = Path(self.job["verilog"]), Path(self.job["table"])
        self.run(f"write_verilog -norename {verilog}")
        with verilog.open("a") as file:
            file.write(CONTROL_MODULE.format(top=self.job["top"], next=HOLD[self.job["kind"]]))
        table.write_text(json.dumps(self.table))


def name_of(text: str):
    """Return a public name, made for the moment: Yosys forgets names that only Python holds when it runs a pass."""
    return ys.IdString(f"\\{text}")


NAMES = (ys.IdString(f"$control${number}") for number in itertools.count())


def fresh():
    """Return a name that nothing has."""
    return next(NAMES)


def control(module):
    """Return a module's control word."""
    return ys.SigSpec(module.wire(name_of(CONTROL)))


def escaped(text: str):
    """Return the name that Yosys prints so."""
    return ys.IdString(text) if text.startswith("$") else name_of(text)


def plain(name) -> str:
    """Return a name without Yosys' backslash."""
    return name.str().removeprefix("\\")


def register_name(output) -> str:
    """Return the name of the signal that a register drives."""
    return plain(output.at(0).wire.name)


def described(line: str) -> dict:
    """Return the options of a mutation's command; a name may hold spaces."""
    parts = re.split(r" -(?=[a-z])", line.replace("\\", ""))[1:]
    pairs = [(f"-{key}", value.strip()) for key, _, value in (part.partition(" ") for part in parts)]
    options = {key.removeprefix("-"): value for key, value in pairs if key != "-src"}
    sources = [SOURCE.sub("hw/", value) for key, value in pairs if key == "-src" and SOURCE.match(value)]
    return {**options, **({"src": sources[-1]} if sources else {})}


def main(job_file: str) -> None:
    """Do one job."""
    job = json.loads(Path(job_file).read_text())
    instrument = Instrument(job)
    getattr(instrument, job["kind"])()
    instrument.add_control()
    instrument.write()


if __name__ == "__main__":
    main(sys.argv[1])
