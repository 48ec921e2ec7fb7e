"""What all commands share: machine options, ``--json``, and how a result leaves."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from phonolith.cli.output import progress_on_stderr, stdout_kept_clean, to_json

DEFAULT_MODEL = "encoder-ctc-w8"
# Whether a file that is read exists, and is what it should be, is for the library to say.
PATH = click.Path(path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
MODEL = click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME|FILE")
# As in phonolith.compiler.integerize, which imports numpy.
DEFAULT_MAX_FRAMES = 512
MAX_FRAMES = click.option("--max-frames", type=click.IntRange(min=1), default=DEFAULT_MAX_FRAMES, show_default=True,
                          metavar="N", help="Output frames that tables of positions last for.")

Result = dict[str, Any]
Command = Callable[..., Result]


def version() -> str:
    """Return the installed version of Phonolith."""
    return importlib.metadata.version("phonolith")


class CommaList(click.ParamType):
    """Comma-separated words; a tuple."""

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(part.strip() for part in value.split(","))


_MACHINE_OPTIONS = (
    click.option("--config", "config_file", type=PATH, metavar="NAME|FILE.toml",
                 help="Machine: tiny, default, large, or a configuration file."),
    click.option("--array", metavar="RxC", help="Rows x columns of the systolic array."),
    click.option("--bus", type=int, metavar="BITS", help="Width of the AXI4 data bus."),
    click.option("--latency", type=int, metavar="N", help="DRAM latency in cycles."),
    click.option("--clock", type=float, metavar="MHZ", help="Clock for figures in seconds and watts."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else."),
    click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
)


def describe(config: Any) -> Result:
    """Return the ``config`` object that every JSON result carries."""
    return {
        "array": config.array,
        "bus_bits": config.bus_bits,
        "latency": config.dram_latency,
        "sram_bytes": config.sram_bytes,
        "hash": config.hash,
    }


def verb(render: Callable[[Result], None],
         exit_code: Callable[[Result], int] = lambda result: 0) -> Callable[[Command], Callable[..., None]]:
    """Make a command of a function that takes a `MachineConfig` and returns a result.

    Parameters
    ----------
    render : callable
        Prints the result for people, when ``--json`` is absent.
    exit_code : callable
        The process's exit code for a result.
    """

    def decorate(function: Command) -> Callable[..., None]:
        @functools.wraps(function)
        def run(config_file, array, bus, latency, clock, as_json, debug, **arguments):
            from phonolith.hw.config import MachineConfig

            context = click.get_current_context()
            config = MachineConfig.load(config_file, array=array, bus_bits=bus, dram_latency=latency,
                                        clock_mhz=clock)
            context.obj.update(config=describe(config), version=version())
            with progress_on_stderr(), stdout_kept_clean():
                result = function(config, **arguments)
            if as_json:
                click.echo(to_json({**result, **context.obj}))
            else:
                render(result)
            sys.stdout.flush()
            context.exit(exit_code(result))

        for option in reversed(_MACHINE_OPTIONS):
            run = option(run)
        return run

    return decorate
