"""Builds that are made only sometimes: waveforms, and the other bus widths."""

import numpy as np
import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl.cache import default_folder
from phonolith.sim.rtl.run import RtlMachine

CACHE = default_folder().with_name("rtl tests")


@pytest.mark.slow
def test_waveforms_show_the_run(copy_verilog, image, tmp_path):
    path = tmp_path / "a wave.vcd"
    machine = RtlMachine(MachineConfig(), copy_verilog, waves=path, cache=CACHE)
    result = machine.run(image, 0, (0x1000, 0x2000, 16))
    machine.close()
    text = path.read_text()
    assert result.pin_cycles == 74
    assert "$enddefinitions" in text and "m_axi_araddr" in text
    assert int(text.rsplit("#", 1)[1].split()[0]) > 2 * result.pin_cycles


@pytest.mark.slow
def test_waveforms_to_nowhere_are_refused(copy_verilog, tmp_path):
    with pytest.raises(PhonolithError, match="Cannot write waveforms to .*missing") as caught:
        RtlMachine(MachineConfig(), copy_verilog, waves=tmp_path / "missing" / "x.vcd", cache=CACHE)
    assert caught.value.kind == "waves"


@pytest.mark.slow
@pytest.mark.parametrize("bus_bits", [64, 256])
def test_other_bus_widths(copy_verilog, image, bus_bits):
    verilog = copy_verilog.replace("parameter BUS = 128", f"parameter BUS = {bus_bits}")
    machine = RtlMachine(MachineConfig.load(bus_bits=bus_bits), verilog, cache=CACHE)
    result = machine.run(image, 0, (0x1000, 0x4000, 16), stalls_seed=1)
    count = 16 * bus_bits // 8
    expected = image.copy()
    expected[0x4000:0x4000 + count] = image[0x1000:0x1000 + count]
    assert np.array_equal(result.image, expected) and result.dram_read_beats == 16
