"""``ops`` and ``doctor``: what is supported, and whether everything is there that commands need."""

import click

from phonolith.cli.common import Result, verb
from phonolith.cli.output import print_facts


def render_operators(result: Result) -> None:
    """Print the torch operators and the integer graph's, these with what they do."""
    print("torch operators that a module may use, as torch.export names them:")
    print(f"  {', '.join(result['torch'])}\n")
    print("operators of model files (docs/graph.md):")
    print_facts((f"  {each['name']}", each["summary"]) for each in result["graph"])


@click.command()
@verb(render_operators)
def ops(_config) -> Result:
    """List the supported operators: of torch modules, and of model files."""
    from phonolith.compiler import operators, torch_operators

    names = operators.supported_operators()
    return {"torch": torch_operators.supported_operators(),
            "graph": [describe(name, operators.OPERATORS[name]) for name in names]}


def describe(name: str, operator) -> Result:
    """Return an integer graph operator as plain values."""
    return {"name": name, "summary": operator.summary, "inputs": operator.inputs, "outputs": operator.outputs,
            "constants": operator.constants, "attributes": operator.attributes}


def render_health(result: Result) -> None:
    """Print one line per tool, and what to do about those that are not as they should be."""
    print_facts((each["name"], f"{each['version'] or 'not there'} (wanted: {each['wanted'] or 'any'})")
                for each in result["tools"])
    print()
    remedies = [(each["name"], each["remedy"]) for each in result["tools"] if each["remedy"]]
    print_facts(remedies or [("all well", "nothing to do")])


@click.command()
@verb(render_health, exit_code=lambda result: 0 if result["ok"] else 1)
def doctor(_config) -> Result:
    """Check the tools that commands need: versions found, and remedies. Exit code 1 if a required one is missing."""
    from phonolith.sim.doctor import examine

    return examine()
