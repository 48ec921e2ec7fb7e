"""depthwise_conv1d: sliding windows of one channel in the activation banks, times a banded kernel.

A word holds WB steps. Bank r holds the W words from word r of a channel on, so that row r of the array computes the WB
steps from ``r * WB`` on: ``C`` steps per column tile, from ``WB + k - 1`` bytes of the window. Column c needs the
kernel c bytes later, which the array does itself (``band`` in ``docs/isa.md``); further column tiles have zeros in
front of it. So k of every ``WB + k - 1`` steps of the array are of use, and nothing is expanded in DRAM.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from phonolith.compiler import pack
from phonolith.compiler.allocate import Region, does_not_fit
from phonolith.compiler.counts import Stride, convolved, part, plus, times
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.blocked import blocked_product
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.lower.copy import packed_input
from phonolith.compiler.lower.linear import constant_operand, schedule, table_of
from phonolith.compiler.lower.product import Product
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.views import BlockedView, Rows, View, common_rows
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import WINDOW_BITS, Destination, Multiplier, Pre, Source, Target

PARAMETER_BYTES = 8
# Channels whose results one VECTOR and one STORE take.
CHANNELS_TOGETHER = 8
# Two groups are on chip at a time. Where the one lies anywhere, there is room for the other if neither takes more than
# this fraction of a memory.
SHARE = 3
# Channels of the first strip where the next ones can be loaded just as well.
FIRST_CHANNELS = 3


def window_words(kernel: int, config: MachineConfig) -> int:
    """Return the words of a window."""
    return -(-(config.word_bytes + kernel - 1) // config.word_bytes)


def is_banded(node: Node, config: MachineConfig) -> bool:
    """Tell whether a depthwise convolution can be computed as a banded product: bytes, and not too long a kernel."""
    return node.dtype != "int16" and node.constants["weight"].shape[1] <= longest_kernel(config)


def longest_kernel(config: MachineConfig) -> int:
    """Return the longest kernel whose windows LOAD can write."""
    return (min((1 << WINDOW_BITS) - 1, config.rows) - 1) * config.word_bytes + 1


def lower_depthwise(ctx: Lowering, node: Node) -> None:
    """Emit a depthwise convolution, banded if possible, and put its result in the order its readers need."""
    x = framed_input(ctx, node)
    y = ctx.views[node.name]
    if not is_banded(node, ctx.config):
        for product in dense_schedules(ctx, node, x):
            product.emit()
    elif isinstance(y, BlockedView):
        Banded(ctx, node, x, y).emit()
    else:
        blocks = ctx.blocked(y)
        Banded(ctx, node, x, blocks).emit()
        reorder(ctx, blocks, y)


def framed_input(ctx: Lowering, node: Node) -> View:
    """Return the input with zeros around it: as it lies in DRAM, or a copy; zeros behind the run's last frame, too."""
    x, frame = ctx.views[node.inputs[0]], max(node.attributes["padding"])
    if x.strides[0] == 1 and x.frame_rows >= frame:
        return x
    x = packed_input(ctx, x, frame, 0)
    if node.inputs[0] in ctx.made:
        ctx.clear_behind(x, node.attributes["padding"][1])
    return x


def dense_schedules(ctx: Lowering, node: Node, x: View) -> Iterator[ProductSchedule]:
    """Yield the convolution as products, each of as many channels as fit, with kernels zero but for their own."""
    (channels, kernel), columns = node.constants["weight"].shape, ctx.config.columns
    memory = min(ctx.activation.words, ctx.weight.words)
    tiles = memory * ctx.config.word_bytes // (kernel * columns)
    count = channels if pack.tile_words(kernel * channels, ctx.config) <= memory else max(1, tiles) * columns
    words = pack.tile_words(kernel * count, ctx.config)
    if words > memory:
        raise PhonolithError(
            "does-not-fit", f"{ctx.user}: a kernel of {kernel} steps and results of {node.dtype} need {words} words of "
            f"each operand bank; {memory} are available.", f"Kernels of up to {longest_kernel(ctx.config)} steps with "
            "results of 8 bits run on this machine; for others configure larger memories.")
    for first in range(0, channels, count):
        yield dense_schedule(ctx, node, x, range(first, min(first + count, channels)))


def dense_schedule(ctx: Lowering, node: Node, x: View, channels: range) -> ProductSchedule:
    """Return some channels of the convolution."""
    part = slice(channels.start, channels.stop)
    constants = {role: data if role == "table" else data[part] for role, data in node.constants.items()}
    kernel, count = constants["weight"].shape[1], len(channels)
    dense = np.zeros((count, kernel, count), np.int8)
    dense[np.arange(count), :, np.arange(count)] = constants["weight"]
    ((y,),) = common_rows(ctx.views[node.name].slice(channels.start, channels.stop))
    pitch = x.strides[0]
    a = Rows(x.address + channels.start - node.attributes["padding"][0] * pitch, 1, 0, ctx.views[node.name].shape[0],
             pitch, count, kernel, pitch)
    some = replace(node, constants=constants)
    return schedule(ctx, some, a, y, *constant_operand(ctx, some, dense))


def reorder(ctx: Lowering, blocks: BlockedView, y: View) -> None:
    """Bring a blocked tensor to rows of channels: the product with the identity."""
    identity = np.eye(y.shape[1], dtype=np.int8)
    constants = {"weight": identity, "bias": np.zeros(len(identity), np.int32),
                 "multiplier": np.ones(len(identity), np.int32), "shift": np.zeros(len(identity), np.int32)}
    node = Node(f"{ctx.user}, its order", "linear", (), y.dtype, constants)
    ((rows,),) = common_rows(y)
    parameters, load_columns = constant_operand(ctx, node, identity)
    blocked_product(ctx, blocks, Product(
        a=rows, a_unsigned=y.dtype == "uint8", k=len(identity), columns=len(identity),
        tile_columns=ctx.config.columns, load_columns=load_columns, y=rows, dtype=y.dtype,
        parameters=parameters)).emit()


@dataclass(frozen=True)
class Strip:
    """Some channels: in all, as many as LOAD can turn at a time and the memories hold twice."""

    first: int
    count: int

    def pieces(self, last: bool) -> Iterator[tuple[int, int]]:
        """Yield (first channel of the strip, channels) of what is drained together; at the end, ever less."""
        start = 0
        while start < self.count:
            most = max(1, (self.count - start) // 2) if last else CHANNELS_TOGETHER
            size = min(most, CHANNELS_TOGETHER, self.count - start)
            yield start, size
            start += size


@dataclass(frozen=True)
class Group:
    """Some row tiles of a strip, and where its windows, kernels and parameters are."""

    strip: Strip
    tiles: range
    windows: Region
    kernels: Region
    parameters: Region


class Banded:
    """Emits a depthwise convolution strip by strip.

    Attributes
    ----------
    halves : int
        Column tiles per channel: WB / C.
    window, kernel_words : int
        Words of a window, and of a kernel between zeros.
    blocks : int
        Words of results in time, of WB steps each.
    group : int
        Row tiles in time that are loaded together.
    """

    def __init__(self, ctx: Lowering, node: Node, x: View, y: BlockedView):
        self.ctx, self.node, self.x, self.y = ctx, node, x, y
        config, weight = ctx.config, node.constants["weight"]
        self.channels, self.kernel = weight.shape
        self.halves = config.word_bytes // config.columns
        self.window = window_words(self.kernel, config)
        padded = self.kernel + config.word_bytes - config.columns
        self.kernel_words = pack.tile_words(padded, config)
        self.frames = y.shape[0]
        self.blocks = convolved(self.frames, Stride(1, config.word_bytes, 0))
        self.tiles = -(-self.blocks // config.rows)
        self.group, self.most = self.choose_sizes()
        self.weights = ctx.constant(self.pack_kernels(weight))
        roles = (node.constants[role].repeat(self.halves * config.columns) for role in ("bias", "multiplier", "shift"))
        self.parameters = ctx.constant(pack.parameters(*roles))
        self.table = table_of(ctx, node)

    def choose_sizes(self) -> tuple[int, int]:
        """Return the row tiles and the channels that are loaded together."""
        ctx = self.ctx
        most = min(ctx.config.dma_bytes, self.channels, max(1, ctx.parameter.words // SHARE // self.halves),
                   max(1, ctx.weight.words // SHARE // (self.halves * self.kernel_words)))
        for group in range(self.tiles, 0, -1):
            if most * self.row_words(group) <= ctx.activation.words // SHARE:
                return group, most
        words = self.row_words(1)
        if words > ctx.activation.words:
            raise does_not_fit(f"{ctx.user}: one channel", words, ctx.activation)
        return 1, max(1, ctx.activation.words // SHARE // words)

    def row_words(self, group: int) -> int:
        """Return the words per bank of one channel's windows: of some row tiles, and of what follows them."""
        config = self.ctx.config
        steps = min(group * config.rows * config.word_bytes, int(self.frames)) + self.kernel - 1
        words = -(-steps // config.word_bytes)
        return -(-words // config.rows) * self.window

    def pack_kernels(self, weight: np.ndarray) -> np.ndarray:
        """Return the kernels between zeros, int8 ``[channels, halves, bytes]``, as bytes."""
        config = self.ctx.config
        packed = np.zeros((self.channels, self.halves, self.kernel_words * config.word_bytes), np.int8)
        for half in range(self.halves):
            packed[:, half, half * config.columns:][:, :self.kernel] = weight
        return packed.view(np.uint8)

    def emit(self) -> None:
        """Emit all strips: each group's LOADs in front of the products of the group before it."""
        loaded: Group | None = None
        for strip in self.strips():
            for start in range(0, self.tiles, self.group):
                tiles = range(start, min(start + self.group, self.tiles))
                following = self.load(strip, tiles, loaded if start else None)
                if loaded:
                    self.compute(loaded)
                loaded = following
        assert loaded is not None
        self.compute(loaded)

    def strips(self) -> Iterator[Strip]:
        """Yield the strips: growing ones where a channel's steps are contiguous, so that the array starts early."""
        first, size = 0, FIRST_CHANNELS if self.x.strides[0] == 1 else self.most
        while first < self.channels:
            yield Strip(first, min(size, self.most, self.channels - first))
            first, size = first + min(size, self.most), size + -(-size // 2)

    def load(self, strip: Strip, tiles: range, before: Group | None) -> Group:
        """Load windows, and kernels and parameters unless they came with the group ``before`` of the strip."""
        ctx, chunks = self.ctx, strip.count * self.halves
        windows = ctx.hold(ctx.activation, strip.count * self.row_words(self.group))
        self.load_windows(strip, tiles, windows.low, self.row_words(self.group))
        if before:
            return Group(strip, tiles, windows, before.kernels, before.parameters)
        group = Group(strip, tiles, windows, ctx.hold(ctx.weight, chunks * self.kernel_words),
                      ctx.hold(ctx.parameter, chunks))
        self.load_constants(strip, group.kernels.low, group.parameters.low)
        return group

    def compute(self, group: Group) -> None:
        """Emit the products of a group and give its memory back; weights of later layers may be loaded then."""
        ctx, strip, row_words = self.ctx, group.strip, self.row_words(self.group)
        last = group.tiles.stop == self.tiles
        for tile in group.tiles:
            for first, count in strip.pieces(last and strip.first + strip.count == self.channels):
                chunk = first * self.halves
                windows = group.windows.low + first * row_words + (tile - group.tiles.start) * self.window
                self.emit_piece(strip.first + first, count, tile, windows, row_words,
                                group.kernels.low + chunk * self.kernel_words, group.parameters.low + chunk)
        ctx.activation.release(group.windows)
        if last:
            ctx.weight.release(group.kernels)
            ctx.parameter.release(group.parameters)
        ctx.bus_is_free()

    def load_windows(self, strip: Strip, tiles: range, base: int, row_words: int) -> None:
        """Load a strip's windows, turned by LOAD if its rows are steps."""
        ctx, x, config = self.ctx, self.x, self.ctx.config
        first = tiles.start * config.rows * config.word_bytes
        steps = plus(part(self.frames, first, len(tiles) * config.rows * config.word_bytes), self.kernel - 1)
        step, channel = x.strides
        address = x.address + (first - self.node.attributes["padding"][0]) * step + strip.first * channel
        if step == 1:
            ctx.emitter.load(target=Target.ACTIVATION, address=address, base=base, row_words=row_words,
                             window=self.window, inner_count=strip.count, inner_stride=channel, segment_bytes=steps)
        else:
            ctx.emitter.load(target=Target.ACTIVATION, address=address, base=base, row_words=row_words,
                             window=self.window, transpose=True, inner_count=steps, inner_stride=step,
                             segment_bytes=strip.count)

    def load_constants(self, strip: Strip, kernels: int, parameters: int) -> None:
        """Load a strip's kernels, into one bank, and its parameters."""
        ctx, config = self.ctx, self.ctx.config
        size = self.halves * self.kernel_words * config.word_bytes
        ctx.emitter.load(target=Target.WEIGHT, address=self.weights + strip.first * size, base=kernels, one_bank=True,
                         segment_bytes=strip.count * size)
        size = self.halves * config.columns * PARAMETER_BYTES
        ctx.load_block(Target.PARAMETER, self.parameters + strip.first * size, strip.count * size, parameters)

    def emit_piece(self, channel: int, count: int, tile: int, a_base: int, row_words: int, kernels: int,
                   parameters: int) -> None:
        """Emit some channels of a row tile: MATMUL, VECTOR and STORE."""
        ctx, config, table = self.ctx, self.ctx.config, self.table
        rows, chunks = part(self.blocks, tile * config.rows, config.rows), count * self.halves
        ctx.emitter.matmul(
            a_base=a_base, a_tile_words=row_words, w_base=kernels, w_tile_words=self.kernel_words, band=True,
            rows=times(part(self.blocks, tile * config.rows, 1), count * config.rows),
            columns=self.halves * config.columns, k=config.word_bytes + self.kernel - 1,
            a_unsigned=self.x.dtype == "uint8")
        if table:
            ctx.load_table(table.entries, table.address)
        pitch = ctx.scratch_words(chunks * config.columns, 1)
        with ctx.take(ctx.results, rows * pitch) as result:
            ctx.emitter.vector(
                rows=rows, columns=chunks * config.columns, source=Source.DRAIN, pre=Pre.BIAS,
                multiplier=Multiplier.COLUMN, parameter_base=parameters,
                saturate=SATURATE[table.index if table else self.node.dtype], table=table is not None,
                table_signed=table is not None and self.node.dtype == "int8", destination=Destination.SCRATCHPAD,
                destination_byte=True, destination_base=result, destination_pitch=pitch)
            ctx.emitter.store(
                address=self.y.address + tile * config.rows * self.y.strides[0] + channel * config.word_bytes,
                base=result, pitch=pitch, inner_count=rows, inner_stride=self.y.strides[0],
                row_bytes=count * config.word_bytes)
