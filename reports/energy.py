"""Energy of a run from counted events and published or measured energies per event.

Preliminary by construction: activity does not depend on the data, leakage and the clock tree of idle blocks are not
included. Every constant names its node and source.
"""

from dataclasses import dataclass

from phonolith.hw.config import MachineConfig
from phonolith.sim.events import Events


@dataclass(frozen=True)
class Constant:
    """Picojoules per event."""

    picojoules: float
    source: str


# A 1024 x 32 macro moves four bytes per access.
SRAM_BYTES = 4
CONSTANTS = {
    "multiply_accumulate": Constant(11.3, "SKY130, 8x8 int8 array, 100 MHz, random operands: gate-level toggles, "
                                          "zero-delay, OpenSTA"),
    "idle_multiply_accumulate": Constant(3.3, "the same array with zero weights"),
    "lane_multiplication": Constant(11.3 * 32 * 17 / 64, "estimate: the int8 multiply-accumulate scaled by the area "
                                                         "of a 32 x 17 bit multiplier"),
    "lane_operation": Constant(11.3 * 32 / 64, "estimate: the int8 multiply-accumulate scaled to one 32-bit adder row"),
    "row_function": Constant(48 * 11.3 * 48 / 64, "estimate: 48 serial steps of a 48-bit adder row"),
    "sram_read": Constant(48.3 / SRAM_BYTES, "IHP SG13G2 macro RM_IHPSG13_1P_1024x32, typical, 1.2 V, per byte"),
    "sram_written": Constant(58.9 / SRAM_BYTES, "IHP SG13G2 macro RM_IHPSG13_1P_1024x32, typical, 1.2 V, per byte"),
    "dram": Constant(8 * 8.0, "LPDDR4, 8 pJ/bit, as collected by hwcomponents-cacti, per byte"),
}
MEMORIES = ("activation", "weight", "scratchpad", "parameter")


def energy(events: Events, mac_bits: int, dram_bytes: int, config: MachineConfig) -> dict[str, float]:
    """Return microjoules by part: array, vector, sram, dram, and their sum ``total``.

    Parameters
    ----------
    events : Events
        Counts of the run.
    mac_bits : int
        Multiply-accumulates of the mathematical products, unpadded, times the bits of their weights: eight are a step
        of an element, whatever its width. The array's other steps count as idle.
    dram_bytes : int
        Bytes moved on the bus, both ways, program included.
    """
    steps = mac_bits / 8
    padding = max(events.array_steps * config.rows * config.columns - steps, 0)
    read = sum(getattr(events, f"{name}_read") for name in MEMORIES) + events.table_lookups
    written = sum(getattr(events, f"{name}_written") for name in MEMORIES)
    picojoules = {
        "array": steps * cost("multiply_accumulate") + padding * cost("idle_multiply_accumulate"),
        "vector": (events.lane_multiplications * cost("lane_multiplication")
                   + events.lane_operations * cost("lane_operation") + events.row_functions * cost("row_function")),
        "sram": read * cost("sram_read") + written * cost("sram_written"),
        "dram": dram_bytes * cost("dram"),
    }
    parts = {name: value * 1e-6 for name, value in picojoules.items()}
    return {**parts, "total": sum(parts.values())}


def cost(name: str) -> float:
    """Return the picojoules of one event."""
    return CONSTANTS[name].picojoules


def sources() -> dict[str, str]:
    """Return where each constant comes from, for reports."""
    return {name: f"{constant.picojoules:.4g} pJ: {constant.source}" for name, constant in CONSTANTS.items()}
