"""Weights of few bits: what follows from their format, packing, the verifier's rules, the overflow proof, fusions."""

from dataclasses import replace

import numpy as np
import pytest

from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.passes.check import check
from phonolith.compiler.passes.prove_accumulators import prove_accumulators
from phonolith.compiler.weight_formats import (
    BITS,
    BLOCKS,
    code_range,
    effective_weights,
    pack_codes,
    scheme_name,
    unpack_codes,
    weight_format,
)
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.compare import compare_graphs
from phonolith.sim.golden.interpret import interpret


def low_bit(depth: int = 70, channels: int = 3, dtype: str = "int8", bits: int = 4, zero_shift: int | None = None,
            block: int | None = None) -> Node:
    """Return a linear "y" of x with random codes."""
    rng, (low, high) = np.random.default_rng(0), code_range(bits)
    shape = (channels, -(-depth // block)) if block else (channels,)
    constants = {
        "weight": rng.integers(low, high + 1, (channels, depth)).astype(np.int8),
        "bias": rng.integers(-500, 500, channels).astype(np.int32),
        "multiplier": rng.integers(1 << 15, 1 << 16, shape).astype(np.int32),
        "shift": np.full(shape, (16 if block else 21) + (0 if zero_shift is None else 4), np.int32),
    }
    given = {"bits": bits, "zero_shift": zero_shift, "block": block}
    if zero_shift is not None:
        constants["zero"] = rng.integers(-255, 256, shape).astype(np.int32)
    return Node("y", "linear", ("x",), dtype, constants, {k: v for k, v in given.items() if v is not None})


def graph_of(node: Node, *nodes: Node, dtype: str = "int8") -> Graph:
    width = node.constants["weight"].shape[-1] if node.op == "linear" else 6
    return Graph("g", (Value("x", dtype, (width,)),), (node, *nodes), ((node, *nodes)[-1].name,))


def changed(node: Node, constants: dict | None = None, without: tuple[str, ...] = (), **attributes) -> Node:
    """Return ``node`` with other constants and attributes, and without some of either."""
    constants = {k: v for k, v in (node.constants | (constants or {})).items() if k not in without}
    attributes = {k: v for k, v in (node.attributes | attributes).items() if k not in without}
    return replace(node, constants=constants, attributes=attributes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("depth", [1, 3, 8, 13, 64])
def test_packing_to_the_bit(bits, depth):
    low, high = code_range(bits)
    codes = np.random.default_rng(depth).integers(low, high + 1, (5, depth)).astype(np.int8)
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (5, -(-depth * bits // 8))
    for n, k in np.ndindex(codes.shape):
        field = int(packed[n, k * bits // 8]) >> bits * (k % (8 // bits)) & (1 << bits) - 1
        assert field == int(codes[n, k]) & (1 << bits) - 1
    assert all(int(row[-1]) >> (depth * bits - 1) % 8 + 1 == 0 for row in packed), "bits beyond K are zero"
    unpacked = unpack_codes(packed, bits, depth)
    assert unpacked.dtype == np.int8 and (unpacked == codes).all()


def test_packing_refuses_codes_and_bytes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"codes -8 .. 8 do not fit 4 bits"):
        pack_codes(np.array([[-8, 8]], np.int8), 4)
    with pytest.raises(ValueError, match="3 bytes per channel are not 4 codes of 4 bits"):
        unpack_codes(np.zeros((1, 3), np.uint8), 4, 4)


def test_formats():
    plain = weight_format(Node("c", "conv2d", ("x",), "int8", {"weight": np.zeros((2, 3, 3, 5), np.int8)}))
    assert (plain.bits, plain.depth, plain.n_blocks, plain.row_bytes) == (8, 45, 1, 45)
    assert not plain.asymmetric and not plain.blocked and plain.factor_shape == (2,)
    form = weight_format(low_bit(depth=70, bits=2, zero_shift=3, block=32))
    assert (form.n_blocks, form.block_depth, form.row_bytes, form.factor_shape) == (3, 32, 18, (3, 3))
    assert form.asymmetric and form.blocks() == [slice(0, 32), slice(32, 64), slice(64, 70)]
    wide = weight_format(low_bit(depth=70, block=256))
    assert (wide.n_blocks, wide.block_depth, wide.factor_shape, wide.blocks()) == (1, 70, (3, 1), [slice(0, 70)])


@pytest.mark.parametrize("block", [None, 32, 256])
def test_effective_weights_are_what_the_product_multiplies_with(block):
    node = low_bit(zero_shift=3, block=block)
    weight, zero = node.constants["weight"].astype(int), node.constants["zero"]
    for n, k in np.ndindex(weight.shape):
        own = zero[n] if block is None else zero[n, k // block]
        assert effective_weights(node)[n, k] == 8 * weight[n, k] + own
    assert (effective_weights(low_bit()) == low_bit().constants["weight"]).all()


def test_scheme_names():
    assert scheme_name(low_bit()) == "symmetric" and scheme_name(low_bit(block=64)) == "symmetric-64"
    assert scheme_name(low_bit(zero_shift=2)) == "asymmetric"
    assert scheme_name(low_bit(bits=1, zero_shift=2, block=128)) == "asymmetric-128"
    halves = {"zero": np.full((3, 1), 2, np.int32)}
    assert scheme_name(changed(low_bit(bits=1, zero_shift=2, block=128), halves)) == "symmetric-128"
    assert scheme_name(changed(low_bit(), {"multiplier": np.full(3, 7, np.int32)})) == "tensor"


def test_every_format_is_legal():
    for bits in BITS:
        for block in (None, *BLOCKS):
            for zero_shift in (None, 0, 7) if bits > 1 else (0, 7):
                graph = graph_of(low_bit(bits=bits, zero_shift=zero_shift, block=block))
                assert check(graph) is graph and prove_accumulators(graph) is graph


ONES = {"weight": np.full((3, 70), 1, np.int8)}
REFUSED = {
    "bits is 3": changed(low_bit(), bits=3),
    "bits is True": changed(low_bit(), bits=True),
    "weight reaches -8 .. 7, outside -2 .. 1: it has 2 bits": changed(low_bit(), bits=2),
    "weight reaches 1 .. 1, outside -1 .. 0: it has 1 bits": changed(low_bit(bits=1, zero_shift=1), ONES),
    "its weights have 1 bit, but no zero": changed(low_bit(bits=1, zero_shift=1), without=("zero", "zero_shift")),
    "zero_shift is 1, but it has no zero": changed(low_bit(), zero_shift=1),
    "it has a zero, but no zero_shift": changed(low_bit(zero_shift=1), without=("zero_shift",)),
    "zero_shift is 8": changed(low_bit(zero_shift=1), zero_shift=8),
    "zero_shift is -1": changed(low_bit(zero_shift=1), zero_shift=-1),
    "zero reaches 256 .. 256, outside -255 .. 255": changed(low_bit(zero_shift=1), {"zero": np.full(3, 256, np.int32)}),
    "zero reaches -257 .. -257": changed(low_bit(zero_shift=1), {"zero": np.full(3, -257, np.int32)}),
    "zero is int8, not int32": changed(low_bit(zero_shift=1), {"zero": np.zeros(3, np.int8)}),
    "block is 48": changed(low_bit(), block=48),
    "block is '32'": changed(low_bit(), block="32"),
    "multiplier has shape (3,) for 3 channels and 3 blocks of 32": changed(low_bit(), block=32),
    "multiplier has shape (3, 3) for 3 channels and no blocks": changed(low_bit(block=32), without=("block",)),
    "zero has shape (3,) for 3 channels and 1 blocks of 256":
        changed(low_bit(zero_shift=1, block=256), {"zero": np.zeros(3, np.int32)}),
    "bias has shape (3, 3) for 3 channels": changed(low_bit(block=32), {"bias": np.zeros((3, 3), np.int32)}),
    "its table makes int8 or uint8, not int4":
        changed(low_bit(dtype="int4"), {"table": np.zeros(256, np.int8)}, table_dtype="int8"),
    "a residual needs int16": replace(low_bit(dtype="int4"), inputs=("x", "x")),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_check_refuses(reason):
    graph = graph_of(REFUSED[reason])
    if "residual" in reason:
        graph = replace(graph, inputs=(replace(graph.inputs[0], dtype="int8"), Value("r", "int16", (3,))),
                        nodes=(replace(graph.nodes[0], inputs=("x", "r")),))
    with pytest.raises(PhonolithError) as caught:
        check(graph)
    assert caught.value.kind == "invalid-graph" and reason in caught.value.message and caught.value.remedy


def attention(v: str, **wide) -> Node:
    context = {"numerator": 40000, "shift": 45, "transpose_b": False, "normalize": True}
    return Node("z", "attention", ("q", "y", v), "int8", {"table": np.zeros((3, 256) if wide else 256, np.uint8)},
                {"scores": {"multiplier": 1, "shift": 5, "transpose_b": True},
                 "exp": {"multiplier": 1, "shift": 5} | ({"offset": 9} if wide else {}), "context": context | wide})


def test_where_four_bits_are_allowed():
    """From a linear or the host, through slices, to the second operand of products."""
    y, q = low_bit(dtype="int4"), replace(low_bit(), name="q")
    view = Node("v", "slice", ("y",), "int4", {}, {"start": 0, "stop": 2})
    product = Node("z", "matmul", ("x", "w"), "int8", {}, {"multiplier": 1, "shift": 9, "transpose_b": True})
    wide = replace(low_bit(dtype="int4", channels=70), name="w")
    for nodes in ((y, view), (wide, product), (y, q, attention("y")), (wide, replace(y, name="q"), view_of("w"))):
        graph = graph_of(*nodes)
        assert check(graph) is graph
    refused = {
        "input 0 is int4, not one of": (wide, replace(product, inputs=("w", "x"))),
        "input 2 is int4, beside exponentials of 16 bits": (y, q, attention("y", wide=True)),
        "its output is int4, not one of int8, uint8, int16": (replace(y, name="c", op="conv2d"),),
    }
    for reason, nodes in refused.items():
        with pytest.raises(PhonolithError) as caught:
            check(graph_of(*nodes))
        assert reason in caught.value.message
    with pytest.raises(PhonolithError, match="input 0 is int4, not one of"):
        check(graph_of(y, dtype="int4"))


def view_of(name: str) -> Node:
    return Node("v", "slice", (name,), "int4", {}, {"start": 2, "stop": 6})


def test_other_operators_have_plain_weights():
    node = Node("d", "depthwise_conv1d", ("x",), "int8", low_bit(depth=3, channels=6).constants, {"padding": [1, 1]})
    assert check(graph_of(node))
    for attributes in ({"bits": 4}, {"block": 32}):
        with pytest.raises(PhonolithError, match="unknown attributes"):
            check(graph_of(changed(node, **attributes)))


# -- the overflow proof ----------------------------------------------------------------------------


def filled(depth: int, code: int, zero: int, bias: int, dtype: str = "uint8", **form) -> Graph:
    """Return a linear of one channel whose codes and zeros are all alike, with a factor of one."""
    node = low_bit(depth=depth, channels=2, **form)
    same = {"weight": code, "zero": zero, "multiplier": 1, "shift": 0}
    constants = {role: np.full_like(node.constants[role], value) for role, value in same.items()
                 if role in node.constants}
    return graph_of(changed(node, constants | {"bias": np.array([0, bias], np.int32)}), dtype=dtype)


def test_largest_sum_of_asymmetric_weights():
    room = (1 << 31) - 1 - 255 * 100 * ((7 << 5) + 200)
    assert prove_accumulators(filled(100, 7, 200, room, zero_shift=5))
    with pytest.raises(PhonolithError, match=r"'y' \(linear\), channel 1: a sum can reach 2147483648, more than"):
        prove_accumulators(filled(100, 7, 200, room + 1, zero_shift=5))


def test_least_sum_of_asymmetric_weights():
    room = -(1 << 31) + 255 * 100 * ((8 << 5) + 200)
    assert prove_accumulators(filled(100, -8, -200, room, zero_shift=5))
    with pytest.raises(PhonolithError, match="channel 1: a sum can reach -2147483649, less than"):
        prove_accumulators(filled(100, -8, -200, room - 1, zero_shift=5))


def test_largest_sum_of_blocks():
    """Half a step is added for the rounding."""
    room = (1 << 31) - 1 - 128 - 255 * 100 * 7
    assert prove_accumulators(filled(100, 7, 0, room, block=32))
    with pytest.raises(PhonolithError) as caught:
        prove_accumulators(filled(100, 7, 0, room + 1, block=32))
    assert caught.value.kind == "accumulator-overflow"
    assert "node 'y' (linear), channel 1: a sum can reach 2147483648" in caught.value.message


def test_blocks_with_multipliers_of_both_signs():
    """The least sum is that of the inputs that are highest where the factor is negative."""
    graph = filled(64, 7, 0, 0, block=32)
    (node,) = graph.nodes
    factor = np.array([[1, -1], [65535, -65535]], np.int32)
    assert prove_accumulators(graph.with_nodes([changed(node, {"multiplier": factor // 32})]))
    with pytest.raises(PhonolithError, match=f"channel 1: a sum can reach {128 + 65535 * 32 * 7 * 255}, more"):
        prove_accumulators(graph.with_nodes([changed(node, {"multiplier": factor})]))


def test_the_sum_of_one_block_always_fits():
    graph = filled(256, -128, -255, 0, bits=8, zero_shift=7, block=256)
    (node,) = graph.nodes
    quiet = changed(node, {"shift": np.full_like(node.constants["shift"], 20)})
    assert prove_accumulators(graph.with_nodes([quiet]))
    values = interpret(graph.with_nodes([quiet]), {"x": np.full((1, 256), 255, np.uint8)})
    assert values["y"].tolist() == [[-4, -4]]


# -- fusions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{"bits": 2}, {"zero_shift": 4}, {"zero_shift": 4, "block": 32}])
def test_residuals_and_tables_are_fused(form):
    rng = np.random.default_rng(1)
    stream = replace(low_bit(dtype="int16", **form), name="r")
    total = Node("z", "add", ("y", "r"), "int16")
    function = Node("z", "table", ("y",), "uint8", {"table": rng.integers(0, 256, 256).astype(np.uint8)})
    inputs = {"x": rng.integers(-128, 128, (9, 70)).astype(np.int8)}
    for nodes, fused in (((stream, low_bit(dtype="int16", **form), total), 2), ((low_bit(**form), function), 1)):
        graph = Graph("g", (Value("x", "int8", (70,)),), nodes, ("z",))
        lowered = lower_graph(graph)
        assert len(lowered.nodes) == fused and lowered.nodes[-1].op == "linear"
        assert compare_graphs(graph, lowered, inputs) == []
        assert len(np.unique(interpret(graph, inputs)["z"])) > 5
