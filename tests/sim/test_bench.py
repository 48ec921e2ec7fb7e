"""``bench`` on RTL."""

import numpy as np
import pytest

from phonolith.compiler.weight_formats import effective_weights
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.bench import bench_dwconv, bench_gemm, bench_speed, requantization, weight_product

CONFIG = MachineConfig()


def test_large_product_keeps_the_array_busy():
    result = bench_gemm(128, 512, 512, CONFIG)
    assert result["bit_exact"]
    assert result["macs"] == 128 * 512 * 512
    assert result["utilisation"] == result["macs"] / (256 * result["cycles"])
    assert result["utilisation"] >= 0.98
    for engine in result["engines"].values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == result["cycles"]


# Cycles at most, by M, K, N, whether both operands are row-major along K, and DRAM latency.
BARS = [
    (128, 512, 512, False, 20, 132_300), (512, 768, 768, False, 20, 1_181_700), (64, 64, 64, False, 20, 1_329),
    (512, 64, 512, True, 20, 65_850), (100, 64, 100, True, 20, 3_370), (50, 192, 50, False, 20, 3_325),
    (16, 512, 512, False, 20, 17_475), (1, 512, 512, False, 20, 16_850), (128, 512, 512, False, 100, 132_550),
    (128, 512, 512, False, 200, 132_850),
]


@pytest.mark.parametrize(("m", "k", "n", "transpose_b", "latency", "cycles"), BARS)
def test_no_product_gets_slower(m, k, n, transpose_b, latency, cycles):
    config = MachineConfig(dram_latency=latency)
    assert config.activation_sram_bytes + config.weight_sram_bytes + config.scratchpad_bytes <= 320 << 10
    result = bench_gemm(m, k, n, config, transpose_b=transpose_b)
    assert result["bit_exact"] and result["cycles"] <= cycles


# Cycles at most, by rows, bits, scheme and block; with 8 bits 512 rows take 1,181,606 cycles, one takes 37,513.
NARROW = [
    (512, 4, "symmetric", None, 591_600), (512, 2, "symmetric", None, 296_700), (512, 1, "symmetric", None, 149_300),
    (1, 4, "symmetric", None, 19_050), (1, 2, "symmetric", None, 9_820), (1, 1, "symmetric", None, 5_220),
    (512, 2, "symmetric", 64, 302_000), (512, 2, "asymmetric", 64, 302_000), (512, 1, "asymmetric", 128, 151_200),
]


@pytest.mark.parametrize(("m", "bits", "scheme", "block", "cycles"), NARROW)
def test_narrow_weights_take_less_time(m, bits, scheme, block, cycles):
    result = bench_gemm(m, 768, 768, CONFIG, bits=bits, scheme=scheme, block=block)
    assert result["bit_exact"] and result["cycles"] <= cycles
    assert result["utilisation"] == result["macs"] * bits / 8 / (256 * result["cycles"])


@pytest.mark.parametrize("bits", [4, 2, 1])
def test_narrow_weights_on_another_machine(bits):
    """Words of 14 bytes do not divide into steps of 4 or 8: weights of 2 and 1 bits are stored in 4 bits there."""
    config = MachineConfig(bus_bits=64).with_array("5x7")
    for block in (None, 32):
        assert bench_gemm(19, 75, 23, config, bits=bits, scheme="asymmetric", block=block)["bit_exact"]


@pytest.mark.parametrize(("bits", "numbers", "message"), [
    (4, 8, "B reaches 8 .. 8; numbers of 4 bits are -8 .. 7."), (1, 0, "numbers of 1 bits are -1 and 1.")])
def test_numbers_that_do_not_fit(bits, numbers, message):
    with pytest.raises(PhonolithError, match=message):
        bench_gemm(5, 5, 4, CONFIG, b=np.full((5, 4), numbers, np.int8), bits=bits)


def test_single_bits_are_plus_and_minus_one():
    b = np.where(np.arange(20).reshape(5, 4) % 3, 1, -1).astype(np.int8)
    assert bench_gemm(5, 5, 4, CONFIG, b=b, bits=1)["bit_exact"]
    graph = weight_product(b, 1)
    assert (effective_weights(graph.nodes[0]) == b.T).all()


@pytest.mark.parametrize(("frames", "channels", "kernel", "utilisation"), [(250, 144, 31, 0.63), (500, 256, 31, 0.65)])
def test_depthwise_convolutions_keep_the_array_busy(frames, channels, kernel, utilisation):
    result = bench_dwconv(frames, channels, kernel, CONFIG)
    assert result["bit_exact"] and result["macs"] == frames * channels * kernel
    assert result["utilisation"] == result["macs"] / (256 * result["cycles"]) >= utilisation


@pytest.mark.parametrize(("frames", "channels", "kernel"), [(1, 1, 1), (17, 5, 4), (300, 20, 33), (40, 33, 2)])
def test_depthwise_convolutions(frames, channels, kernel):
    assert bench_dwconv(frames, channels, kernel, CONFIG, seed=3)["bit_exact"]


@pytest.mark.parametrize("kind", [{"transpose_b": True}, {"runtime_b": True}], ids=["transpose", "runtime"])
def test_products_of_run_time_operands_of_4_bits_take_half_the_cycles(kind):
    wide, narrow = (bench_gemm(128, 256, 256, CONFIG, bits=bits, **kind) for bits in (8, 4))
    assert wide["bit_exact"] and narrow["bit_exact"]
    assert narrow["cycles"] <= 0.53 * wide["cycles"]


@pytest.mark.parametrize("wrong", [{"bits": 2}, {"bits": 1}, {"scheme": "asymmetric"}, {"block": 64}])
def test_what_run_time_operands_cannot_have(wrong):
    with pytest.raises(PhonolithError, match="a run-time B has 8 or 4 bits and one scale"):
        bench_gemm(5, 64, 4, CONFIG, runtime_b=True, **wrong)


@pytest.mark.parametrize("kind", [{}, {"transpose_b": True}, {"runtime_b": True}, {"transpose_b": True, "bits": 4},
                                  {"runtime_b": True, "bits": 4}],
                         ids=["weight", "transpose", "runtime", "transpose4", "runtime4"])
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (17, 33, 15), (50, 64, 50)])
def test_products(m, k, n, kind):
    assert bench_gemm(m, k, n, CONFIG, seed=3, **kind)["bit_exact"]


def test_given_operands(tmp_path):
    a, b = np.eye(5, dtype=np.int8), np.arange(20, dtype=np.int8).reshape(5, 4)
    np.save(tmp_path / "a.npy", a)
    assert bench_gemm(5, 5, 4, CONFIG, a=tmp_path / "a.npy", b=b)["bit_exact"]


@pytest.mark.parametrize("a, message", [
    (np.zeros((4, 5), np.int8), r"A must be int8 \[5, 5\], not int8 \[4, 5\]"),
    (np.zeros((5, 5), np.int16), r"not int16 \[5, 5\]"),
])
def test_wrong_operands(a, message):
    with pytest.raises(PhonolithError, match=message) as error:
        bench_gemm(5, 5, 4, CONFIG, a=a)
    assert error.value.kind == "wrong-input"


def test_unreadable_operand(tmp_path):
    (tmp_path / "a.npy").write_text("no array")
    with pytest.raises(PhonolithError, match="cannot read A from"):
        bench_gemm(5, 5, 4, CONFIG, a=tmp_path / "a.npy")


@pytest.mark.parametrize("k", [1, 7, 64, 512, 5000])
def test_random_products_fill_the_range(k):
    multiplier, shift = requantization(k)
    rng = np.random.default_rng(k)
    a, b = rng.integers(-128, 128, (200, k)), rng.integers(-128, 128, (k, 50))
    assert 25 < np.std((a @ b) * multiplier / 2**shift) < 60
    assert 1 << 15 <= multiplier < 1 << 16


def test_speed():
    result = bench_speed(CONFIG)
    assert result["cycles_per_cpu_second"] > 0 and result["build_cpu_seconds"] > 0
