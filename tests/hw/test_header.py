"""The C header and the register table say what the register file, the instruction set and the docs say."""

import re
import shutil
import subprocess

import pytest
from amaranth.hdl import Fragment

from phonolith.hw import isa, registers
from phonolith.hw.config import MachineConfig
from phonolith.hw.header import c_header, offsets, register_table
from phonolith.hw.registers import Registers
from phonolith.hw.sequencer import Error
from phonolith.sim.rtl.run import CLEAR, DONE_BIT, ERROR_BIT, START

CONFIG = MachineConfig(rows=8, columns=12)
PROBE = """
#include <stdio.h>
#include "phonolith.h"
#include "phonolith.h"
int main(void) {
%s
    return 0;
}
"""


def defined() -> dict[str, int]:
    """Return every macro with a value."""
    return {name: int(value, 16) for name, value in re.findall(r"#define PHONOLITH_(\w+) (0x\w+)u", c_header(CONFIG))}


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_compiles_and_has_the_values(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on PATH")
    values = defined()
    prints = "\n".join(f'    printf("{name} %u\\n", PHONOLITH_{name});' for name in values)
    (tmp_path / "phonolith.h").write_text(c_header(CONFIG))
    source = tmp_path / ("probe.c" if compiler == "cc" else "probe.cpp")
    source.write_text(PROBE % prints)
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", source, "-o", tmp_path / "probe"], check=True)
    printed = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=True).stdout
    assert dict(line.split() for line in printed.splitlines()) == {name: str(value) for name, value in values.items()}


def test_every_register_that_can_be_read_is_there():
    register_file = Registers(config=CONFIG)
    Fragment.get(register_file, None)
    readable = set(register_file.readable())
    counters = {registers.counter_address(engine, cause) for engine in registers.ENGINES for cause in registers.CAUSES}
    assert readable | counters | {registers.CONTROL} == set(offsets().values())
    assert len(set(offsets().values())) == len(offsets())


def test_values_are_the_definitions():
    values = defined()
    assert values["REG_CONTROL"] == registers.CONTROL and values["REG_ARG3"] == registers.ARGUMENT_BASE + 12
    assert values["REG_VECTOR_DRAIN"] == registers.counter_address("vector", "drain")
    assert {n[6:]: v for n, v in values.items() if n.startswith("ERROR_")} == {e.name: e.value for e in Error}
    assert {n[3:]: v for n, v in values.items() if n.startswith("OP_")} == {
        i.mnemonic: i.opcode for i in isa.INSTRUCTIONS}
    assert (values["CONTROL_START"], values["CONTROL_CLEAR"]) == (START, CLEAR)
    assert (values["STATUS_DONE"], values["STATUS_ERROR"]) == (DONE_BIT, ERROR_BIT)
    assert (values["VECTOR_CONTROL_REDUCE_SHIFT"], values["VECTOR_CONTROL_REDUCE_BITS"]) == (18, 2)
    assert values["ROW_FUNCTION_INVERSE_SQRT"] == isa.RowFunction.INVERSE_SQRT
    assert values["CONFIG_HASH"] == CONFIG.hash_word


def test_table_and_docs_agree(repository):
    rows = dict(re.findall(r"^\| 0x(\w+) \| (\w+) \|", register_table(CONFIG), re.MULTILINE))
    assert {int(offset, 16): name for offset, name in rows.items()} == {o: n for n, o in offsets().items()}
    documented = re.findall(r"^\| 0x(\w+) \| (\w+) \|", (repository / "docs/registers.md").read_text(), re.MULTILINE)
    assert len(documented) > 5
    for offset, name in documented:
        assert rows[offset] == name
