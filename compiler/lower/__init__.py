"""Lowering: one function or class per operator emits its instructions."""

from collections.abc import Callable

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.attention import Attention
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.depthwise import lower_depthwise
from phonolith.compiler.lower.elementwise import (
    lower_add,
    lower_add_rows,
    lower_multiply,
    lower_rescale,
    lower_table,
)
from phonolith.compiler.lower.layernorm import LayerNorm
from phonolith.compiler.lower.linear import conv2d_schedules, linear_schedules
from phonolith.compiler.lower.matmul import lower_matmul
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.lower.rowwise import Rowwise
from phonolith.compiler.lower.softmax import ArgMax, softmax_exp
from phonolith.compiler.lower.wide_attention import WideAttention
from phonolith.compiler.lower.wide_matmul import lower_wide_matmul


def lower_product(ctx: Lowering, node: Node) -> None:
    """Emit a product of two run-time operands."""
    (lower_wide_matmul if node.attributes.get("wide") else lower_matmul)(ctx, node)


def lower_attention(ctx: Lowering, node: Node) -> None:
    """Emit softmax(q k^T) v of all heads."""
    (WideAttention if "offset" in node.attributes["exp"] else Attention)(ctx, node).emit()


# Products with constant weights.
PRODUCTS: dict[str, Callable[[Lowering, Node], list[ProductSchedule]]] = {
    "linear": linear_schedules,
    "conv2d": conv2d_schedules,
}
# Operators on whole rows.
ROWWISE: dict[str, Callable[[Lowering, Node], Rowwise]] = {
    "layernorm": LayerNorm, "softmax_exp": softmax_exp, "argmax": ArgMax}
WHOLE: dict[str, Callable[[Lowering, Node], None]] = {
    "depthwise_conv1d": lower_depthwise,
    "matmul": lower_product,
    "attention": lower_attention,
    "add": lower_add,
    "add_rows": lower_add_rows,
    "multiply": lower_multiply,
    "rescale": lower_rescale,
    "table": lower_table,
}
