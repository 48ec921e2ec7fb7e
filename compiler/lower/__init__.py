"""Lowering: one function per operator emits its instructions."""

from collections.abc import Callable

from phonolith.compiler.ir import Node
from phonolith.compiler.lower.attention import lower_attention
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.elementwise import lower_add, lower_rescale, lower_table
from phonolith.compiler.lower.layernorm import lower_layernorm
from phonolith.compiler.lower.linear import lower_conv2d, lower_linear
from phonolith.compiler.lower.matmul import lower_matmul
from phonolith.compiler.lower.softmax import lower_argmax, lower_softmax_exp

LOWERINGS: dict[str, Callable[[Lowering, Node], None]] = {
    "linear": lower_linear,
    "conv2d": lower_conv2d,
    "matmul": lower_matmul,
    "attention": lower_attention,
    "softmax_exp": lower_softmax_exp,
    "layernorm": lower_layernorm,
    "add": lower_add,
    "rescale": lower_rescale,
    "table": lower_table,
    "argmax": lower_argmax,
}
