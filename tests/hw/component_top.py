"""Components of the accelerator side by side, for one small ragged machine: what the cocotb benches run on."""

import functools

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw.config import MachineConfig
from phonolith.hw.dispatch import Dispatcher, Semaphores
from phonolith.hw.isa import BY_MNEMONIC
from phonolith.hw.load_engine import LOOPS, LoadEngine
from phonolith.hw.packer import Packer
from phonolith.hw.placer import Placer
from phonolith.hw.quiesce import AddressGate, Watchdog
from phonolith.hw.read_arbiter import ReadArbiter
from phonolith.hw.row_unit import RowUnit
from phonolith.hw.scratchpad import Scratchpad
from phonolith.hw.segments import BeatWalker, BurstSplitter, LoopWalker
from phonolith.hw.sram import Sram
from phonolith.hw.store_engine import StoreEngine
from phonolith.hw.transposer import Transposer
from phonolith.hw.unpacker import Unpacker
from phonolith.hw.verilog import strip_memory_contents

TOP = "component_top"
# Rows are no power of two times columns, and a word (10 bytes) is no multiple of a beat (8 bytes).
CONFIG = MachineConfig(rows=4, columns=5, bus_bits=64, activation_sram_bytes=4096, weight_sram_bytes=4096,
                       scratchpad_bytes=640, parameter_bytes=640, row_units=3, reads_outstanding=4,
                       writes_outstanding=4)
SRAM_WORDS = 11
INSTRUCTIONS = (BY_MNEMONIC["VECTOR"], BY_MNEMONIC["ROWOP"])
GATE_LIMIT, TIMEOUT_CYCLES = 4, 16


@functools.cache
def components() -> dict[str, wiring.Component]:
    """Return one component of each kind, by the prefix of its ports."""
    dma, bus = CONFIG.dma_bytes, CONFIG.bus_bytes
    return {
        "packer": Packer(config=CONFIG), "transposer": Transposer(config=CONFIG), "placer": Placer(config=CONFIG),
        "loop_walker": LoopWalker(loops=LOOPS, address_bits=32), "burst_splitter": BurstSplitter(bus_bytes=bus),
        "beat_walker": BeatWalker(dma_bytes=dma, bus_bytes=bus, address_bits=9),
        "unpacker": Unpacker(config=CONFIG), "scratchpad": Scratchpad(config=CONFIG),
        "load_engine": LoadEngine(config=CONFIG), "store_engine": StoreEngine(config=CONFIG),
        "sram": Sram(data_bits=16, depth=SRAM_WORDS, granules=2), "watchdog": Watchdog(),
        "row_unit": RowUnit(config=CONFIG), "read_arbiter": ReadArbiter(config=CONFIG),
        "dispatcher": Dispatcher(instructions=INSTRUCTIONS, queue_words=32), "semaphores": Semaphores(ports=4),
        "address_gate": AddressGate(limit=GATE_LIMIT, timeout_cycles=TIMEOUT_CYCLES),
    }


class ComponentTop(wiring.Component):
    """Brings out the ports of the components, each with its name as prefix."""

    def __init__(self):
        super().__init__({name: Out(component.signature) for name, component in components().items()})

    def elaborate(self, platform):
        m = Module()
        for name, component in components().items():
            m.submodules[name] = component
            inner = component.signature.flatten(component)
            outer = component.signature.flatten(getattr(self, name))
            for (_, member, port), (_, _, pin) in zip(inner, outer, strict=True):
                m.d.comb += port.eq(pin) if member.flow == In else pin.eq(port)
        return m


def generate() -> str:
    """Return the Verilog of all components."""
    return strip_memory_contents(verilog.convert(ComponentTop(), name=TOP, emit_src=False, strip_internal_attrs=True))
