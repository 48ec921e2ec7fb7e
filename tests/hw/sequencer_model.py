"""What the sequencer does with a program, word by word, and random programs."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import BY_MNEMONIC, BY_OPCODE, Kind, Queue, encode_value
from phonolith.hw.quiesce import Error

LOOP_REGISTER = 20
CORNERS = (0, 1, -1, 2, 31, -31, (1 << 26) - 1, -1 << 26)
NO_WORD = 0xFFFFFFFF     # what follows the program; no opcode


@dataclass
class Outcome:
    """What leaves the sequencer: words by queue, (position, queue) of instructions, how the program ends and where."""

    queues: list[list[int]] = field(default_factory=lambda: [[] for _ in range(4)])
    decoded: list[tuple[int, int]] = field(default_factory=list)
    error: int = Error.NONE
    address: int = 0


class Stop(Exception):
    """The program ends with this error."""


class Interpreter:
    """Runs one program by ``docs/isa.md``.

    Parameters
    ----------
    config : MachineConfig
    words : list of int
        From the hash word on.
    arguments : list of int
        Registers 1 to 4.
    failing : int, optional
        Index of a word that cannot be read.
    tile_left : bool
        At the end the array holds a tile.
    """

    def __init__(self, config: MachineConfig, words: list[int], arguments: list[int], failing=None, tile_left=False):
        self.config, self.words, self.failing, self.tile_left = config, words, failing, tile_left
        self.registers = [0, *arguments, *[0] * (isa.REGISTERS - 5)]
        self.position, self.outcome, self.ended = 0, Outcome(), False

    def run(self, limit: int = 400) -> Outcome | None:
        """Return the outcome, or None when more than ``limit`` instructions do not reach it."""
        try:
            if self.word() != self.config.hash_word:
                raise Stop(Error.WRONG_CONFIGURATION)
            for _ in range(limit):
                self.instruction()
                if self.ended:
                    return self.outcome
        except Stop as stop:
            self.outcome.error = stop.args[0]
            return self.outcome
        return None

    def word(self) -> int:
        """Take the next word."""
        if self.position == self.failing:
            raise Stop(Error.READ_FAILED)
        self.position += 1
        return self.words[self.position - 1] if self.position <= len(self.words) else NO_WORD

    def instruction(self) -> None:
        """Decode one instruction, hand it over or carry it out."""
        self.outcome.address = self.position
        header = self.word()
        each = BY_OPCODE.get(isa.unpack(isa.HEADER, header)["opcode"])
        if each is None:
            raise Stop(Error.ILLEGAL_INSTRUCTION)
        self.outcome.decoded.append((self.outcome.address, int(each.queue)))
        queue = self.outcome.queues[each.queue - 1] if each.queue != Queue.SEQUENCER else []
        queue.append(header)
        for operand in each.operands:
            value = self.operand(operand.kind)
            if self.senseless(each.mnemonic, operand.name, value):
                raise Stop(Error.ILLEGAL_INSTRUCTION)
            queue.append(value)
        if each.queue == Queue.SEQUENCER:
            self.execute(each.mnemonic, *queue[1:])

    def operand(self, kind: Kind) -> int:
        """Take and resolve one operand."""
        word = self.word()
        if kind is not Kind.VALUE:
            return word
        register, immediate = isa.decode_value(word)
        return (self.registers[register] + immediate) % 2**32

    def senseless(self, mnemonic: str, name: str, value: int) -> bool:
        """Whether an operand has no meaning."""
        parts = {"LOAD": isa.LOAD_CONTROL, "VECTOR": isa.VECTOR_CONTROL, "MATMUL": isa.MATMUL_CONTROL}
        if name == "control" and mnemonic in parts:
            part = isa.unpack(parts[mnemonic], value)
            return part.get("target", 0) > 4 or part.get("block", 0) > 4 or any(
                part.get(field, 0) > 2 for field in ("source", "source_width", "destination")) or (
                part.get("multiplier", 0) > 5)
        deepest = self.config.word_bytes * max(self.config.activation_depth, self.config.weight_depth)
        return (mnemonic, name) == ("MATMUL", "k") and not 1 <= value <= deepest

    def execute(self, mnemonic: str, *operands: int) -> None:
        """Carry out END, SET, ADD, SHIFT, CLAMP or a branch."""
        first, second, third = (*operands, 0, 0, 0)[:3]
        if mnemonic == "END":
            self.ended = True
            if self.tile_left:
                raise Stop(Error.TILE_NOT_TAKEN)
        elif mnemonic.startswith("BRANCH"):
            less = mnemonic == "BRANCH_LESS" and signed(first) < signed(second)
            if less or mnemonic == "BRANCH_EQUAL" and first == second:
                self.position = third
        else:
            result = (second if mnemonic == "SET" else second + third if mnemonic == "ADD"
                      else clamp(second, third) if mnemonic == "CLAMP" else shift(second, third))
            register = first >> isa.IMMEDIATE_BITS
            self.registers[register] = result % 2**32 if register else 0


def signed(word: int) -> int:
    """A word as a signed number."""
    return word - (word >> 31 << 32)


def shift(value: int, amount: int) -> int:
    """Left by 0..31, arithmetic right by 1..31."""
    amount = signed(amount)
    if not -31 <= amount <= 31:
        raise Stop(Error.ILLEGAL_INSTRUCTION)
    return value << amount if amount >= 0 else signed(value) >> -amount


def clamp(value: int, limit: int) -> int:
    """Limit a signed value to 0 and a signed limit, 0 coming first."""
    if signed(value) < 0:
        return 0
    return min(value, limit, key=signed)


def header(mnemonic: str, source: random.Random) -> int:
    """A header with random masks."""
    return isa.pack(isa.HEADER, opcode=BY_MNEMONIC[mnemonic].opcode, wait=source.getrandbits(12),
                    signal=source.getrandbits(12))


def random_program(source: random.Random, config: MachineConfig) -> list[int]:
    """Any program whose loops end, often with an error in it."""
    words = [config.hash_word ^ (source.random() < 0.05)]
    for _ in range(source.randint(1, 12)):
        body = [word for _ in range(source.randint(1, 4)) for word in random_instruction(source, config)]
        if source.random() < 0.3:
            words += loop(source, len(words), body)
        elif source.random() < 0.2:
            words += [*branch(source, len(words) + 4 + len(body)), *body]
        else:
            words += body
    if source.random() < 0.1:
        words.append(source.choice((7, 15, 21, 40, 63)))     # no opcodes
    return [*words, header("END", source)]


def edge_programs(config: MachineConfig) -> Iterator[list[int]]:
    """One program for each value at the end of what is legal, and for the next beyond it."""
    deepest = config.word_bytes * max(config.activation_depth, config.weight_depth)
    operands = {"LOAD": ("control", [isa.pack(isa.LOAD_CONTROL, target=n) for n in range(8)]),
                "MATMUL": ("k", [0, 1, deepest, deepest + 1, (1 << 26) - 1]),
                "SHIFT": ("amount", [0, 31, 32, 63, -1, -31, -32, -63])}
    cases = [(mnemonic, name, value) for mnemonic, (name, values) in operands.items() for value in values]
    cases += [("MATMUL", "control", isa.pack(isa.MATMUL_CONTROL, block=n)) for n in range(8)]
    cases += [("VECTOR", "control", isa.pack(isa.VECTOR_CONTROL, **{name: n}))
              for name in ("source", "source_width", "multiplier", "destination")
              for n in range(1 << isa.VECTOR_CONTROL[name][1])]
    for mnemonic, name, value in cases:
        words = [encode_value(value if operand.name == name else operand.name == "k")
                 for operand in BY_MNEMONIC[mnemonic].operands]
        yield [config.hash_word, BY_MNEMONIC[mnemonic].opcode, *words, BY_MNEMONIC["END"].opcode]
    for opcode in range(1 << isa.OPCODE_BITS):
        if opcode not in BY_OPCODE:
            yield [config.hash_word, opcode, BY_MNEMONIC["END"].opcode]


def loop(source: random.Random, start: int, body: list[int]) -> list[int]:
    """Repeat a body one to three times."""
    register, times = LOOP_REGISTER << isa.IMMEDIATE_BITS, source.randint(1, 3)
    return [header("SET", source), register, 0, *body,
            header("ADD", source), register, encode_value(0, LOOP_REGISTER), encode_value(1),
            header("BRANCH_LESS", source), encode_value(0, LOOP_REGISTER), encode_value(times), start + 3]


def branch(source: random.Random, target: int) -> list[int]:
    """A branch forward, taken or not."""
    same = random_value(source)
    operands = [same, source.choice((same, random_value(source)))]
    return [header(source.choice(("BRANCH_LESS", "BRANCH_EQUAL")), source), *operands, target]


def random_value(source: random.Random) -> int:
    """Register plus immediate, often at an end of their ranges."""
    immediate = source.choice((*CORNERS, source.randrange(-1 << 26, 1 << 26)))
    return encode_value(immediate, source.choice((0, 0, *range(isa.REGISTERS))))


def random_register(source: random.Random) -> int:
    """A register that counts no loop."""
    return source.choice([n for n in range(isa.REGISTERS) if n != LOOP_REGISTER])


def random_control(source: random.Random, fields: dict[str, tuple[int, int]]) -> int:
    """A control word; few without a meaning."""
    limits = {"target": 4, "source": 2, "source_width": 2, "destination": 2, "multiplier": 5, "block": 4}
    parts = {name: source.randint(0, min((1 << width) - 1, limits.get(name, 99) + (source.random() < 0.02)))
             for name, (_, width) in fields.items() if name != "early"}
    return isa.pack(fields, **parts)


def random_instruction(source: random.Random, config: MachineConfig) -> Iterator[int]:
    """Any instruction but END and branches; few without a meaning.

    A control word may take more bits than an immediate has: it then comes from a register, set before.
    """
    mnemonic = source.choice(("SET", "ADD", "SHIFT", "CLAMP", "LOAD", "MATMUL", "VECTOR", "ROWOP", "STORE"))
    operands = BY_MNEMONIC[mnemonic].operands
    if operands[0].name == "control":
        register, immediate = max(random_register(source), 1), source.randrange(-1 << 26, 1 << 26)
        control = random_control(source, operands[0].fields)
        yield from (header("SET", source), register << isa.IMMEDIATE_BITS, (control - immediate) % 2**32)
    yield header(mnemonic, source)
    for operand in operands:
        if operand.kind is Kind.REGISTER:
            yield random_register(source) << isa.IMMEDIATE_BITS
        elif operand.name == "control":
            yield encode_value(immediate, register)
        elif (mnemonic, operand.name) in (("MATMUL", "k"), ("SHIFT", "amount")):
            deepest = config.word_bytes * max(config.activation_depth, config.weight_depth)
            usual = (1, deepest) if mnemonic == "MATMUL" else (0, 31, -31, -1, source.randint(-31, 31))
            rare = (0, deepest + 1, -1) if mnemonic == "MATMUL" else (32, -32, 64)
            yield encode_value(source.choice(usual if source.random() < 0.95 else rare))
        else:
            yield source.getrandbits(32) if operand.kind is Kind.RAW else random_value(source)
