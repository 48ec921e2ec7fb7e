"""Phonolith in Python: what the commands do, as functions.

A name is imported when it is first used, so that none of them costs another's imports (torch, Verilator).
"""

from importlib import import_module
from typing import Any

PLACES = {
    "MachineConfig": "phonolith.hw.config",
    "PhonolithError": "phonolith.hw.errors",
    "compile": "phonolith.compiler.api",
    "compile_graph": "phonolith.compiler.pipeline",
    "quantize": "phonolith.compiler.quantize",
    "simulate": "phonolith.reports.simulation",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'phonolith' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(PLACES)
