"""linear and conv2d: products with constant weights."""

from dataclasses import replace

import numpy as np

from phonolith.compiler import pack
from phonolith.compiler.ir import DTYPE_RANGES, Node
from phonolith.compiler.lower.blocked import blocked_product
from phonolith.compiler.lower.context import Lowering, align
from phonolith.compiler.lower.copy import packed_input
from phonolith.compiler.lower.product import Product, Table
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.lower.shelf import LoadColumns
from phonolith.compiler.views import BlockedView, NibbleView, Rows, Unfolded, common_rows
from phonolith.compiler.weight_formats import weight_format
from phonolith.hw.isa import Target


def linear_schedules(ctx: Lowering, node: Node) -> list[ProductSchedule]:
    """Return the products of a linear layer: one for each set of rows that two loops can walk."""
    if isinstance(ctx.views[node.inputs[0]], BlockedView):
        return [blocked_schedule(ctx, node)]
    views = [ctx.views[name] for name in (node.inputs[0], node.name, *node.inputs[1:])]
    parameters, load_columns = constant_operand(ctx, node, node.constants["weight"])
    if isinstance(views[1], NibbleView):
        ((a,),), ((y,),) = common_rows(views[0]), common_rows(views[1].as_bytes())
        return [schedule(ctx, node, a, y, parameters, load_columns)]
    return [schedule(ctx, node, a, y, parameters, load_columns, residual[0] if residual else None)
            for a, y, *residual in common_rows(*views)]


def blocked_schedule(ctx: Lowering, node: Node) -> ProductSchedule:
    """Return the product of a linear layer on what a depthwise convolution left."""
    x = ctx.views[node.inputs[0]]
    assert isinstance(x, BlockedView)
    ((y, *residual),) = common_rows(ctx.views[node.name].as_bytes(), *(ctx.views[name] for name in node.inputs[1:]))
    a = replace(y, inner_count=ctx.views[node.name].shape[0])
    product = weighted(ctx, node, a, y, *constant_operand(ctx, node, node.constants["weight"]),
                       residual[0] if residual else None)
    return blocked_product(ctx, x, replace(product, k=x.shape[1]))


def conv2d_schedules(ctx: Lowering, node: Node) -> list[ProductSchedule]:
    """Return the product of a convolution: its rows are gathered windows."""
    channels, height, width, depth = node.constants["weight"].shape
    (pad_t, pad_f), (step_t, step_f) = node.attributes["padding"], node.attributes["stride"]
    y = ctx.views[node.name]
    rows = Rows(y.address, y.shape[0], y.strides[0], y.shape[1], y.strides[1], channels * y.itemsize)
    source = input_of(ctx, node)
    narrow = width * depth < ctx.config.dma_bytes // 2 and depth == 1 and pad_f == 0 and height > 1
    if source and narrow and weight_format(node).n_blocks == 1:     # its copy has another order along K
        return [unfolded_schedule(ctx, node, source, rows)]
    x = packed_input(ctx, ctx.views[node.inputs[0]], pad_t, pad_f * depth)
    corner = x.address - pad_t * x.strides[0] - pad_f * depth
    a = Rows(corner, y.shape[0], step_t * x.strides[0], y.shape[1], step_f * depth, width * depth, height,
             x.strides[0])
    return [schedule(ctx, node, a, rows, *constant_operand(ctx, node, node.constants["weight"]))]


def input_of(ctx: Lowering, node: Node) -> str | None:
    """Return the graph input that a node reads as a whole, if it does."""
    x = ctx.views[node.inputs[0]]
    found = [name for name in ctx.inputs if ctx.views[name].address == x.address and ctx.views[name].itemsize == 1
             and ctx.views[name].strides[0] == x.strides[0] and np.prod(ctx.views[name].shape) == np.prod(x.shape)]
    return found[0] if found and node.inputs[0] not in ctx.made else None


def unfolded_schedule(ctx: Lowering, node: Node, source: str, rows: Rows) -> ProductSchedule:
    """Return a convolution's product on a copy of a graph input in which the bytes of a window are contiguous.

    Windows of a few bytes per input row would cost the bus a beat for each of these rows.
    """
    weight = node.constants["weight"]
    _, height, width, _ = weight.shape
    (pad_t, _), (step_t, step_f) = node.attributes["padding"], node.attributes["stride"]
    bins = ctx.views[node.inputs[0]].shape[1]
    pitch = align(bins * height, ctx.config.bus_bytes)
    copy = Unfolded(ctx.dram.take(rows.outer_count * pitch), int(rows.outer_count), bins, pitch, height, step_t, pad_t)
    ctx.unfolded.append((source, copy))
    a = Rows(copy.address, rows.outer_count, pitch, rows.inner_count, step_f * height, width * height)
    return schedule(ctx, node, a, rows, *constant_operand(ctx, node, weight.transpose(0, 2, 1, 3)))


def schedule(ctx: Lowering, node: Node, a: Rows, y: Rows, parameters: int, load_columns: LoadColumns,
             residual: Rows | None = None) -> ProductSchedule:
    """Return the schedule of gathered rows times the node's weight."""
    return ProductSchedule(ctx, weighted(ctx, node, a, y, parameters, load_columns, residual))


def weighted(ctx: Lowering, node: Node, a: Rows, y: Rows, parameters: int, load_columns: LoadColumns,
             residual: Rows | None) -> Product:
    """Return the product of gathered rows with the node's weight."""
    form, y_view = weight_format(node), ctx.views[node.name]
    return Product(
        a=a, a_unsigned=ctx.views[node.inputs[0]].dtype == "uint8", k=a.row_bytes,
        bits=pack.stored_bits(form.bits, ctx.config), block=form.block_depth if form.n_blocks > 1 else 0,
        partial=form.blocked, zero_shift=form.zero_shift,
        columns=len(node.constants["weight"]), tile_columns=ctx.config.columns, load_columns=load_columns,
        y=y, dtype=node.dtype, parameters=parameters, residual=residual, table=table_of(ctx, node),
        pairs=y_view.pairs if isinstance(y_view, NibbleView) else None, rows_ready=node.inputs[0] not in ctx.made)


def packed_parameters(ctx: Lowering, node: Node, bits: int) -> np.ndarray:
    """Return the bytes of a node's parameters, its weights being stored in ``bits`` bits.

    Codes of 1 bit are 0 and -1, and the array counts 0 and 1: zero, bias and multiplier change their signs with it.
    """
    bias, multiplier, shift = (node.constants[role] for role in ("bias", "multiplier", "shift"))
    zero = node.constants.get("zero", np.zeros_like(multiplier))
    blocked = weight_format(node).blocked
    if bits == 1:
        multiplier, zero = -multiplier, -zero
        bias = bias if blocked else -bias
    if blocked:
        return pack.block_parameters(bias, multiplier, shift, zero, ctx.config)
    return pack.parameters(bias, multiplier, shift, zero)


def table_of(ctx: Lowering, node: Node) -> Table | None:
    """Put the table that a node's results are looked up in into DRAM, if it has one.

    Results of 4 bits in bytes of their own are clipped by one.
    """
    if node.dtype == "int4" and not isinstance(ctx.views[node.name], NibbleView):
        entries, index = np.clip(np.arange(256).astype(np.int8), *DTYPE_RANGES["int4"]), "int8"
    elif "table" in node.constants:
        entries, index = node.constants["table"], node.attributes["table_dtype"]
    else:
        return None
    return Table(entries, ctx.constant(entries.view(np.uint8)), index)


def constant_operand(ctx: Lowering, node: Node, weight: np.ndarray) -> tuple[int, LoadColumns]:
    """Put weight and parameters into DRAM; return the parameters' address and how to load weight tiles."""
    bits = pack.stored_bits(weight_format(node).bits, ctx.config)
    packed = pack.weights(weight.reshape(len(weight), -1), ctx.config, bits)
    address, tile_bytes = ctx.constant(packed), packed[0].size
    parameters = ctx.constant(packed_parameters(ctx, node, bits))

    def load_columns(tiles: range, base: int) -> None:
        ctx.load_block(Target.WEIGHT, address + tiles.start * tile_bytes, len(tiles) * tile_bytes, base,
                       bank_per_word=True)

    return parameters, load_columns
