"""``--explain``: why products are tiled as they are, for people."""

from typing import Any

import click

from phonolith.cli.output import cell, print_facts, print_table

EXPLAIN = click.option("--explain", "explained", is_flag=True,
                       help="Say why products are tiled as they are: roofline, candidates, alternatives.")
UNITS = ("array", "bus", "vector", "store")


def print_explanation(products: list[dict[str, Any]], measured: int | None = None) -> None:
    """Print the rooflines of all products, then how each was chosen; ``measured``: cycles of the only one."""
    print()
    print_table(("operator", "M x K x N", *UNITS, "bound by", "predicted"), [
        (operator(product), f"{product['m']}x{product['k']}x{product['n']}",
         *(product["roofline"][unit] for unit in UNITS), product["bound"], product["predicted_cycles"])
        for product in products])
    for product in products:
        print()
        print_facts(choice(product, measured))


def operator(product: dict[str, Any]) -> str:
    """Name an operator, and how many equal products it has."""
    return product["operator"] + (f" ({product['count']} times)" if product["count"] > 1 else "")


def choice(product: dict[str, Any], measured: int | None) -> list[tuple[str, str]]:
    """Return the facts of one choice."""
    predicted = product["predicted_cycles"]
    facts = [("operator", operator(product)), ("plan", product["plan"]), ("predicted", f"{predicted:,} cycles")]
    if measured:
        facts.append(("measured", f"{measured:,} cycles ({measured / predicted - 1:+.2%})"))
    facts.append(("candidates", cell(product["candidates"])))
    return facts + [("instead", f"{other['predicted_cycles']:,} cycles: {other['plan']}")
                    for other in product["alternatives"]]
