"""The catalogue of signatures and layouts that components share."""

from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig

ADDRESS_BITS = 16
# The reader of the drain says this many cycles ahead that it will take a tile.
DRAIN_NOTICE = 3


def operands_layout(instruction: isa.Instruction) -> data.StructLayout:
    """Resolved operands of one instruction: 32 bits each, in ISA order."""
    return data.StructLayout({operand.name: 32 for operand in instruction.operands})


def packed_layout(parts: dict[str, tuple[int, int]]) -> data.StructLayout:
    """The parts of a packed operand, from the lowest bit on (ISA parts leave no gaps)."""
    return data.StructLayout({name: width for name, (_, width) in parts.items()})


def instruction_stream(instruction: isa.Instruction) -> stream.Signature:
    """Stream of resolved operands."""
    return stream.Signature(operands_layout(instruction))


def write_layout(config: MachineConfig) -> data.StructLayout:
    """One word-sized write from the LOAD engine.

    ``target`` is an :class:`isa.Target`; ``bank`` selects an operand bank; ``address`` counts words of the target;
    ``part`` counts WB-byte units within a scratchpad or parameter word, or entries within the table (bytes 0..255).
    ``reach``: how many activation banks before ``bank`` take the word, too (:class:`.ActivationWrites`).
    """
    return data.StructLayout({
        "target": 3, "bank": 6, "reach": isa.WINDOW_BITS, "address": ADDRESS_BITS, "part": 8,
        "data": 8 * config.word_bytes,
    })


class QueueSignature(wiring.Signature):
    """Write port of an instruction queue, seen from the sequencer.

    Members
    -------
    ready : In(1)
        The queue has room.
    enable : Out(1), data : Out(32)
        A word is written; only with ``ready``.
    """

    def __init__(self):
        super().__init__({"enable": Out(1), "data": Out(32), "ready": In(1)})


class DrainSignature(wiring.Signature):
    """Finished tile of the array, seen from the array engine.

    Members
    -------
    valid : Out(1)
        A finished tile waits in the drain registers.
    start : In(1)
        The reader takes row 0 in this cycle (only while ``valid``); it then takes row 1, 2, ... in the following
        cycles without a pause, so the registers may be overwritten R cycles later, row by row.
    soon : In(1)
        The reader will take the next tile within ``DRAIN_NOTICE`` cycles, if it is valid by then.
    row : In
        Row to present; used combinationally.
    data : Out
        C accumulators of that row.
    row_sum : Out(signed(32))
        Sum of the activations in it.
    """

    def __init__(self, config: MachineConfig):
        super().__init__({
            "valid": Out(1), "start": In(1), "soon": In(1), "row": In(range(config.rows)),
            "data": Out(data.ArrayLayout(signed(32), config.columns)), "row_sum": Out(signed(32)),
        })


class ChainSignature(wiring.Signature):
    """How far a LOAD has come that signals early, seen from the LOAD engine.

    Members
    -------
    activation, weight : Out(1)
        It writes to the activation (weight) memory; from its early signals until its last word is accepted.
    frontier, end : Out(16)
        Meanwhile, the words from ``frontier`` to ``end`` (exclusive) of that memory are still to be written.
    """

    def __init__(self):
        super().__init__({"activation": Out(1), "weight": Out(1), "frontier": Out(ADDRESS_BITS),
                          "end": Out(ADDRESS_BITS)})


class EngineStatusSignature(wiring.Signature):
    """What an engine does in this cycle; at most one ``stalled_*`` at a time, and only while ``busy``.

    Members
    -------
    done : Out(1)
        One pulse per completed instruction, in order.
    busy : Out(1)
        An instruction is in progress.
    stalled_dram, stalled_port, stalled_drain : Out(1)
        Busy, but waiting for AXI, for a memory port, or for the other side of the drain.
    """

    def __init__(self):
        super().__init__({"done": Out(1), "busy": Out(1), "stalled_dram": Out(1), "stalled_port": Out(1),
                          "stalled_drain": Out(1)})


class BankReadSignature(wiring.Signature):
    """Read port of one memory, seen from its user: data arrives the cycle after ``enable`` and stays."""

    def __init__(self, data_bits: int):
        super().__init__({"enable": Out(1), "address": Out(ADDRESS_BITS), "data": In(data_bits)})


class WriteSignature(wiring.Signature):
    """Write port of one memory, seen from its user; ``enable`` has one bit per granule."""

    def __init__(self, data_bits: int, granules: int = 1):
        super().__init__({"enable": Out(granules), "address": Out(ADDRESS_BITS), "data": Out(data_bits)})


class AxiReadSignature(wiring.Signature):
    """AXI4 read address and data channels, seen from the master (bursts INCR, full width)."""

    def __init__(self, config: MachineConfig):
        super().__init__({
            "arvalid": Out(1), "arready": In(1), "araddr": Out(32), "arlen": Out(8),
            "rvalid": In(1), "rready": Out(1), "rdata": In(config.bus_bits), "rresp": In(2), "rlast": In(1),
        })


class AxiWriteSignature(wiring.Signature):
    """AXI4 write address, data and response channels, seen from the master (bursts INCR, full width)."""

    def __init__(self, config: MachineConfig):
        super().__init__({
            "awvalid": Out(1), "awready": In(1), "awaddr": Out(32), "awlen": Out(8),
            "wvalid": Out(1), "wready": In(1), "wdata": Out(config.bus_bits), "wstrb": Out(config.bus_bytes),
            "wlast": Out(1), "bvalid": In(1), "bready": Out(1), "bresp": In(2),
        })
