"""Lowering: one function per operator emits its instructions."""

from collections.abc import Callable, Iterator

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.attention import lower_attention
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.elementwise import lower_add, lower_rescale, lower_table
from phonolith.compiler.lower.layernorm import lower_layernorm
from phonolith.compiler.lower.linear import conv2d_schedules, linear_schedules
from phonolith.compiler.lower.matmul import lower_matmul
from phonolith.compiler.lower.product import ProductSchedule
from phonolith.compiler.lower.softmax import lower_argmax, lower_softmax_exp

# Products with constant weights: they can load these early and let other work in between their steps.
PRODUCTS: dict[str, Callable[[Lowering, Node], list[ProductSchedule]]] = {
    "linear": linear_schedules,
    "conv2d": conv2d_schedules,
}
# Row by row: generators that say how many rows they need next.
ROWWISE: dict[str, Callable[[Lowering, Node], Iterator[int]]] = {
    "layernorm": lower_layernorm,
    "softmax_exp": lower_softmax_exp,
    "argmax": lower_argmax,
}
WHOLE: dict[str, Callable[[Lowering, Node], None]] = {
    "matmul": lower_matmul,
    "attention": lower_attention,
    "add": lower_add,
    "rescale": lower_rescale,
    "table": lower_table,
}
