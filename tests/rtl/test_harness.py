"""The DRAM model to the cycle, its protocol checks, and runs that fail, seen through the stand-in's pins."""

import numpy as np
import pytest

from phonolith.hw.errors import PhonolithError

SOURCE, TARGET, BEAT = 0x1000, 0x4000, 16
HANG, FIXED, EARLY_LAST, MANY, FAIL, AGAIN = (1 << bit for bit in range(6))


def copied(image, beats, source=SOURCE, target=TARGET):
    expected = image.copy()
    expected[target:target + beats * BEAT] = image[source:source + beats * BEAT]
    return expected


@pytest.mark.parametrize("latency", [1, 2, 20, 333])
@pytest.mark.parametrize("beats", [1, 2, 16, 255])
def test_latency_and_bandwidth(make_machine, image, latency, beats):
    result = make_machine(dram_latency=latency).run(image, 0, (SOURCE, TARGET, beats))
    assert result.done and np.array_equal(result.image, copied(image, beats))
    assert result.engines["load"]["busy"] == latency
    assert result.engines["load"]["idle"] == beats - 1
    assert result.engines["store"]["busy"] == latency
    assert (result.dram_read_beats, result.dram_write_beats) == (beats, beats)


def test_cycles_count_from_start_write_to_irq(make_machine, image):
    result = make_machine(dram_latency=20).run(image, 0, (SOURCE, TARGET, 16))
    # Reads: accepted in cycle 1, last beat 20 + 15 later; writes: 37..52, response 72; then two states to irq.
    assert result.pin_cycles == result.cycles == 74


@pytest.mark.parametrize("limit", [1, 2, 64])
def test_outstanding_reads_are_limited(make_machine, image, limit):
    result = make_machine(reads_outstanding=limit).run(image, 0, (SOURCE, TARGET, 4, MANY))
    assert result.engines["array"]["busy"] == limit
    assert result.dram_read_beats == 65 * 4 and result.done


@pytest.mark.parametrize("shared", [False, True])
def test_shared_dram_halves_concurrent_traffic(make_machine, image, shared):
    machine = make_machine(dram_latency=1, dram_shared=shared)
    alone = machine.run(image, 0, (SOURCE, TARGET, 256)).cycles
    both = machine.run(image, 0, (SOURCE, TARGET, 256, AGAIN)).cycles
    assert both - alone == pytest.approx(254 if shared else 1, abs=3)


@pytest.mark.parametrize("seed", range(8))
def test_random_stalls_change_cycles_but_not_data(make_machine, image, seed):
    machine = make_machine()
    for beats in (1, 7, 200):
        result = machine.run(image, 0, (SOURCE, TARGET, beats), stalls_seed=seed)
        again = machine.run(image, 0, (SOURCE, TARGET, beats), stalls_seed=seed)
        assert np.array_equal(result.image, copied(image, beats))
        assert result.cycles >= machine.run(image, 0, (SOURCE, TARGET, beats)).cycles
        assert result.image is not again.image and np.array_equal(result.image, again.image)


def test_stalls_repeat_from_reset(make_machine, image):
    cycles = [make_machine().run(image, 0, (SOURCE, TARGET, 100), stalls_seed=3).cycles for _ in range(2)]
    assert cycles[0] == cycles[1] > make_machine().run(image, 0, (SOURCE, TARGET, 100)).cycles


def test_runs_again_with_and_without_reset(make_machine, image):
    machine = make_machine()
    first = machine.run(image, 0, (SOURCE, TARGET, 8))
    second = machine.run(image, 0, (SOURCE, TARGET, 8))
    machine.reset()
    third = machine.run(image, 0, (SOURCE, TARGET, 8))
    assert first.cycles == second.cycles == third.cycles
    assert np.array_equal(second.image, third.image)


def test_write_log_says_when_bytes_were_written(make_machine, image):
    result = make_machine(dram_latency=20).run(image, 0, (SOURCE, TARGET, 16), log_writes=True)
    assert result.writes["cycle"].tolist() == list(range(37, 53))
    assert result.writes["address"].tolist() == list(range(TARGET, TARGET + 256, BEAT))
    assert set(result.writes["strobe"].tolist()) == {0xFFFF}


@pytest.mark.parametrize("arguments, text", [
    ((0x1F80, TARGET, 16), "a read burst crosses a 4 KiB boundary"),
    ((SOURCE, 0x4F80, 16), "a write burst crosses a 4 KiB boundary"),
    ((SOURCE, TARGET, 16, FIXED), "a read burst is not INCR at full bus width"),
    ((SOURCE, TARGET, 16, EARLY_LAST), "wlast does not match awlen"),
])
def test_protocol_errors_are_reported(make_machine, image, arguments, text):
    machine = make_machine()
    with pytest.raises(PhonolithError, match=text) as caught:
        machine.run(image, 0, arguments)
    assert caught.value.kind == "axi-protocol"
    assert machine.run(image, 0, (SOURCE, TARGET, 4)).done


def test_access_outside_the_image_gets_an_error_response(make_machine, image):
    result = make_machine().run(image, 0, (1 << 20, TARGET, 4))
    assert result.bus_error == {"address": 1 << 20, "cycle": 1}
    assert not result.image[TARGET:TARGET + 64].any()


def test_image_of_any_length_keeps_its_length(make_machine, image):
    short = image[:SOURCE + 21]
    result = make_machine().run(short, 0, (SOURCE, SOURCE + 16, 1))
    assert result.image.size == short.size and result.bus_error is None
    assert np.array_equal(result.image[-5:], short[SOURCE:SOURCE + 5])


def test_wrong_image_is_refused(make_machine):
    with pytest.raises(ValueError, match="image must be one-dimensional uint8, not int16"):
        make_machine().run(np.zeros(64, np.int16), 0)


def test_error_code_and_instruction_are_returned(make_machine, image):
    result = make_machine().run(image, 0, (SOURCE, TARGET, 4, FAIL))
    assert (result.done, result.error_code, result.error_address) == (False, 7, 42)


@pytest.mark.parametrize("limits", [{"max_cycles": 5000}, {"quiet_cycles": 5000}])
def test_hang_is_reported_with_the_registers(make_machine, image, limits):
    machine = make_machine()
    with pytest.raises(PhonolithError) as caught:
        machine.run(image, 0, (SOURCE, TARGET, 4, HANG), **limits)
    assert caught.value.kind == "hang"
    assert "5000 cycles" in caught.value.message and "'write_beats': 4" in caught.value.message
    assert machine.run(image, 0, (SOURCE, TARGET, 4)).done


def test_simulation_speed_is_measured(make_machine, image):
    machine = make_machine()
    with pytest.raises(PhonolithError):
        machine.run(image, 0, (SOURCE, TARGET, 4, HANG), max_cycles=300_000)
    result = machine.run(image, 0, (SOURCE, TARGET, 255))
    assert result.cpu_seconds > 0 and result.simulated_cycles_per_second > 100_000
