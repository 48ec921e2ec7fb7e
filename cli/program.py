"""``disasm`` and ``asm``: programs as text, and back."""

from pathlib import Path

import click

from phonolith.cli.common import NEW_FILE, PATH, Result, verb
from phonolith.cli.output import cell, print_facts


def render_text(result: Result) -> None:
    """Print the text itself, or where it was written."""
    if "text" in result:
        print(result["text"], end="")
    else:
        print_facts((name, cell(value)) for name, value in result.items())


@click.command()
@click.argument("program", type=PATH, metavar="PROGRAM")
@click.option("-o", "--output", type=NEW_FILE, metavar="FILE",
              help="File to write; without it the text goes to stdout.")
@verb(render_text)
def disasm(_config, program: Path, output: Path | None) -> Result:
    """Print a compiled program as assembly text (docs/assembly.md)."""
    from phonolith.compiler import program as programs
    from phonolith.compiler.files import write_atomically
    from phonolith.compiler.listing import program_text

    loaded = programs.load(program)
    text = program_text(loaded)
    facts = {"program_hash": loaded.config_hash, "words": len(loaded.words)}
    if output is None:
        return {"text": text, **facts}
    write_atomically(output, text.encode())
    return {"file": output, **facts}


@click.command()
@click.argument("file", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=NEW_FILE, required=True, metavar="PROGRAM")
@click.option("--like", type=PATH, metavar="PROGRAM",
              help="Take constants, inputs and the places of tensors from this program.")
@verb(lambda result: print_facts((name, cell(value)) for name, value in result.items()))
def asm(config, file: Path, output: Path, like: Path | None) -> Result:
    """Assemble text (docs/assembly.md) to a program for the configured machine."""
    from phonolith.compiler import program as programs
    from phonolith.compiler.assembly import assemble_text

    model = None if like is None else programs.load(like)
    made = assemble_text(file.read_text(), config, file.name, model)
    made.save(output)
    return {"program": output, "program_hash": made.config_hash, **made.summary()}
