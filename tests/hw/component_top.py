"""Components of the accelerator side by side, for small ragged machines: what the cocotb benches run on."""

import functools

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.activation_writes import ActivationWrites
from phonolith.hw.array_engine import ArrayEngine, TileWalk
from phonolith.hw.array_verilog import SIMULATION, with_array_forms
from phonolith.hw.config import MachineConfig
from phonolith.hw.dispatch import Dispatcher, Semaphores
from phonolith.hw.fetch import Fetch
from phonolith.hw.history import History
from phonolith.hw.isa import BY_MNEMONIC
from phonolith.hw.load_engine import LOOPS, LoadEngine
from phonolith.hw.packer import Packer
from phonolith.hw.pe import PE
from phonolith.hw.placer import Placer
from phonolith.hw.quiesce import AddressGate, Faults, Supervisor, Watchdog
from phonolith.hw.read_arbiter import ReadArbiter
from phonolith.hw.registers import CycleCounters, Registers
from phonolith.hw.requantize import Requantizer
from phonolith.hw.row_registers import RowReduction, RowRegisters
from phonolith.hw.row_unit import RowUnit, SerialUnit
from phonolith.hw.scratchpad import Scratchpad
from phonolith.hw.segments import BURST_BITS, BeatWalker, BurstSplitter, LoopWalker, Records, log2_bytes
from phonolith.hw.sequencer import Sequencer
from phonolith.hw.sram import Sram
from phonolith.hw.store_engine import StoreEngine
from phonolith.hw.systolic_array import Row, RowSum, SystolicArray
from phonolith.hw.transposer import Transposer
from phonolith.hw.unpacker import Unpacker
from phonolith.hw.vector_engine import VectorEngine
from phonolith.hw.vector_issue import RowAddress, VectorIssue
from phonolith.hw.vector_lane import VectorLane
from phonolith.hw.verilog import plain

MEMORIES = {"activation_sram_bytes": 4096, "weight_sram_bytes": 4096, "scratchpad_bytes": 640, "parameter_bytes": 640}
# By the name of the Verilog's top. Rows are no power of two times columns. A word of the first machine (9 bytes, one
# per column) is no multiple of a beat (8 bytes); a beat of the second (16 bytes) is moved in two parts, as words
# hold 12 bytes, two per column. Weights of 1 bit need words of a multiple of 8 bytes: the third machine has them.
MACHINES = {
    "components_4x9": MachineConfig(rows=4, columns=9, bus_bits=64, row_units=3, reads_outstanding=4,
                                    writes_outstanding=4, **MEMORIES),
    "components_7x6": MachineConfig(rows=7, columns=6, bus_bits=128, row_units=2, reads_outstanding=3,
                                    writes_outstanding=5, **MEMORIES),
    "components_5x4": MachineConfig(rows=5, columns=4, bus_bits=64, row_units=1, **MEMORIES),
}
WIDE = "components_5x4"     # has the components of the array only
SRAM_WORDS = 11
INSTRUCTIONS = (BY_MNEMONIC["VECTOR"], BY_MNEMONIC["ROWOP"])
GATE_LIMIT, TIMEOUT_CYCLES = 4, 16
RECORD, RECORDS = data.StructLayout({"low": 3, "high": 5}), 3


@functools.cache
def components(top: str) -> dict[str, wiring.Component]:
    """Return one component of each kind that a machine of ``MACHINES`` has here, by the prefix of its ports."""
    config = MACHINES[top]
    dma, bus = config.dma_bytes, config.bus_bytes
    of_machine = {
        "packer": Packer, "transposer": Transposer, "placer": Placer, "unpacker": Unpacker, "scratchpad": Scratchpad,
        "load_engine": LoadEngine, "store_engine": StoreEngine, "row_unit": RowUnit, "serial_unit": SerialUnit,
        "read_arbiter": ReadArbiter, "fetch": Fetch, "sequencer": Sequencer, "registers": Registers,
        "row_registers": RowRegisters, "row_reduction": RowReduction, "vector_issue": VectorIssue,
        "vector_engine": VectorEngine, "tile_walk": TileWalk, "row": Row, "systolic_array": SystolicArray,
        "array_engine": ArrayEngine, "activation_writes": ActivationWrites,
    }
    plain = {"watchdog": Watchdog, "supervisor": Supervisor, "faults": Faults, "history": History,
             "row_address": RowAddress, "vector_lane": VectorLane, "requantizer": Requantizer, "pe": PE,
             "row_sum": RowSum, "cycle_counters": CycleCounters}
    if top == WIDE:
        parts = ("row", "systolic_array", "tile_walk", "array_engine")
        return {"pe": PE(), "row_sum": RowSum(), **{name: of_machine[name](config=config) for name in parts}}
    return {
        **{name: kind(config=config) for name, kind in of_machine.items()},
        **{name: kind() for name, kind in plain.items()},
        "loop_walker": LoopWalker(loops=LOOPS, address_bits=32), "burst_splitter": BurstSplitter(bus_bytes=bus),
        "beat_walker": BeatWalker(dma_bytes=dma, bus_bytes=bus, address_bits=log2_bytes(bus) + BURST_BITS),
        "records": Records(shape=RECORD, depth=RECORDS),
        "sram": Sram(data_bits=16, depth=SRAM_WORDS, granules=2),
        "dispatcher": Dispatcher(instructions=INSTRUCTIONS, queue_words=32), "semaphores": Semaphores(ports=4),
        "address_gate": AddressGate(limit=GATE_LIMIT, timeout_cycles=TIMEOUT_CYCLES),
    }


class ComponentTop(wiring.Component):
    """Brings out the ports of the components, each with its name as prefix."""

    def __init__(self, top: str):
        self.components = components(top)
        super().__init__({name: Out(component.signature) for name, component in self.components.items()})

    def elaborate(self, platform):
        m = Module()
        for name, component in self.components.items():
            m.submodules[name] = component
            inner = component.signature.flatten(component)
            outer = component.signature.flatten(getattr(self, name))
            for (_, member, port), (_, _, pin) in zip(inner, outer, strict=True):
                m.d.comb += port.eq(pin) if member.flow == In else pin.eq(port)
        return m


def generate(top: str) -> str:
    """Return the Verilog of all components for one machine of ``MACHINES``, in the form that the accelerator's has.

    The first machine's arrays are those that simulate faster, the others' those that are synthesized.
    """
    text = verilog.convert(ComponentTop(top), name=top, emit_src=False, strip_internal_attrs=True)
    choice = f"`define {SIMULATION}\n" if top == next(iter(MACHINES)) else ""
    return choice + with_array_forms(plain(text), MACHINES[top])
