"""Entry point of the ``phonolith`` command: finds the verb, runs it, reports failures."""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from phonolith.cli.common import version
from phonolith.cli.output import to_json
from phonolith.hw.errors import PhonolithError

VERBS = {
    "simulate": "phonolith.cli.run:simulate",
    "verify": "phonolith.cli.run:verify",
    "bench": "phonolith.cli.bench:bench",
    "verilog": "phonolith.cli.hardware:verilog",
    "area": "phonolith.cli.hardware:area",
    "sweep": "phonolith.cli.hardware:sweep",
    "config": "phonolith.cli.hardware:config",
    "compile": "phonolith.cli.model:compile_",
    "inspect": "phonolith.cli.model:inspect",
    "disasm": "phonolith.cli.program:disasm",
    "asm": "phonolith.cli.program:asm",
    "ops": "phonolith.cli.tools:ops",
    "new-model": "phonolith.cli.model:new_model",
    "train": "phonolith.cli.train:train",
    "quantize": "phonolith.cli.train:quantize",
    "evaluate": "phonolith.cli.train:evaluate",
    "doctor": "phonolith.cli.tools:doctor",
    "version": "phonolith.cli.hardware:version_",
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return super().get_command(ctx, cmd_name)
        module, _, name = VERBS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), name)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="phonolith", message="%(version)s")
def phonolith() -> None:
    """Quantized speech models on a systolic array: simulated, checked to the bit, priced."""


def failure(error: BaseException) -> tuple[dict[str, str], int]:
    """Return the contract's description of a failure and the exit code that goes with it."""
    if isinstance(error, PhonolithError):
        return error.as_dict(), 1
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "phonolith"
        return _describe("usage", error.format_message(), f"See `{path} --help`."), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _describe("interrupted", "Interrupted.", "Run the command again."), 130
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return _describe("missing-tool", "This command needs torch.", "Run `make setup EXTRAS=train`."), 1
    if isinstance(error, OSError):
        return _describe_system_error(error), 1
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return _describe("internal", text, "Run again with --debug and report the traceback."), 1


def _describe(kind: str, message: str, remedy: str) -> dict[str, str]:
    return {"kind": kind, "message": message, "remedy": remedy}


def _describe_system_error(error: OSError) -> dict[str, str]:
    place = "" if error.filename is None else f"{error.filename}: "
    message = f"{place}{error.strerror or error}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _describe("disk-full", message, "Free some space there, or write elsewhere.")
    return _describe("file", message, "Check that the path exists and may be used.")


def _one_line(message: str, remedy: str) -> str:
    """Return both as sentences; the message may begin with a file's name, so its case stays."""
    return f"phonolith: {message.rstrip('.')}. {remedy[:1].upper()}{remedy[1:].rstrip('.')}."


def report_failure(error: BaseException, known: dict[str, Any], arguments: Sequence[str]) -> int:
    """Print a failure as JSON or as one line on stderr; return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    description, exit_code = failure(error)
    if "--debug" in arguments:
        traceback.print_exception(error)
    if "--json" not in arguments or not _print_json({"error": description, "version": version(), **known}):
        click.echo(_one_line(description["message"], description["remedy"]), err=True)
    return exit_code


def _print_json(payload: dict[str, Any]) -> bool:
    """Print a failure on stdout; False when nothing can be written there."""
    try:
        click.echo(to_json(payload))
    except OSError:
        _give_up_stdout()
        return False
    return True


def _give_up_stdout() -> None:
    """Let whatever is still to be written to stdout vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); return its exit code."""
    known: dict[str, Any] = {}
    try:
        with phonolith.make_context("phonolith", list(arguments), obj=known) as context:
            phonolith.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:   # whoever read stdout has gone, as in `phonolith verilog | head`
        _give_up_stdout()
        return 1
    except (Exception, KeyboardInterrupt) as error:   # the one place where failures become messages
        return report_failure(error, known, arguments)


def main() -> None:
    """Run the process's command line and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
