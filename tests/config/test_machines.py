"""Presets, limits, and programs on machines of every shape, down to memories of one tile."""

from dataclasses import replace

import pytest

from phonolith.cli.main import run
from phonolith.compiler import model_file
from phonolith.compiler.pipeline import compile_graph
from phonolith.compiler.random_graphs import random_graph
from phonolith.hw.config import PRESETS, MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.verify import verify_cases, verify_random

# Beats narrower and wider than C and 2C bytes; one dimension much larger than the other; odd sizes.
SHAPES = ("4x4/64", "4x4/128", "4x4/256", "5x7/64", "5x7/256", "8x8/256", "8x16/128", "12x20/128", "12x20/256",
          "16x16/64", "16x16/256", "32x4/256", "4x32/64", "31x29/128", "32x32/256")


def shaped(text: str, **overrides) -> MachineConfig:
    array, bus = text.split("/")
    return MachineConfig.load(array=array, bus_bits=int(bus), **overrides)


def least_memories(config: MachineConfig, factor: int) -> MachineConfig:
    """A machine whose memories hold ``factor`` times the least that is allowed."""
    return replace(
        config, queue_words=32,
        activation_sram_bytes=factor * 2 * config.rows * config.word_bytes,
        weight_sram_bytes=factor * 2 * config.columns * config.word_bytes,
        scratchpad_bytes=factor * 4 * config.rows * config.scratch_word_bytes,
        parameter_bytes=factor * 2 * config.parameter_word_bytes)


@pytest.mark.parametrize("shape", SHAPES)
def test_programs_on_any_shape(shape):
    result = verify_random("graph", 8, shaped(shape), seed=40, rungs=("golden", "iss"), bits=8)
    assert (result["checked"], result["failed"], result["first_difference"]) == (8, 0, None)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_rtl_of_any_shape(shape):
    result = verify_random("graph", 20, shaped(shape), bits=8)
    assert (result["checked"], result["failed"], result["first_difference"]) == (20, 0, None)


@pytest.mark.parametrize(("shape", "factor", "least"), [
    ("4x4/64", 1, 1), ("4x4/64", 16, 8), ("8x8/128", 2, 5), ("8x8/128", 16, 10), ("5x7/256", 4, 4),
    ("32x32/256", 1, 5)])
def test_smallest_memories(shape, factor, least):
    """A program fits and is right, or the compiler says what is missing."""
    config = least_memories(shaped(shape), factor)
    right = 0
    for seed in range(10):
        try:
            result = verify_cases([(f"seed {seed}", *random_graph(seed))], config, ("golden", "iss"))
        except PhonolithError as error:
            assert error.kind == "does-not-fit" and "memory" in str(error), seed
            continue
        assert result["first_difference"] is None
        right += 1
    assert right >= least


@pytest.mark.parametrize("shape", ["8x8/128", "4x4/64"])
def test_semaphores_stay_in_range_with_a_small_scratchpad(shape):
    """Many short transfers lie between their signals and their waits."""
    config = shaped(shape, scratchpad_bytes=4 * 8 * 16)
    result = verify_cases([("seed 13", *random_graph(13))], config, ("golden", "iss"))
    assert result["first_difference"] is None


@pytest.mark.parametrize("queue_words", [32, 64])
def test_wide_softmax_with_short_queues(queue_words):
    """Three products per column tile wait for their drain, and few may."""
    config = replace(least_memories(MachineConfig(rows=8, columns=8), 8), queue_words=queue_words)
    result = verify_cases([("seed 11", *random_graph(11))], config, ("golden", "iss"))
    assert (result["failed"], result["first_difference"]) == (0, None)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 8])
def test_rtl_with_small_memories(factor):
    config = least_memories(MachineConfig(rows=8, columns=8), factor)
    for seed in range(20):
        try:
            result = verify_cases([(f"seed {seed}", *random_graph(seed))], config)
        except PhonolithError as error:
            assert error.kind == "does-not-fit", seed
        else:
            assert result["first_difference"] is None


@pytest.mark.parametrize(("preset", "array", "bus"), [
    ("tiny", "4x4", 64), ("default", "16x16", 128), ("large", "32x32", 256)])
def test_presets(preset, array, bus):
    config = MachineConfig.load(preset)
    assert config is not PRESETS[preset] and config == PRESETS[preset]
    assert (config.array, config.bus_bits) == (array, bus)
    graph = model_file.load(model_file.resolve("encoder-ctc-w8"))
    assert compile_graph(graph, config, 400).config_hash == config.hash


def test_default_preset_is_the_default():
    assert MachineConfig.load("default") == MachineConfig.load() == MachineConfig()
    assert MachineConfig().sram_bytes <= 320 * 1024


def test_preset_by_name_with_overrides(capfd):
    assert run(["config", "--config", "tiny", "--bus", "256"]) == 0
    printed = capfd.readouterr().out
    assert "bus_bits = 256" in printed and "columns = 4\n" in printed


def test_a_file_that_is_no_preset_names_the_presets():
    with pytest.raises(PhonolithError, match="cannot read configuration huge") as caught:
        MachineConfig.load("huge")
    assert "tiny, default, large" in caught.value.remedy


@pytest.mark.parametrize(("overrides", "message"), [
    ({"array": "0x3"}, "array 0x3: rows must be 4 to 64, not 0."),
    ({"array": "65x8"}, "array 65x8: rows must be 4 to 64, not 65."),
    ({"bus_bits": 96}, "bus_bits must be 64, 128 or 256, not 96."),
    ({"weight_sram_bytes": 100}, "weight_sram_bytes = 100 is smaller than a tile of a 16x16 array."),
    ({"scratchpad_bytes": 1 << 23}, "scratch_depth would be 262144 words; instructions address 65536."),
    ({"queue_words": 31}, "queue_words must be at least 32, not 31."),
    ({"dram_latency": 0}, "dram_latency 0 and clock_mhz 500.0 must be positive."),
    ({"clock_mhz": float("nan")}, "dram_latency 20 and clock_mhz nan must be positive."),
])
def test_impossible_machines(overrides, message):
    with pytest.raises(PhonolithError) as caught:
        MachineConfig.load(**overrides)
    assert caught.value.kind == "invalid-configuration"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("columns", range(4, 65))
@pytest.mark.parametrize("bus", [64, 128, 256])
def test_word_widths(columns, bus):
    """C or 2C bytes, whole transfers per beat, whole words per parameter and scratchpad word."""
    config = MachineConfig(columns=columns, bus_bits=bus)
    assert config.word_bytes in (columns, 2 * columns)
    assert config.dma_bytes <= config.word_bytes and config.bus_bytes % config.dma_bytes == 0
    assert config.dma_bytes == config.bus_bytes or config.dma_bytes > columns
