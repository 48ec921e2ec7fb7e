"""``--explain``, for people: what operators need, the cycles predicted, why products are tiled as they are."""

from typing import Any

import click

from phonolith.cli.output import cell, print_facts, print_table

EXPLAIN = click.option("--explain", "explained", is_flag=True,
                       help="Say what every operator needs and how many cycles are predicted, and why products are "
                            "tiled as they are.")
EXPLAIN_RUN = click.option("--explain", "explained", is_flag=True,
                           help="Say what every operator needs and how many cycles were predicted.")
UNITS = ("array", "bus", "vector", "store")
ALL_UNITS = ("array", "bus", "drain", "vector", "store")


def print_prediction(result: dict[str, Any], measured: int | None = None) -> None:
    """Print the rooflines of all operators, which unit binds each, and the predicted cycles beside the measured."""
    print()
    print_table(("operator", *ALL_UNITS, "bound by", "predicted"), [
        (each["operator"], *(each["roofline"][unit] for unit in ALL_UNITS), each["bound"], each["predicted_cycles"])
        for each in result["operators"]])
    print()
    predicted = result["predicted_cycles"]
    print_facts([("predicted", f"{predicted:,} cycles"),
                 *([("measured", f"{measured:,} cycles ({measured / predicted - 1:+.2%})")] if measured else [])])


def print_explanation(products: list[dict[str, Any]]) -> None:
    """Print the rooflines of all products, then how each was chosen; estimates are of the product alone."""
    print()
    print_table(("operator", "M x K x N", *UNITS, "bound by", "estimated"), [
        (operator(product), f"{product['m']}x{product['k']}x{product['n']}",
         *(product["roofline"][unit] for unit in UNITS), product["bound"], product["predicted_cycles"])
        for product in products])
    for product in products:
        print()
        print_facts(choice(product))


def operator(product: dict[str, Any]) -> str:
    """Name an operator, and how many equal products it has."""
    return product["operator"] + (f" ({product['count']} times)" if product["count"] > 1 else "")


def choice(product: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of one choice."""
    facts = [("operator", operator(product)), ("plan", product["plan"]),
             ("estimated", f"{product['predicted_cycles']:,} cycles"), ("candidates", cell(product["candidates"]))]
    return facts + [("instead", f"{other['predicted_cycles']:,} cycles: {other['plan']}")
                    for other in product["alternatives"]]
