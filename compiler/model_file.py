"""The quantized model file: an integer graph in one safetensors file.

Tensors are named ``node/role``. Weights of fewer than 8 bits are packed (``weight_formats.pack_codes``): uint8
``[N, bytes of a channel]``, and the node's JSON has their ``weight_shape``. The safetensors metadata holds ``format``,
``version``, ``graph`` (JSON) and ``sha256`` over the graph's JSON and every tensor's name, dtype, shape and bytes.
"""

import hashlib
import json
import math
import os
from importlib import resources
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from phonolith.compiler.files import write_atomically
from phonolith.compiler.ir import FORMAT_VERSION, Graph, Node, Value
from phonolith.compiler.operators import OPERATORS, supported_operators
from phonolith.compiler.weight_formats import BITS, pack_codes, unpack_codes, weight_codes
from phonolith.hw.errors import PhonolithError

FORMAT = "phonolith-graph"
SUFFIX = ".safetensors"


def graph_to_json(graph: Graph) -> str:
    """Return the graph without its constants as canonical JSON."""
    document = {
        "name": graph.name,
        "inputs": [vars(value) | {"tail": list(value.tail)} for value in graph.inputs],
        "nodes": [_node_document(node) for node in graph.nodes],
        "outputs": list(graph.outputs),
        "metadata": graph.metadata,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _node_document(node: Node) -> dict:
    document = {"name": node.name, "op": node.op, "inputs": list(node.inputs), "dtype": node.dtype}
    shape = {"weight_shape": list(node.constants["weight"].shape)} if is_packed(node) else {}
    return document | {"constants": sorted(node.constants), "attributes": node.attributes} | shape


def is_packed(node: Node) -> bool:
    """Tell whether a node's weights have fewer than 8 bits."""
    return "weight" in node.constants and node.attributes.get("bits") in BITS[:-1]


def stored_constants(node: Node) -> dict[str, np.ndarray]:
    """Return a node's constants by role as a file holds them; ValueError when weights exceed their bits."""
    if not is_packed(node):
        return node.constants
    return node.constants | {"weight": pack_codes(weight_codes(node), node.attributes["bits"])}


def graph_from_json(text: str, tensors: dict[str, np.ndarray]) -> Graph:
    """Return the graph of :func:`graph_to_json` with its constants taken from ``tensors``."""
    document = json.loads(text)
    return Graph(
        document["name"],
        tuple(Value(**entry | {"tail": tuple(entry["tail"])}) for entry in document["inputs"]),
        tuple(_node(entry, tensors) for entry in document["nodes"]),
        tuple(document["outputs"]),
        document["metadata"],
    )


def _node(entry: dict, tensors: dict[str, np.ndarray]) -> Node:
    constants = {role: tensors[f"{entry['name']}/{role}"] for role in entry["constants"]}
    if "weight_shape" in entry:
        channels, *kernel = entry["weight_shape"]
        codes = unpack_codes(constants["weight"], entry["attributes"]["bits"], math.prod(kernel))
        constants["weight"] = codes.reshape(channels, *kernel)
    return Node(entry["name"], entry["op"], tuple(entry["inputs"]), entry["dtype"], constants, entry["attributes"])


def digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    """Return the sha256, in hex, over a graph's JSON and tensors."""
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        state.update(np.ascontiguousarray(tensor).tobytes())
    return state.hexdigest()


def save(path: str | os.PathLike[str], graph: Graph) -> None:
    """Write ``graph`` as a model file; PhonolithErrors of ``write_atomically``."""
    tensors = {
        f"{node.name}/{role}": np.ascontiguousarray(constant)
        for node in graph.nodes
        for role, constant in stored_constants(node).items()
    }
    text = graph_to_json(graph)
    header = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "graph": text,
        "sha256": digest(text, tensors),
    }
    write_atomically(Path(path), sort_metadata(safetensors.numpy.save(tensors, header)))


def sort_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted: the library's order differs from run to run."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_header(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty when ``path`` is no such file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                return {}
            header = json.loads(file.read(size))
    except (OSError, ValueError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a model file.

    Raises PhonolithError: ``unknown-model`` (no such file), ``not-a-model``, ``model-version``,
    ``corrupt-model`` (unreadable, or content that does not match its hash), ``invalid-scale``,
    ``unsupported-operator``.
    """
    path = Path(path)
    if not path.is_file():
        raise unknown_model(str(path))
    header = read_header(path)
    check_header(path, header)
    try:
        tensors = safetensors.numpy.load(path.read_bytes())
        intact = digest(header["graph"], tensors) == header["sha256"]
        graph = graph_from_json(header["graph"], tensors) if intact else None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
        graph = None
    if graph is None:
        raise PhonolithError(
            "corrupt-model",
            f"{path} is damaged: its content does not match its hash.",
            "Quantize the model again, or fetch the file again.",
        )
    check_operators(graph)
    check_numbers(graph)
    return graph


def check_header(path: Path, header: dict[str, str]) -> None:
    """Refuse a file that is no quantized model, or one of another version."""
    if header.get("format") != FORMAT:
        raise PhonolithError(
            "not-a-model",
            f"{path} is not a quantized Phonolith model.",
            "Make one with `phonolith quantize` or `phonolith new-model`.",
        )
    if header.get("version") != str(FORMAT_VERSION):
        raise PhonolithError(
            "model-version",
            f"{path} has model format version {header.get('version')}; this is version {FORMAT_VERSION}.",
            "Quantize the model again with this version of Phonolith.",
        )


def check_operators(graph: Graph) -> None:
    """Refuse a graph with an operator that does not exist."""
    for node in graph.nodes:
        if node.op not in OPERATORS:
            raise PhonolithError(
                "unsupported-operator",
                f"node {node.name!r} of model {graph.name!r} uses the unknown operator {node.op!r}.",
                f"Supported are {', '.join(supported_operators())}.",
            )


def check_numbers(graph: Graph) -> None:
    """Refuse scales that are not positive and finite, and any number that is not finite."""
    places = {f"input {value.name!r}: scale": value.scale for value in graph.inputs}
    for place, scale in places.items():
        if scale is not None and not 0 < scale < math.inf:
            raise invalid_number(graph, place, scale)
    for node in graph.nodes:
        places |= {f"node {node.name!r}: {name}": value for name, value in node.attributes.items()}
    for place, value in (places | {f"metadata: {name}": value for name, value in graph.metadata.items()}).items():
        number = non_finite(value)
        if number is not None:
            raise invalid_number(graph, place, number)


def non_finite(value) -> float | None:
    """Return the first NaN or infinity in a JSON value."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return next((found for found in map(non_finite, parts) if found is not None), None)


def invalid_number(graph: Graph, place: str, number: float) -> PhonolithError:
    """Return the error for a number that no model can hold."""
    return PhonolithError("invalid-scale", f"model {graph.name!r}, {place} is {number}; it must be "
                          f"{'finite' if non_finite(number) is not None else 'positive'}.", "Quantize the model again.")


def checkpoints_folder() -> Path:
    """Return the folder of the models that the package ships."""
    return Path(str(resources.files("phonolith.models"))) / "checkpoints"


def shipped_models() -> list[str]:
    """Return the names of the quantized models that the package ships."""
    files = sorted(checkpoints_folder().glob(f"*{SUFFIX}"))
    return [file.stem for file in files if read_header(file).get("format") == FORMAT]


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a shipped model's name, or of a path; PhonolithError ``unknown-model`` if none."""
    shipped = checkpoints_folder() / f"{name_or_path}{SUFFIX}"
    for candidate in (Path(name_or_path), shipped):
        if candidate.is_file():
            return candidate
    raise unknown_model(str(name_or_path))


def unknown_model(name: str) -> PhonolithError:
    """Return the error for a model that is neither shipped nor a file."""
    shipped = ", ".join(shipped_models()) or "none"
    return PhonolithError(
        "unknown-model",
        f"there is no model {name!r}.",
        f"Give a model file, or one of the shipped models: {shipped}.",
    )
