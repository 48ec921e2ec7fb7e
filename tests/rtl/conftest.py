"""A small module with the accelerator's pins, built once and kept between test runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phonolith.hw.config import MachineConfig
from phonolith.sim.rtl.build import BuiltModel, build
from phonolith.sim.rtl.cache import default_folder
from phonolith.sim.rtl.run import RtlMachine


@pytest.fixture(scope="session")
def copy_verilog() -> str:
    """Verilog of the stand-in for the accelerator; see its header."""
    return (Path(__file__).parent / "copy_top.v").read_text()


@pytest.fixture(scope="session")
def copy_model(copy_verilog: str) -> BuiltModel:
    """The stand-in's simulator, in a cache folder with a space in its name."""
    return build(copy_verilog, MachineConfig(), cache=default_folder().with_name("rtl tests"))


@pytest.fixture
def make_machine(copy_model: BuiltModel) -> Callable[..., RtlMachine]:
    """Make a machine around the stand-in: takes fields of `MachineConfig`."""
    return lambda **fields: RtlMachine(MachineConfig(**fields), "", built=copy_model)


@pytest.fixture
def image() -> np.ndarray:
    """64 KiB of random DRAM."""
    return np.random.default_rng(1).integers(0, 256, 1 << 16, dtype=np.uint8)
