"""The array's Verilog: text that grows with R + C."""

from amaranth.back import verilog

from phonolith.hw.array_verilog import synthesized_row
from phonolith.hw.config import MachineConfig
from phonolith.hw.systolic_array import ROW_MODULE, SystolicArray


def machine(rows: int, columns: int) -> MachineConfig:
    """Return a small machine."""
    return MachineConfig(rows=rows, columns=columns, bus_bits=64)


def test_text_grows_with_rows_plus_columns():
    def size(rows: int, columns: int) -> int:
        config = machine(rows, columns)
        array = verilog.convert(SystolicArray(config=config), name="array", emit_src=False)
        assert array.count(f"{ROW_MODULE} ") == rows
        return len(array) + len(synthesized_row(config))

    small, large = size(8, 8), size(24, 24)
    assert large < 4 * small
