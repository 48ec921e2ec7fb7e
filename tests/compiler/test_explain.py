"""Why products are tiled as they are."""

import pytest

from phonolith.compiler import model_file
from phonolith.compiler.explain import explain_model, explain_product
from phonolith.compiler.plan import plan_product, price, ranked
from phonolith.compiler.tile import ProductSize
from phonolith.hw.config import MachineConfig

CONFIG = MachineConfig()


def size(m: int, k: int, n: int, **changes) -> ProductSize:
    """Return the size of a plain product with constant weights."""
    fields = dict(outer=1, inner=m, columns=n, k=k, tile_columns=16, row_beats=-(-k // 16), segments=1,
                  byte_results=True, has_parameters=True, has_residual=False, most_rows=m, rows_ready=True,
                  follows=True, sliceable=k % 16 == 0)
    return ProductSize(**fields | changes)


@pytest.mark.parametrize("m, k, n", [(64, 64, 64), (50, 192, 50), (1, 512, 512)])
@pytest.mark.parametrize("ready", [True, False])
def test_the_best_of_all_candidates_is_planned(m, k, n, ready):
    product = size(m, k, n, rows_ready=ready)
    found = ranked(product, CONFIG)
    assert found[0] == plan_product(product, CONFIG)
    assert [price(plan, product) for plan in found] == sorted(price(plan, product) for plan in found)
    assert len({(plan.actions, plan.sliced) for plan in found}) == len(found)


def test_explanation_of_a_product():
    found, plan = explain_product(size(64, 64, 64), CONFIG), plan_product(size(64, 64, 64), CONFIG)
    assert (found["plan"], found["predicted_cycles"]) == (plan.description, plan.cycles)
    assert found["roofline"] == plan.busy and plan.busy["array"] == 4 * 4 * 64
    assert found["bound"] == "array" and found["candidates"] == len(ranked(size(64, 64, 64), CONFIG))
    assert all(other["predicted_cycles"] >= plan.cycles for other in found["alternatives"])


def test_the_other_operand_is_among_the_alternatives():
    for m, k, n in ((64, 64, 64), (512, 96, 64)):
        kinds = {plan.description.split()[0] for plan in ranked(size(m, k, n), CONFIG)}
        found = explain_product(size(m, k, n), CONFIG)
        assert kinds == {each["plan"].split()[0] for each in (found, *found["alternatives"])} == {"rows", "columns"}


@pytest.mark.parametrize("k, rows_ready, bound", [(9, True, "drain"), (15, True, "drain"), (16, True, "array")])
def test_results_that_leave_slower_than_they_are_made(k, rows_ready, bound):
    assert explain_product(size(512, k, 64, rows_ready=rows_ready, row_beats=1), CONFIG)["bound"] == bound


def test_bus_binds_where_one_row_meets_weights():
    assert explain_product(size(1, 512, 512), MachineConfig(bus_bits=64))["bound"] == "bus"


def test_products_of_a_model():
    graph = model_file.load(model_file.resolve("encoder-ctc-w8"))
    found = explain_model(graph, CONFIG, 100)
    names = [product["operator"] for product in found]
    assert len(names) == len(set(names)) and names[-1] == "output" and "layers.0.expand" in names
    assert all(product["count"] == 1 for product in found)
