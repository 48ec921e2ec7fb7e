"""A compiled program: instruction words and the DRAM image they work on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from phonolith.compiler.disassembler import Resolved, count_instructions, line, signed, trace
from phonolith.compiler.files import write_atomically
from phonolith.compiler.ir import DTYPE_RANGES, DTYPES
from phonolith.compiler.model_file import digest, read_header
from phonolith.compiler.views import BlockedView, NibbleView, Unfolded, View
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError

FORMAT = "phonolith-program"
VERSION = 4
# The fetch unit reads at most this far beyond the last instruction.
READ_AHEAD_BYTES = 2048
PROGRAM_ALIGNMENT = 4096


@dataclass(frozen=True)
class Region:
    """The program words that compute one node: (start, stop) ranges, none for a view.

    ``mac_bits``: its multiply-accumulates, each times the bits of its weight.
    """

    node: str
    op: str
    macs: int
    mac_bits: int
    parts: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """First word, 0 for a view."""
        return self.parts[0][0] if self.parts else 0

    @property
    def stop(self) -> int:
        """End of the last word, 0 for a view; other nodes' words may lie between."""
        return self.parts[-1][1] if self.parts else 0


@dataclass(frozen=True)
class Program:
    """What a machine of configuration ``config_hash`` runs, set to inputs of one length.

    Attributes
    ----------
    words : np.ndarray
        uint32, the configuration's hash word first.
    frames : int or None
        Time steps of the longest input; None: the program takes no length.
    length : int or None
        Time steps of the input that the views, shapes and MACs are set to.
    constants : tuple
        (address, uint8 array): weights, parameters, tables.
    inputs, tensors : dict
        Where the graph inputs and every node's output are.
    unfolded : tuple
        (input, :class:`Unfolded`): further copies of inputs, which the image holds from the start.
    temporaries : tuple
        What the program writes besides.
    zeros : tuple
        (low, high): bytes that must be zero at the start, apart from tensors and inputs in them.
    size : int
        Bytes of DRAM, without the program itself.
    regions : tuple
        One per node, in the graph's order.
    """

    config_hash: str
    name: str
    words: np.ndarray
    constants: tuple[tuple[int, np.ndarray], ...]
    inputs: dict[str, View]
    tensors: dict[str, View]
    outputs: tuple[str, ...]
    size: int
    regions: tuple[Region, ...]
    frames: int | None = None
    length: int | None = None
    unfolded: tuple[tuple[str, Unfolded], ...] = ()
    temporaries: tuple[View, ...] = ()
    zeros: tuple[tuple[int, int], ...] = ()
    metadata: dict = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[int, ...]:
        """What the host hands over with the start: the number of frames."""
        return () if self.length is None else (self.length,)

    def check_machine(self, config: MachineConfig) -> None:
        """Refuse a machine other than the one compiled for."""
        if config.hash != self.config_hash:
            raise PhonolithError(
                "wrong-configuration",
                f"program {self.name!r} was compiled for configuration {self.config_hash}, not {config.hash} "
                f"(array {config.array}).",
                "Compile the model again for this configuration, or choose the configuration it was compiled for.")

    def image(self, inputs: dict[str, np.ndarray], canary_seed: int | None = None) -> np.ndarray:
        """Return the DRAM image, uint8 ``[size]``, with constants and inputs in place.

        Everything else is zero, or with ``canary_seed`` random wherever a correct program does not care.

        Raises
        ------
        PhonolithError
            ``wrong-input``, when an input is missing or has another dtype or shape.
        """
        image = np.zeros(self.size, np.uint8)
        if canary_seed is not None:
            image[:] = np.random.default_rng(canary_seed).integers(0, 256, self.size, np.uint8)
        for low, high in self.zeros:
            image[low:high] = 0
        for address, data in self.constants:
            image[address:address + data.size] = data
        self.put_inputs(image, inputs)
        return image

    def put_inputs(self, image: np.ndarray, inputs: dict[str, np.ndarray]) -> None:
        """Put inputs into a DRAM image; PhonolithError ``wrong-input`` as :meth:`image`."""
        for name, view in self.inputs.items():
            view.write(image, self._checked_input(name, inputs))
        for name, copy in self.unfolded:
            copy.write(image, inputs[name])

    def _checked_input(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        view, tensor = self.inputs[name], inputs.get(name)
        if tensor is None or tensor.shape != view.shape or tensor.dtype != DTYPES[view.dtype]:
            given = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise PhonolithError(
                "wrong-input",
                f"input {name!r} of program {self.name!r} must be {view.dtype} {list(view.shape)}, not {given}.",
                "Compile the model for this number of frames.")
        low, high = DTYPE_RANGES[view.dtype]
        if tensor.size and not (low <= tensor.min() and tensor.max() <= high):
            raise PhonolithError(
                "wrong-input", f"input {name!r} of program {self.name!r} reaches {tensor.min()} .. {tensor.max()}; "
                f"{view.dtype} is {low} .. {high}.", "Clip it.")
        return tensor

    @property
    def program_address(self) -> int:
        """Where :meth:`with_program` puts the words."""
        return -(-self.size // PROGRAM_ALIGNMENT) * PROGRAM_ALIGNMENT

    def with_program(self, image: np.ndarray) -> np.ndarray:
        """Return a DRAM image of this program followed by its words at ``program_address`` and room to read ahead."""
        gap = np.zeros(self.program_address - self.size, np.uint8)
        ahead = np.zeros(READ_AHEAD_BYTES, np.uint8)
        return np.concatenate([image, gap, self.words.astype("<u4").view(np.uint8), ahead])

    def read(self, image: np.ndarray, name: str) -> np.ndarray:
        """Return the tensor called ``name`` (a node or an input) from a DRAM image."""
        return (self.tensors | self.inputs)[name].read(image)

    def node_at(self, word: int) -> str:
        """Return the node whose instruction holds program word ``word``; KeyError for END."""
        for region in self.regions:
            if any(start <= word < stop for start, stop in region.parts):
                return region.node
        raise KeyError(word)

    def writer(self, address: int) -> str | None:
        """Return the last STORE (disassembled) that writes a byte of DRAM; None if none does."""
        stores = [each for each in trace(self.words, self.arguments)
                  if each.instruction.mnemonic == "STORE" and stores_to(each, address)]
        return line(self.words, stores[-1].position, stores[-1].instruction) if stores else None

    def writable(self) -> np.ndarray:
        """Return a mask, bool ``[size]``, of the bytes that the program may change."""
        mask = np.zeros(self.size, bool)
        for view in (*self.tensors.values(), *self.temporaries):
            view.bytes_in(mask)[:] = True
        for view in self.inputs.values():
            view.bytes_in(mask)[:] = False
        return mask

    def stray_writes(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return the addresses outside the program's tensors that changed between two images."""
        return np.flatnonzero((before != after[:self.size]) & ~self.writable())

    def summary(self) -> dict:
        """Return what `phonolith compile` prints."""
        return {
            "words": len(self.words),
            "instructions": count_instructions(self.words),
            "dram_bytes": self.size,
            "constant_bytes": sum(data.size for _, data in self.constants),
            "macs": sum(region.macs for region in self.regions),
            "tensors": len(self.tensors),
        }

    def save(self, path: str | Path) -> None:
        """Write the program to one safetensors file."""
        tensors = {"words": self.words} | {f"constant/{a}": data for a, data in self.constants}
        document = {
            "config_hash": self.config_hash, "name": self.name, "size": self.size,
            "frames": self.frames, "length": self.length,
            "inputs": {name: asdict(view) for name, view in self.inputs.items()},
            "tensors": {name: asdict(view) for name, view in self.tensors.items()},
            "unfolded": [(name, asdict(copy)) for name, copy in self.unfolded],
            "temporaries": [asdict(view) for view in self.temporaries],
            "outputs": self.outputs, "zeros": self.zeros, "metadata": self.metadata,
            "regions": [asdict(region) for region in self.regions],
        }
        text = json.dumps(document, sort_keys=True)
        header = {"format": FORMAT, "version": str(VERSION), "program": text, "sha256": digest(text, tensors)}
        write_atomically(Path(path), safetensors.numpy.save(tensors, header))


def stores_to(store: Resolved, address: int) -> bool:
    """Tell whether a STORE writes a byte of DRAM."""
    operands = store.operands
    outer, inner = (np.arange(operands[f"{loop}_count"]) * signed(operands[f"{loop}_stride"])
                    for loop in ("outer", "inner"))
    offsets = (address - operands["address"] - outer[:, None] - inner) % (1 << 32)
    return bool(np.any(offsets < operands["row_bytes"]))


def load(path: str | Path, config: MachineConfig | None = None) -> Program:
    """Read a program file, for a machine if one is given.

    Raises PhonolithError ``unknown-program``, ``not-a-program`` or ``wrong-configuration``.
    """
    if not Path(path).is_file():
        raise PhonolithError("unknown-program", f"there is no program {path}.", "Make one with `phonolith compile`.")
    header = read_header(Path(path))
    if header.get("format") != FORMAT or header.get("version") != str(VERSION):
        raise not_a_program(path, f"is no Phonolith program of version {VERSION}")
    try:
        tensors = safetensors.numpy.load(Path(path).read_bytes())
        if digest(header["program"], tensors) != header["sha256"]:
            raise ValueError("the content does not match its hash")
        program = from_parts(json.loads(header["program"]), tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
        raise not_a_program(path, "is damaged: its content does not match its hash") from None
    if config is not None:
        program.check_machine(config)
    return program


def not_a_program(path: str | Path, what: str) -> PhonolithError:
    """Return the error for a file that holds no usable program."""
    return PhonolithError("not-a-program", f"{path} {what}.", "Make one with `phonolith compile`.")


def from_parts(document: dict, tensors: dict[str, np.ndarray]) -> Program:
    """Return the program of a file's JSON document and tensors."""
    constants = sorted((int(name.partition("/")[2]), data)
                       for name, data in tensors.items() if name.startswith("constant/"))
    return Program(
        config_hash=document["config_hash"], name=document["name"],
        words=tensors["words"], constants=tuple(constants), size=document["size"],
        frames=document["frames"], length=document["length"],
        inputs=views(document["inputs"]), tensors=views(document["tensors"]),
        outputs=tuple(document["outputs"]), regions=tuple(region(entry) for entry in document["regions"]),
        unfolded=tuple((name, Unfolded(**copy)) for name, copy in document["unfolded"]),
        temporaries=tuple(view(entry) for entry in document["temporaries"]),
        zeros=tuple((low, high) for low, high in document["zeros"]), metadata=document["metadata"])


def region(entry: dict) -> Region:
    """Return the region of a JSON document."""
    parts = tuple((start, stop) for start, stop in entry["parts"])
    return Region(entry["node"], entry["op"], entry["macs"], entry["mac_bits"], parts)


def views(entries: dict[str, dict]) -> dict[str, View]:
    """Return the views of a JSON document by name."""
    return {name: view(entry) for name, entry in entries.items()}


def view(entry: dict) -> View:
    """Return the view of a JSON document."""
    known: dict[str, Any] = {**entry, "shape": tuple(entry["shape"]), "strides": tuple(entry["strides"])}
    kind = BlockedView if "block" in entry else NibbleView if "pairs" in entry else View
    return kind(**known)
