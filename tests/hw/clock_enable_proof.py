"""Proof that an engine may be skipped while ``clock_enable`` is low, in a folder with its Verilog:
``python clock_enable_proof.py engine.v``, whose module is ``engine``.

Two copies of the engine's combinational logic start from the same registers, any whatsoever, with different inputs. In
both, ``clock_enable`` and resets are low. Then the next value of each register is its present one, no memory is
written, and all outputs are the same: none depends on an input, but for those that say nothing while another one is low
(``IF``). So whoever computes an engine once in such a cycle, need not do it again before ``clock_enable`` is high.

A process of its own, because Yosys may simply exit. Prints `PROVED`, or the names of what changes.
"""

import json
import re
import sys
from pathlib import Path

from pyosys import libyosys as ys  # pyright: ignore[reportAttributeAccessIssue]

PROVED = "proved: nothing changes"
IF = ((r"(queues__\d)__data", r"\1__enable"), ("decoded_queue", "decoded"))
ASLEEP = ("out.clock_enable", "rst", "clear")   # low in both copies, where the engine has them


def run(design, *steps: str) -> None:
    for step in steps:
        ys.run_pass(f"tee -q {step}", design)


def name(text: str):
    return ys.IdString(text)


def combinational(verilog: Path) -> dict:
    """Return the ports of the engine without its registers and memories, which become ports; write ``engine.json``.

    A register ``x`` is input ``x.q`` and output ``x.d``; a memory ``m`` has input ``m.read`` and outputs ``m.address``
    and ``m.write``.
    """
    design = ys.Design()
    run(design, f"read_verilog {verilog.name}", "hierarchy -top engine", "proc", "flatten", "memory_collect",
        "dffunmap")
    module = design.top_module()
    for wire in list(module.wires_.values()):
        if wire.port_output:      # not the name of a register, which would then have two
            wire.port_output = False
            publish(module, f"out.{wire.name.str()[1:]}", ys.SigSpec(wire))
    for cell in list(module.cells_.values()):
        if cell.type.str() == "$mem_v2":
            memory = cell.name.str().lstrip("\\$")
            publish(module, f"{memory}.address", cell.getPort(name("\\RD_ADDR")))
            publish(module, f"{memory}.write", cell.getPort(name("\\WR_EN")))
            data = cell.getPort(name("\\RD_DATA"))
            read = module.addWire(name(f"\\{memory}.read"), data.size())
            read.port_input = True
            module.remove(cell)
            module.connect(data, ys.SigSpec(read))
    module.fixup_ports()
    run(design, "opt_clean -purge", "expose -dff -evert-dff", "opt_clean -purge", "write_json engine.json")
    engine = json.loads(Path("engine.json").read_text())["modules"]["engine"]
    left = {cell["type"] for cell in engine["cells"].values() if re.search("dff|mem|latch", cell["type"])}
    if left:
        sys.exit(f"the engine has cells of types {sorted(left)}")
    return {port.lstrip("\\"): (facts["direction"], len(facts["bits"])) for port, facts in engine["ports"].items()}


def publish(module, port: str, signal) -> None:
    """Make a signal an output, through two inverters, which keep the names apart."""
    output = module.addWire(name(f"\\{port}"), signal.size())
    between = module.addWire(name(f"$not_{port}"), signal.size())
    module.addNot(name(f"$first_{port}"), signal, ys.SigSpec(between))
    module.addNot(name(f"$second_{port}"), ys.SigSpec(between), ys.SigSpec(output))
    output.port_output = True


def escaped(port: str) -> str:
    return f"\\{port} "


def comparison(ports: dict) -> tuple[str, list[str]]:
    """Return Verilog of two copies, and its outputs: each is true as it should be.

    What is read from a memory is the same in both if the address is.
    """
    ports = {port: facts for port, facts in ports.items() if port != "clk" and not port.endswith(".c")}
    checks = {}
    for port in ports:
        one, two = escaped(f"one.{port}"), escaped(f"two.{port}")
        if port.endswith(".d"):
            checks[port[:-2]] = f"{one} == {escaped(f'{port[:-2]}.q')}"
        elif port.endswith(".write"):
            checks[port] = f"{one} == 0"
        elif port.startswith("out."):
            checks[port[4:]] = f"{one} == {two}{unless_silent(port[4:], ports)}"
    heads, body = [], []
    for port, (direction, bits) in ports.items():
        if port.endswith(".q"):
            heads.append(f"input [{bits - 1}:0] {escaped(port)}")
            continue
        for copy in ("one", "two"):
            signal = f"[{bits - 1}:0] {escaped(f'{copy}.{port}')}"
            if port.endswith(".read") and copy == "two":
                address = port.removesuffix("read") + "address"
                other = escaped(f"other.{port}")
                heads.append(f"input [{bits - 1}:0] {other}")
                body.append(f"wire {signal}= {escaped(f'one.{address}')} == {escaped(f'two.{address}')} "
                            f"? {escaped(f'one.{port}')} : {other};")
            elif direction == "input":
                heads.append(f"input {signal}")
            else:
                body.append(f"wire {signal};")
    for copy in ("one", "two"):
        outside = {port: port if port.endswith(".q") else f"{copy}.{port}" for port in ports}
        connections = ", ".join(f".{escaped(port)}({escaped(signal)})" for port, signal in outside.items())
        body.append(f"engine {escaped(f'copy.{copy}')}({connections});")
    high = " | ".join(escaped(f"{copy}.{port}") for copy in ("one", "two") for port in ASLEEP if port in ports)
    results = [escaped(f"ok.{check}") for check in checks]
    heads += [f"output {result}" for result in [*results, "asleep", "ok"]]
    body += [f"assign asleep = ~({high});", f"assign ok = &{{{', '.join(results)}}};"]
    body += [f"assign {result}= {check};" for result, check in zip(results, checks.values(), strict=True)]
    return "\n".join([f"module top({', '.join(heads)});", *body, "endmodule"]), list(checks)


def unless_silent(output: str, ports: dict) -> str:
    """Return what excuses a difference of an output."""
    for silent, by in IF:
        if re.fullmatch(silent, output):
            enable = re.sub(silent, by, output)
            assert f"out.{enable}" in ports
            return f" || ~{escaped(f'one.out.{enable}')} & ~{escaped(f'two.out.{enable}')}"
    return ""


def main() -> None:
    top, checks = comparison(combinational(Path(sys.argv[1])))
    Path("top.v").write_text(top)
    design = ys.Design()
    run(design, "read_json engine.json", "read_verilog top.v", "hierarchy -top top", "proc", "flatten", "opt -full",
        "-o sat.log sat -set asleep 1 -prove ok 1 -show-outputs top")
    said = Path("sat.log").read_text()
    if "no model found: SUCCESS" in said:
        print(PROVED)
    else:
        print("may change:", *re.findall(r"ok\.(\S+) +0 +0 +0\s*$", said, re.M), sep="\n")
        print(f"of {len(checks)} registers, memories and outputs")


if __name__ == "__main__":
    main()
