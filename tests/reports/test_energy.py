"""Energy: every counted event has a price, and the parts make the whole."""

from dataclasses import fields, replace

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.reports.energy import cost, energy, sources
from phonolith.sim.events import Events

CONFIG = MachineConfig()
SOME = Events(**{field.name: 1000 + 10 * index for index, field in enumerate(fields(Events))})


def test_nothing_happened():
    assert set(energy(Events(), 0, 0, CONFIG).values()) == {0.0}


def test_parts_make_the_total():
    parts = energy(SOME, 8 * 5000, 700, CONFIG)
    assert parts["total"] == pytest.approx(sum(value for name, value in parts.items() if name != "total"))
    assert set(parts) == {"array", "vector", "sram", "dram", "total"}


@pytest.mark.parametrize("name", [field.name for field in fields(Events)])
def test_every_event_costs(name):
    more = replace(SOME, **{name: getattr(SOME, name) + 1})
    assert energy(more, 8 * 5000, 700, CONFIG)["total"] > energy(SOME, 8 * 5000, 700, CONFIG)["total"]


def test_full_array_pays_for_each_multiplication():
    steps = 10
    macs = steps * CONFIG.rows * CONFIG.columns
    parts = energy(Events(array_steps=steps), 8 * macs, 0, CONFIG)
    assert parts["total"] == pytest.approx(macs * cost("multiply_accumulate") * 1e-6)


def test_padding_costs_less_than_work():
    steps = 10
    macs = steps * CONFIG.rows * CONFIG.columns
    half = energy(Events(array_steps=steps), 4 * macs, 0, CONFIG)["array"]
    full = energy(Events(array_steps=steps), 8 * macs, 0, CONFIG)["array"]
    assert full / 2 < half < full


def test_dram_bytes_cost_alone():
    assert energy(Events(), 0, 1_000_000, CONFIG)["total"] == pytest.approx(cost("dram"))


def test_constants_name_their_source():
    assert all(" pJ: " in text and len(text) > 20 for text in sources().values())
