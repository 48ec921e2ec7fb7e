"""``bench``: single products on the RTL, and the simulator's own speed."""

from pathlib import Path
from statistics import median

import numpy as np

from phonolith.compiler.explain import explain
from phonolith.compiler.ir import Graph, Node, Value
from phonolith.compiler.pipeline import generate
from phonolith.compiler.timing.report import explain_program
from phonolith.compiler.weight_formats import BLOCK_STEP_BITS, WeightFormat, code_range, decode
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.ladder import execute_rtl, machine

SPEED_PRODUCT = (128, 512, 512)
SPEED_RUNS = 5
RUNTIME_BITS = (8, 4)
Matrix = Path | np.ndarray | None


def bench_gemm(m: int, k: int, n: int, config: MachineConfig, transpose_b: bool = False, runtime_b: bool = False,
               a: Matrix = None, b: Matrix = None, seed: int = 0, explained: bool = False, bits: int = 8,
               scheme: str = "symmetric", block: int | None = None) -> dict:
    """Multiply an int8 A (M x K) by B on the RTL and compare with the golden model.

    B is a constant weight K x N; with ``transpose_b`` it is made at run time, N x K, with ``runtime_b`` at run time,
    K x N. Operands are int8 arrays or .npy files, uniformly random by default. The result is int8, requantized so
    that random operands fill its range. Constant weights have ``bits`` bits (those of 1 bit are -1 and 1), a ``scheme``
    of :data:`phonolith.compiler.weight_formats.SCHEMES` (asymmetric: zero points at random), and one scale per channel
    or per ``block`` of K (128, for example). A B of run time has 8 or 4 bits.

    Returns ``cycles``, ``macs``, ``utilisation`` (0..1), ``bit_exact`` and ``engines`` (see the contract of the
    commands); ``explained``: with ``products`` of :func:`phonolith.compiler.explain.explain`
    and what :func:`phonolith.compiler.timing.report.explain_program` returns.
    Raises PhonolithError ``wrong-input`` for operands of another shape or dtype.
    """
    rng = np.random.default_rng(seed)
    left = operand(a, (m, k), "A", rng)
    if transpose_b or runtime_b:
        if bits not in RUNTIME_BITS or scheme != "symmetric" or block:
            raise PhonolithError("option", "a run-time B has 8 or 4 bits and one scale.",
                                 "Give --bits 8 or 4, and leave out scheme and block.")
        right = operand(b, (n, k) if transpose_b else (k, n), "B", rng, bits)
        graph, inputs = runtime_product(left, right, transpose_b, bits), {"a": left, "b": right}
    else:
        right = operand(b, (k, n), "B", rng, bits)
        graph, inputs = weight_product(right, bits, scheme, block, rng), {"a": left}
    shapes = {name: x.shape for name, x in inputs.items()} | {"y": (m, n)}
    more = {"products": explain(graph, shapes, config)} if explained else {}
    return measure(graph, inputs, m * k * n, config, explained, bits) | more


def bench_dwconv(frames: int, channels: int, kernel: int, config: MachineConfig, seed: int = 0,
                 explained: bool = False) -> dict:
    """Convolve each of the channels of a random int8 ``[T, C]`` with a kernel of its own on the RTL, zeros around it.

    x lies in DRAM channel by channel, y in the blocks of steps that the linear layer behind such a convolution reads
    (``docs/architecture.md``). Returns what :func:`bench_gemm` does, but for ``products``.
    """
    rng = np.random.default_rng(seed)
    x, weight = operand(None, (frames, channels), "x", rng), operand(None, (channels, kernel), "kernels", rng)
    before = (kernel - 1) // 2
    node = Node("y", "depthwise_conv1d", ("x",), "int8", channel_constants(weight),
                {"padding": [before, kernel - 1 - before]})
    graph = Graph("dwconv", (Value("x", "int8", (channels,)),), (node,), ("y",))
    return measure(graph, {"x": x}, frames * channels * kernel, config, explained)


def measure(graph: Graph, inputs: dict[str, np.ndarray], macs: int, config: MachineConfig, explained: bool,
            bits: int = 8) -> dict:
    """Run a graph of one node ``y`` on the RTL and compare with the golden model; see :func:`bench_gemm`."""
    expected = interpret(graph, inputs)["y"]
    program = generate(graph, {name: x.shape for name, x in inputs.items()} | {"y": expected.shape}, config)
    result = execute_rtl(program, program.image(inputs), machine(config))
    return {
        "cycles": result.cycles,
        "macs": macs,
        "utilisation": macs * bits / 8 / (config.rows * config.columns * result.cycles),
        "bit_exact": bool(np.array_equal(program.read(result.image, "y"), expected)),
        "engines": result.engines,
        "dram_bytes": {"read": result.dram_read_beats * config.bus_bytes,
                       "written": result.dram_write_beats * config.bus_bytes},
        **(explain_program(program, config) if explained else {}),
    }


def operand(given: Matrix, shape: tuple[int, int], name: str, rng: np.random.Generator, bits: int = 8) -> np.ndarray:
    """Return an int8 operand of numbers of ``bits`` bits: given, read from a file, or random."""
    low, high = code_range(bits)
    if given is None:
        numbers = rng.integers(low, high + 1, shape)
        return (2 * numbers + 1 if bits == 1 else numbers).astype(np.int8)
    matrix = read_matrix(given, name) if isinstance(given, Path) else given
    outside = bits == 1 and not np.isin(matrix, (-1, 1)).all() or bits > 1 and not (
        low <= matrix.min() and matrix.max() <= high)
    if matrix.dtype == np.int8 and matrix.shape == shape and outside:
        raise PhonolithError("wrong-input", f"{name} reaches {matrix.min()} .. {matrix.max()}; numbers of {bits} bits "
                             f"are {'-1 and 1' if bits == 1 else f'{low} .. {high}'}.",
                             "Give more bits, or other numbers.")
    if matrix.shape != shape or matrix.dtype != np.int8:
        raise PhonolithError("wrong-input", f"{name} must be int8 {list(shape)}, not {matrix.dtype} "
                             f"{list(matrix.shape)}.", "Give matrices that fit M, K and N.")
    return matrix


def read_matrix(path: Path, name: str) -> np.ndarray:
    """Read a .npy file; PhonolithError ``wrong-input`` when it is none."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PhonolithError("wrong-input", f"cannot read {name} from {path}: {error}.",
                             "Save it with numpy.save.") from None


def requantization(k: int, size: float = 73.9) -> tuple[int, int]:
    """Return multiplier and shift that bring sums of ``k`` products to about 40 rms.

    Of a uniform int8 and numbers of root mean square ``size``, by default uniform int8 as well.
    """
    ratio = 40 / (73.9 * size * np.sqrt(k))
    shift = 16 - int(np.ceil(np.log2(ratio)))
    return min(round(ratio * 2**shift), 65535), shift


def root_mean_square(numbers: np.ndarray) -> float:
    """Return the root mean square of integers."""
    return float(np.sqrt(np.mean(np.square(numbers, dtype=np.float64))))


def weight_product(b: np.ndarray, bits: int = 8, scheme: str = "symmetric", block: int | None = None,
                   rng: np.random.Generator | None = None) -> Graph:
    """Return a graph that multiplies by a constant K x N of ``bits`` bits (1: of -1 and 1).

    Zero points of an asymmetric scheme are drawn from ``rng``; factors of blocks are all the same.
    """
    weight = np.ascontiguousarray(b.T)
    codes = (weight - 1 >> 1).astype(np.int8) if bits == 1 else weight
    constants = channel_constants(codes)
    attributes: dict = {"bits": bits} if bits < 8 else {}
    channels, depth = codes.shape
    form = WeightFormat(bits, channels, depth, 1 if bits == 1 or scheme == "asymmetric" else None, block)
    if form.asymmetric:
        half = int(bits == 1)
        reach = min(1 << bits, 255)
        drawn = rng.integers(-reach, reach, form.factor_shape) if rng and scheme == "asymmetric" else 0
        constants["zero"] = (np.full(form.factor_shape, half) + drawn).astype(np.int32)
        attributes["zero_shift"] = 1
    weights = decode(codes, form, constants.get("zero"))
    multiplier, shift = requantization(len(b), root_mean_square(weights))
    if form.blocked:
        attributes["block"], shift = block, shift - BLOCK_STEP_BITS
    constants |= {"multiplier": np.full(form.factor_shape, multiplier, np.int32),
                  "shift": np.full(form.factor_shape, shift, np.int32)}
    node = Node("y", "linear", ("a",), "int8", constants, attributes)
    return Graph("gemm", (Value("a", "int8", (len(b),)),), (node,), ("y",))


def channel_constants(weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return weights ``[N, K]`` with biases of zero and one factor for all channels."""
    channels, k = weight.shape
    multiplier, shift = requantization(k)
    return {"weight": weight, "bias": np.zeros(channels, np.int32),
            "multiplier": np.full(channels, multiplier, np.int32), "shift": np.full(channels, shift, np.int32)}


def runtime_product(a: np.ndarray, b: np.ndarray, transpose_b: bool, bits: int = 8) -> Graph:
    """Return a graph that multiplies two inputs, the second of ``bits`` bits."""
    low, high = code_range(bits)
    multiplier, shift = requantization(a.shape[1], root_mean_square(np.arange(low, high + 1)))
    attributes = {"multiplier": multiplier, "shift": shift, "transpose_b": transpose_b}
    node = Node("y", "matmul", ("a", "b"), "int8", {}, attributes)
    second = Value("b", f"int{bits}", b.shape[1:])
    return Graph("gemm", (Value("a", "int8", a.shape[1:]), second), (node,), ("y",))


def bench_speed(config: MachineConfig, bits: int = 8) -> dict:
    """Return ``cycles_per_cpu_second`` of the simulator on a large product, and ``build_cpu_seconds``.

    The median of :data:`SPEED_RUNS` runs behind one that warms up.
    """
    m, k, n = SPEED_PRODUCT
    rng = np.random.default_rng(0)
    inputs = {"a": operand(None, (m, k), "A", rng)}
    weights = weight_product(operand(None, (k, n), "B", rng, bits), bits)
    program = generate(weights, {"a": (m, k), "y": (m, n)}, config)
    rtl = machine(config)
    image = program.image(inputs)
    results = [execute_rtl(program, image.copy(), rtl) for _ in range(1 + SPEED_RUNS)][1:]      # the first warms up
    return {"cycles_per_cpu_second": round(median(each.simulated_cycles_per_second for each in results)),
            "cycles": results[0].cycles, "build_cpu_seconds": rtl.built.cpu_seconds}
