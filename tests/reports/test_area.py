"""Built-in area: composed from counts, whole, and the same machine that the RTL is."""

import time
from dataclasses import replace

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.reports.area import BLOCKS, MEMORIES, area, block_of, builtin_area, counts, split, table
from phonolith.reports.sram_area import sram_area
from phonolith.reports.synthesis import Instance, Memory

KEYS = {"area_um2", "logic_um2", "sram_um2", "gate_equivalents", "blocks", "library", "tool", "mapping"}
SMALL, LARGE = MachineConfig().with_array("8x8"), MachineConfig()


@pytest.mark.parametrize("config", [SMALL, LARGE, MachineConfig().with_array("12x20")])
def test_sums(config):
    result = builtin_area(config)
    assert result.keys() >= KEYS
    assert result["area_um2"] == pytest.approx(result["logic_um2"] + result["sram_um2"])
    assert sum(result["blocks"].values()) == pytest.approx(result["area_um2"])
    assert result["gate_equivalents"] == pytest.approx(result["logic_um2"] / table()["nand2_um2"])
    assert min(area for block, area in result["blocks"].items() if block != "sram_partial_sums") > 0   # or flip-flops


def test_area_without_a_library_is_built_in():
    assert area(SMALL) == builtin_area(SMALL)
    assert "sky130" in area(SMALL)["library"]


def test_no_synthesis():
    builtin_area(SMALL)
    started = time.perf_counter()
    for _ in range(10):
        builtin_area(LARGE)
    assert time.perf_counter() - started < 0.5


def test_composition_follows_the_counts():
    small, large = builtin_area(SMALL)["blocks"], builtin_area(LARGE)["blocks"]
    assert large["processing_elements"] == pytest.approx(4 * small["processing_elements"])
    assert large["vector_lanes"] == pytest.approx(2 * small["vector_lanes"])
    assert large["sequencer"] == small["sequencer"]
    more_units = builtin_area(replace(LARGE, row_units=8))["blocks"]
    assert more_units["row_units"] == pytest.approx(2 * large["row_units"])


def test_table_names_what_it_was_made_with():
    built_in = table()
    assert built_in["library"] and built_in["tool"].startswith("pyosys ") and "-booth" in built_in["mapping"]
    assert set(built_in["blocks"]) == {block for block, _ in BLOCKS}
    known = counts(LARGE)
    assert all(set(figures) <= set(known) for figures in built_in["blocks"].values())


def test_memories_are_priced_by_the_model():
    blocks = builtin_area(LARGE)["blocks"]
    assert blocks["sram_weight"] == pytest.approx(16 * sram_area(512, 128))
    assert blocks["sram_tables"] == pytest.approx(16 * sram_area(256, 8))


def test_every_memory_is_counted():
    larger = replace(LARGE, activation_sram_bytes=2 * LARGE.activation_sram_bytes, queue_words=256,
                     weight_sram_bytes=2 * LARGE.weight_sram_bytes, scratchpad_bytes=2 * LARGE.scratchpad_bytes,
                     parameter_bytes=4 * LARGE.parameter_bytes)
    before, after = builtin_area(LARGE)["blocks"], builtin_area(larger)["blocks"]
    assert all(after[block] > before[block] for block, _ in MEMORIES
               if block not in ("sram_tables", "sram_partial_sums", "sram_history"))


@pytest.mark.parametrize(("path", "block"), [
    ("phonolith_top", "interconnect"),
    ("phonolith_row.pe07", "processing_elements"),
    ("phonolith_row.sum", "array_edge"),
    ("phonolith_top.array.walk", "array_edge"),
    ("phonolith_top.array_dispatcher.queue", "dispatch"),
    ("phonolith_top.vector.lane_10.requantizer", "vector_lanes"),
    ("phonolith_top.vector.row_unit.unit_3", "row_units"),
    ("phonolith_top.vector.row_unit", "vector_control"),
    ("phonolith_top.vector.registers", "row_registers"),
    ("phonolith_top.registers", "registers"),
    ("phonolith_top.load.placer.transposer", "transposer"),
    ("phonolith_top.load_dispatcher", "dispatch"),
    ("phonolith_top.history", "dispatch"),
])
def test_block_of_an_instance(path, block):
    assert block_of(path, BLOCKS) == block


def test_split_adds_up():
    memory = Memory(words=512, bits=128)
    logic, memories = split([Instance("phonolith_top", 3.0, ()),
                             Instance("phonolith_top.weight_bank_0", 1.0, (memory,)),
                             Instance("phonolith_top.weight_bank_1", 1.0, (memory,))])
    assert sum(logic.values()) == 5.0
    assert logic["bank_control"] == 2.0
    assert memories["sram_weight"] == [memory, memory]


@pytest.mark.slow
def test_composition_is_close_to_synthesis(liberty):
    library = liberty / "sky130hd_tt.lib.gz"
    if not library.exists():
        pytest.skip(f"no {library.name} in {liberty}")
    real, composed = area(SMALL, [library]), builtin_area(SMALL)
    assert composed["sram_um2"] == pytest.approx(real["sram_um2"])
    assert composed["logic_um2"] == pytest.approx(real["logic_um2"], rel=0.03)
    assert composed["library"] == real["library"] and composed["mapping"] == real["mapping"]
