"""What a set of runs exercised: opcodes, flags of instructions, causes of stalls, operators and their weights."""

from collections import Counter

from phonolith.compiler.ir import Node
from phonolith.compiler.operators import OPERATORS
from phonolith.compiler.weight_formats import BITS, LOW_BIT_OPERATORS, SCHEME_NAMES, scheme_name, weight_format
from phonolith.hw import isa

ENUMS = {"target": isa.Target, "source": isa.Source, "source_width": isa.Width, "pre": isa.Pre,
         "multiplier": isa.Multiplier, "saturate": isa.Saturate, "destination": isa.Destination,
         "reduce": isa.Reduce, "function": isa.RowFunction}
FLAGS = ("bank_per_word", "transpose", "one_bank", "window", "early", "a_unsigned", "band", "post_bias", "residual",
         "table", "table_signed", "destination_byte", "fence", "row_sum", "zero_shift", "partial",
         "nibble")
# An instruction with one of these at zero moves nothing: its settings were not exercised.
SIZES = ("outer_count", "inner_count", "segment_count", "segment_bytes", "row_bytes", "rows", "columns")
# Counted one by one: 8 to 1 bit of a weight, K in one piece or in blocks.
VALUES = {"log2_lanes": {value: f"{bits}_bits" for value, bits in enumerate(isa.WEIGHT_WIDTHS)},
          "block": {value: f"block_{size}" for value, size in enumerate(isa.BLOCKS)}}
# Mere register numbers.
IGNORED = ("reduce_register", "row_register", "factor_register", "source_register",
           "destination_register")
# Operators with exponentials of 8 or of 16 bits.
SOFTMAX = ("softmax_exp", "attention")
# Forms of operators, by the constant or attribute that tells them.
FORMS = {"normalize": ("matmul",), "positions": ("attention",), "chunk": ("attention",),
         "table": ("linear", "conv2d", "depthwise_conv1d")}

# What can hold an engine up: the array reads memories of its own, but may wait for words on their way from DRAM; only
# array and vector engine share the drain.
STALLS = {
    "load": ("token", "dram", "sram_port", "config"),
    "array": ("token", "dram", "drain", "config"),
    "vector": ("token", "drain", "config"),
    "store": ("token", "dram", "sram_port", "config"),
}


class Coverage:
    """Counts of every opcode, flag and stall cause; those never seen stay at 0."""

    def __init__(self):
        self.opcodes = Counter({each.mnemonic: 0 for each in isa.INSTRUCTIONS})
        self.flags = Counter({name: 0 for each in isa.INSTRUCTIONS for name in flag_names(each)})
        self.operators = Counter({name: 0 for name in operator_names()})
        self.schemes = Counter({name: 0 for name in SCHEME_NAMES})
        self.bits = Counter({str(bits): 0 for bits in BITS})
        self.stalls = Counter({f"{engine}.{cause}": 0 for engine, causes in STALLS.items() for cause in causes})

    def node(self, node: Node) -> None:
        """Count an operator of a lowered graph, and its weights if they can have fewer than 8 bits."""
        self.operators.update(names_of(node))
        if node.op in LOW_BIT_OPERATORS:
            self.schemes[scheme_name(node)] += 1
            self.bits[str(weight_format(node).bits)] += 1

    def retire(self, _position: int, mnemonic: str, operands: dict[str, int], _state) -> None:
        """Count one instruction, and its settings unless it is empty.

        Has the form of the instruction-set simulator's ``on_retire``.
        """
        self.opcodes[mnemonic] += 1
        if not all(operands.get(name, 1) for name in SIZES):
            return
        instruction = isa.BY_MNEMONIC[mnemonic]
        for operand in instruction.operands:
            if operand.name == "control":
                self.count_flags(mnemonic, isa.unpack(operand.fields, operands["control"]))

    def count_flags(self, mnemonic: str, control: dict[str, int]) -> None:
        """Count the settings of one control operand."""
        for name, value in control.items():
            if name in ENUMS:
                self.flags[f"{mnemonic}.{name}.{ENUMS[name](value).name}"] += 1
            elif name in VALUES:
                self.flags[f"{mnemonic}.{VALUES[name][value]}"] += 1
            elif name in FLAGS:
                self.flags[f"{mnemonic}.{name}"] += value != 0

    def stall(self, engines: dict[str, dict]) -> None:
        """Add the stalled cycles of one RTL run, by engine and cause.

        A cause that cannot be is listed once it occurs.
        """
        for engine, counts in engines.items():
            for cause, cycles in counts["stalled"].items():
                if cycles or cause in STALLS[engine]:
                    self.stalls[f"{engine}.{cause}"] += cycles

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return ``{opcode, flag, stall}``, each with a count per name; ``operator`` if any was counted.

        Likewise ``scheme`` and ``bits`` of weights.
        """
        optional = {"operator": self.operators, "scheme": self.schemes, "bits": self.bits}
        counted = {group: dict(counts) for group, counts in optional.items() if counts.total()}
        return {"opcode": dict(self.opcodes), "flag": dict(self.flags), "stall": dict(self.stalls), **counted}


def operator_names() -> list[str]:
    """Return the names under which operators are counted."""
    plain = [name for name in OPERATORS if name not in SOFTMAX]
    softmax = [f"{name}.{bits}" for name in SOFTMAX for bits in (8, 16)]
    return [*plain, *softmax, *(f"{name}.{form}" for form, names in FORMS.items() for name in names)]


def names_of(node: Node) -> list[str]:
    """Return the names under which an operator is counted: softmax with the bits of its exponentials, and its forms."""
    wide = "offset" in node.attributes.get("exp", node.attributes)
    name = f"{node.op}.{16 if wide else 8}" if node.op in SOFTMAX else node.op
    present = node.constants.keys() | {role for role, value in node.attributes.items() if value}
    return [name, *(f"{node.op}.{form}" for form, names in FORMS.items() if node.op in names and form in present)]


def flag_names(instruction: isa.Instruction) -> list[str]:
    """Return the names under which an instruction's control settings are counted."""
    names = []
    for operand in instruction.operands:
        for name in operand.fields if operand.name == "control" else ():
            if name in ENUMS:
                names += [f"{instruction.mnemonic}.{name}.{member.name}" for member in ENUMS[name]]
            elif name in VALUES:
                names += [f"{instruction.mnemonic}.{value}" for value in VALUES[name].values()]
            elif name in FLAGS:
                names.append(f"{instruction.mnemonic}.{name}")
    return names
