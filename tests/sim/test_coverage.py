"""What verification counts of weights."""

from phonolith.compiler.passes import lower_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.compiler.weight_formats import SCHEME_NAMES
from phonolith.sim.coverage import Coverage


def counted(count: int, **options) -> dict[str, dict[str, int]]:
    coverage = Coverage()
    for seed in range(count):
        for node in lower_graph(random_graph(seed, **options)[0]).nodes:
            coverage.node(node)
    return coverage.as_dict()


def test_every_scheme_and_width_is_counted():
    counts = counted(40, bits="any")
    assert tuple(counts["scheme"]) == SCHEME_NAMES and min(counts["scheme"].values()) > 0
    assert list(counts["bits"]) == ["1", "2", "4", "8"] and min(counts["bits"].values()) > 0
    assert sum(counts["bits"].values()) == counts["operator"]["linear"] + counts["operator"]["conv2d"]


def test_what_was_asked_for_is_counted_alone():
    counts = counted(3, bits=4, scheme="asymmetric-64")
    assert [name for name, count in counts["scheme"].items() if count] == ["asymmetric-64"]
    assert [name for name, count in counts["bits"].items() if count] == ["4"]


def test_runs_without_operators_count_no_weights():
    assert {"operator", "scheme", "bits"}.isdisjoint(counted(0))
