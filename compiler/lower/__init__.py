"""Lowering: one function or class per operator emits its instructions."""

from collections.abc import Callable

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.attention import lower_attention
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.elementwise import lower_add, lower_rescale, lower_table
from phonolith.compiler.lower.layernorm import LayerNorm
from phonolith.compiler.lower.linear import conv2d_schedules, linear_schedules
from phonolith.compiler.lower.matmul import lower_matmul
from phonolith.compiler.lower.product import ProductSchedule
from phonolith.compiler.lower.rowwise import Rowwise
from phonolith.compiler.lower.softmax import ArgMax, SoftmaxExp

# Products with constant weights.
PRODUCTS: dict[str, Callable[[Lowering, Node], list[ProductSchedule]]] = {
    "linear": linear_schedules,
    "conv2d": conv2d_schedules,
}
# Operators on whole rows.
ROWWISE: dict[str, type[Rowwise]] = {"layernorm": LayerNorm, "softmax_exp": SoftmaxExp, "argmax": ArgMax}
WHOLE: dict[str, Callable[[Lowering, Node], None]] = {
    "matmul": lower_matmul,
    "attention": lower_attention,
    "add": lower_add,
    "rescale": lower_rescale,
    "table": lower_table,
}
