"""linear and conv2d: products with constant weights."""

from phonolith.compiler import pack
from phonolith.compiler.ir import Node
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.copy import packed_input
from phonolith.compiler.lower.product import LoadColumns, Product, ProductSchedule
from phonolith.compiler.views import Rows, common_rows
from phonolith.hw.isa import Target


def linear_schedules(ctx: Lowering, node: Node) -> list[ProductSchedule]:
    """Return the products of a linear layer: one for each set of rows that two loops can walk."""
    views = [ctx.views[name] for name in (node.inputs[0], node.name, *node.inputs[1:])]
    parameters, load_columns = constant_operand(ctx, node)
    return [schedule(ctx, node, a, y, parameters, load_columns, residual[0] if residual else None)
            for a, y, *residual in common_rows(*views)]


def conv2d_schedules(ctx: Lowering, node: Node) -> list[ProductSchedule]:
    """Return the product of a convolution: its rows are gathered windows."""
    channels, height, width, depth = node.constants["weight"].shape
    (pad_t, pad_f), (step_t, step_f) = node.attributes["padding"], node.attributes["stride"]
    x = packed_input(ctx, ctx.views[node.inputs[0]], pad_t, pad_f * depth)
    y = ctx.views[node.name]
    corner = x.address - pad_t * x.strides[0] - pad_f * depth
    a = Rows(corner, y.shape[0], step_t * x.strides[0], y.shape[1], step_f * depth, width * depth, height,
             x.strides[0])
    rows = Rows(y.address, y.shape[0], y.strides[0], y.shape[1], y.strides[1], channels * y.itemsize)
    return [schedule(ctx, node, a, rows, *constant_operand(ctx, node))]


def schedule(ctx: Lowering, node: Node, a: Rows, y: Rows, parameters: int, load_columns: LoadColumns,
             residual: Rows | None = None) -> ProductSchedule:
    """Return the product of gathered rows with the node's weight."""
    return ProductSchedule(ctx, Product(
        a=a, a_unsigned=ctx.views[node.inputs[0]].dtype == "uint8", k=a.row_bytes,
        columns=len(node.constants["weight"]), tile_columns=ctx.config.columns, load_columns=load_columns,
        y=y, dtype=node.dtype, parameters=parameters, residual=residual,
        rows_ready=node.inputs[0] not in ctx.made))


def constant_operand(ctx: Lowering, node: Node) -> tuple[int, LoadColumns]:
    """Put weight and parameters into DRAM; return the parameters' address and how to load weight tiles."""
    weight = node.constants["weight"].reshape(len(node.constants["weight"]), -1)
    packed = pack.weights(weight, ctx.config)
    address, tile_bytes = ctx.constant(packed), packed[0].size
    parameters = ctx.constant(pack.parameters(*(node.constants[r] for r in ("bias", "multiplier", "shift"))))

    def load_columns(tiles: range, base: int) -> None:
        ctx.load_block(Target.WEIGHT, address + tiles.start * tile_bytes, len(tiles) * tile_bytes, base,
                       bank_per_word=True)

    return parameters, load_columns
