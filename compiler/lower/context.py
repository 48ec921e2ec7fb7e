"""What every operator's lowering shares: the emitter, the memories, where tensors are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from phonolith.compiler.allocate import Dram, Region, Ring
from phonolith.compiler.assembler import Emitter
from phonolith.compiler.counts import Count, plus, times
from phonolith.compiler.ir import DTYPES, Node
from phonolith.compiler.tile import ProductSize
from phonolith.compiler.views import BlockedView, NibbleView, Pairs, Rows, Unfolded, View, packed_strides
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Destination, Saturate, Source, Target, Width

# Of int4, the range of VECTOR's ``nibble`` counts.
SATURATE = {"int4": Saturate.INT8, "int8": Saturate.INT8, "uint8": Saturate.UINT8, "int16": Saturate.INT16}
WIDTH = {"int8": Width.INT8, "uint8": Width.UINT8, "int16": Width.INT16}


class Lowering:
    """State of code generation for one program.

    Attributes
    ----------
    views : dict
        Where each tensor is in DRAM.
    constants : list
        (address, uint8 array) of what the image holds besides inputs.
    temporaries : list
        Copies that no node names.
    inputs : set
        Names of graph inputs.
    unfolded : list
        (input, copy) that the image holds besides.
    made : set
        Names of tensors that the program computes, as opposed to graph inputs and their views.
    planned : list
        (name of the node, size) of every product, in the order of emission.
    activation, weight, parameter, results, operands : Ring
        On-chip memories; ``results`` and ``operands`` are scratchpad banks 0 (what VECTOR makes) and 1 (what
        LOAD brings).
    bus_is_free : callable
        Called where LOADs of later nodes may be emitted: those of the next step are already.
    reserved : int
        Weight words that the node being lowered will still take.
    make_room : callable
        Called when a memory is full: gives up what was loaded ahead of time.
    """

    def __init__(self, config: MachineConfig, views: dict[str, View], dram: Dram):
        self.config = config
        self.views = views
        self.dram = dram
        self.emitter = Emitter()
        self._node: Node | None = None
        self.constants: list[tuple[int, np.ndarray]] = []
        self.temporaries: list[View] = []
        self.made: set[str] = set()
        self.inputs: set[str] = set()
        self.unfolded: list[tuple[str, Unfolded]] = []
        self.planned: list[tuple[str, ProductSize]] = []
        bank = config.scratch_bank_depth
        self.activation = Ring("activation", 0, config.activation_depth)
        self.weight = Ring("weight", 0, config.weight_depth)
        self.parameter = Ring("parameter", 0, config.parameter_depth)
        self.results = Ring("scratchpad", 0, bank)
        self.operands = Ring("scratchpad", bank, 2 * bank)
        self.bus_is_free: Callable[[], None] = lambda: None
        self.make_room: Callable[[], None] = lambda: None
        self.reserved = 0
        self._table: bytes | None = None

    @property
    def node(self) -> Node | None:
        """The node being lowered; errors name it, and the instructions emitted meanwhile are its own."""
        return self._node

    @node.setter
    def node(self, node: Node) -> None:
        self._node = node
        self.emitter.owner = node.name

    @contextmanager
    def lowering(self, node: Node) -> Iterator[None]:
        """Emit for another node until the end of the block."""
        previous = self._node
        self.node = node
        yield
        if previous is not None:
            self.node = previous

    def emitting(self, node: Node, work: Iterator[None]) -> Iterator[None]:
        """Go through ``work``, each step of which emits for another node."""
        while True:
            with self.lowering(node):
                if next(work, self) is self:
                    return
            yield

    @property
    def user(self) -> str:
        """How errors call the current node."""
        return f"node {self.node.name!r} ({self.node.op})" if self.node else "the program"

    def constant(self, data: np.ndarray) -> int:
        """Put bytes into DRAM and return their address."""
        address = self.dram.take(data.size)
        self.constants.append((address, data.reshape(-1)))
        return address

    @contextmanager
    def take(self, ring: Ring, words: int) -> Iterator[int]:
        """Give the base of ``words`` words of a memory until the end of the block."""
        region = self.hold(ring, words)
        yield region.low
        ring.release(region)

    def hold(self, ring: Ring, words: int) -> Region:
        """Return words of a memory that the caller releases; what was loaded ahead of time makes room."""
        if ring.free < words:
            self.make_room()
        return ring.take(words, self.user)

    def scratch_words(self, columns: int, itemsize: int) -> int:
        """Return the scratchpad words of a row of ``columns`` elements, as VECTOR writes them."""
        chunks = -(-columns // self.config.columns)
        return chunks if itemsize == 2 else -(-chunks // 2)

    def load_rows(self, target: Target, rows: Rows, base: int, row_words: int) -> None:
        """Load rows, one bank or ``row_words`` flat words after the other."""
        self.emitter.load(
            target=target, address=rows.address, base=base, row_words=row_words,
            outer_count=rows.outer_count, outer_stride=rows.outer_stride, inner_count=rows.inner_count,
            inner_stride=rows.inner_stride, segment_count=rows.segment_count,
            segment_stride=rows.segment_stride, segment_bytes=rows.segment_bytes)

    def store_rows(self, rows: Rows, base: int, pitch: int) -> None:
        """Store scratchpad rows ``pitch`` words apart."""
        self.emitter.store(
            address=rows.address, base=base, pitch=pitch, outer_count=rows.outer_count,
            outer_stride=rows.outer_stride, inner_count=rows.inner_count, inner_stride=rows.inner_stride,
            row_bytes=rows.segment_bytes)

    def load_block(self, target: Target, address: int, size: int, base: int, bank_per_word: bool = False) -> None:
        """Load contiguous bytes; with ``bank_per_word`` the array may follow into the banks."""
        banks = self.config.columns if bank_per_word else 0
        row_words = -(-size // (self.config.word_bytes * banks)) if banks else 0
        self.emitter.load(target=target, address=address, base=base, segment_bytes=size,
                          bank_per_word=bank_per_word, row_words=row_words)

    def load_table(self, table: np.ndarray, address: int | None = None) -> None:
        """Make the vector unit's table hold 256 bytes, a new constant unless they have an ``address`` already."""
        data = np.ascontiguousarray(table).view(np.uint8)
        if data.tobytes() != self._table:
            self.load_block(Target.TABLE, self.constant(data) if address is None else address, 256, 0)
            self._table = data.tobytes()

    def temporary(self, like: View, frame_rows: int = 0, frame_bytes: int = 0) -> View:
        """Allocate DRAM for a copy of a tensor; a frame stays zero."""
        view = place(self.dram, like.shape, like.dtype, self.config, frame_rows, frame_bytes)
        self.temporaries.append(view)
        return view

    def blocked(self, like: View) -> BlockedView:
        """Allocate DRAM for the blocks of a tensor ``[T, C]`` of bytes."""
        view = place_blocked(self.dram, like.shape, like.dtype, self.config)
        self.temporaries.append(view)
        return view

    def clear_behind(self, x: View, count: int) -> None:
        """Make ``count`` rows behind the last frame of the run zero, if the length of a run varies."""
        if not count or not isinstance(x.shape[0], Count):
            return
        words = self.scratch_words(x.shape[-1], x.itemsize)
        address = plus(times(x.shape[0], x.strides[0]), x.address)
        some = min(count, max(1, self.results.free // words))
        with self.take(self.results, some * words) as zeros:
            self.emitter.vector(
                rows=some, columns=x.shape[-1], source=Source.ZERO, destination=Destination.SCRATCHPAD,
                destination_byte=x.itemsize == 1, destination_base=zeros, destination_pitch=words)
            for first in range(0, count, some):
                self.emitter.store(address=plus(address, first * x.strides[0]), base=zeros, pitch=words,
                                   inner_count=min(some, count - first), inner_stride=x.strides[0],
                                   row_bytes=x.shape[-1] * x.itemsize)

    def unsupported(self, what: str) -> PhonolithError:
        """Build the error for something the machine cannot do."""
        return PhonolithError("unsupported-operator", f"{self.user}: {what}.", "Change the graph.")


def place(dram: Dram, shape: tuple[int, ...], dtype: str, config: MachineConfig, frame_rows: int = 0,
          frame_bytes: int = 0) -> View:
    """Allocate a tensor; rows of the leading dimension start on bus words, the frame lies around them."""
    natural = packed_strides(shape, np.dtype(DTYPES[dtype]).itemsize)
    pitch = natural[0] if len(shape) == 1 else align(natural[0] + frame_bytes, config.bus_bytes)
    before = frame_rows * pitch + align(frame_bytes, config.bus_bytes)
    size = before + (shape[0] + frame_rows) * pitch + frame_bytes
    address = dram.take(size)
    if before:
        dram.zeros.append((address, address + size))
    return View(address + before, shape, (pitch, *natural[1:]), dtype, frame_rows, frame_bytes)


def place_blocked(dram: Dram, shape: tuple[int, ...], dtype: str, config: MachineConfig) -> BlockedView:
    """Allocate a tensor ``[T, C]`` of bytes in blocks of as many steps as an operand word holds."""
    block = config.word_bytes
    pitch = align(block * shape[1], config.bus_bytes)
    address = dram.take(-(-shape[0] // block) * pitch)
    return BlockedView(address, shape, (pitch, block), dtype, block=block)


def place_nibbles(dram: Dram, shape: tuple[int, ...], config: MachineConfig, pairs: Pairs, before: int) -> NibbleView:
    """Allocate a tensor ``[T, C]`` of 4 bits, two columns or rows to a byte, with ``before`` rows of zeros in front."""
    nibbles = NibbleView(0, shape, (0, 1), "int4", pairs=pairs)
    rows = before if pairs is Pairs.COLUMNS else -(-before // 2)
    octets = place(dram, nibbles.as_bytes().shape, "int8", config, rows)
    return replace(nibbles, address=octets.address, strides=octets.strides)


def place_channels(dram: Dram, shape: tuple[int, ...], dtype: str, config: MachineConfig, frame: int) -> View:
    """Allocate a tensor ``[T, C]`` of bytes channel by channel, ``frame`` zeros before and behind the steps of each."""
    pitch = align(shape[0] + 2 * frame, config.bus_bytes)
    address = dram.take(pitch * shape[1])
    dram.zeros.append((address, address + pitch * shape[1]))
    return View(address + frame, shape, (1, pitch), dtype, frame)


def align(size: int, unit: int) -> int:
    """Round up to a multiple of ``unit``."""
    return -(-size // unit) * unit
