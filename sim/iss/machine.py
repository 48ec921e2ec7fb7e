"""Fetch, decode and execute in program order, with the checks that make a program legal."""

from collections.abc import Callable

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.iss import dma
from phonolith.sim.iss import vector as vector_unit
from phonolith.sim.iss.state import State, illegal, signed

ARGUMENT_REGISTERS = (1, 2, 3, 4)
MAX_INSTRUCTIONS = 10_000_000


def run(words: np.ndarray, image: np.ndarray, config: MachineConfig, args: tuple[int, ...] = ()) -> np.ndarray:
    """Run a program to END and return the DRAM image it leaves.

    Parameters
    ----------
    words : np.ndarray
        uint32 program, the configuration's hash word first.
    image : np.ndarray
        uint8 DRAM contents; not changed.
    args : tuple of int
        Initial values of registers 1 to 4.

    Raises
    ------
    PhonolithError
        ``illegal-program`` with the instruction's word index, or ``wrong-configuration``.
    """
    machine = Machine(words, image.copy(), config, args)
    machine.run()
    return machine.state.dram


class Machine:
    """One program on one memory image.

    ``on_retire(word_index, mnemonic, operands, state)``, when given, is called after each instruction.
    """

    def __init__(self, words: np.ndarray, dram: np.ndarray, config: MachineConfig, args: tuple[int, ...] = (),
                 on_retire: Callable | None = None):
        self.words = [int(w) for w in words]
        self.config = config
        self.state = State(config, dram)
        self.on_retire = on_retire
        self.pending_matmuls: list[int] = []
        self.waiters: dict[int, isa.Queue] = {}
        for register, value in zip(ARGUMENT_REGISTERS, args, strict=False):
            self.state.registers[register] = value % (1 << 32)

    def run(self) -> int:
        """Execute until END; return the number of instructions."""
        if not self.words or self.words[0] != self.config.hash_word:
            raise PhonolithError("wrong-configuration", "the program was compiled for another machine.",
                                 "Compile the model again for this configuration.")
        position = 1
        for count in range(MAX_INSTRUCTIONS):
            try:
                following = self.step(position)
            except PhonolithError as error:
                raise PhonolithError(error.kind, f"instruction at word {position}: {error.message}",
                                     error.remedy) from error
            if following is None:
                return count + 1
            position = following
        raise illegal(f"no END within {MAX_INSTRUCTIONS} instructions.")

    def step(self, position: int) -> int | None:
        """Execute the instruction at word ``position``; return the next position, None after END."""
        header = isa.unpack(isa.HEADER, self.word(position))
        instruction = isa.BY_OPCODE.get(header["opcode"])
        if instruction is None:
            raise illegal(f"opcode {header['opcode']} does not exist.")
        operands = {operand.name: self.resolve(operand, self.word(position + 1 + index))
                    for index, operand in enumerate(instruction.operands)}
        following: int | None = position + 1 + len(operands)
        if instruction.queue == isa.Queue.SEQUENCER:
            following = self.sequence(instruction.mnemonic, operands, following)
        else:
            self.take_tokens(header["wait"], instruction.queue)
            if instruction.mnemonic == "LOAD":
                self.give_tokens(isa.unpack(isa.LOAD_CONTROL, operands["control"])["early"])
            self.execute(instruction, operands)
            self.give_tokens(header["signal"])
        if self.on_retire:
            self.on_retire(position, instruction.mnemonic, operands, self.state)
        return following

    def word(self, position: int) -> int:
        """Return one program word."""
        if not 0 <= position < len(self.words):
            raise illegal(f"the program has {len(self.words)} words and no word {position}.")
        return self.words[position]

    def resolve(self, operand: isa.Operand, word: int) -> int:
        """Return an operand's 32-bit value; register operands give the register's number."""
        if operand.kind is isa.Kind.RAW:
            return word
        register, immediate = isa.decode_value(word)
        if operand.kind is isa.Kind.REGISTER:
            return register
        return (self.state.registers[register] + immediate) % (1 << 32)

    def sequence(self, mnemonic: str, operands: dict[str, int], following: int) -> int | None:
        """Execute an instruction of the sequencer; return the next position."""
        if mnemonic == "END":
            return self.end()
        if mnemonic.startswith("BRANCH"):
            a, b = signed(operands["a"], 32), signed(operands["b"], 32)
            taken = a < b if mnemonic == "BRANCH_LESS" else a == b
            return operands["target"] if taken else following
        if operands["destination"] != 0:
            self.state.registers[operands["destination"]] = self.compute(mnemonic, operands) % (1 << 32)
        return following

    def compute(self, mnemonic: str, operands: dict[str, int]) -> int:
        """Return the result of SET, ADD, CLAMP or SHIFT."""
        if mnemonic == "SET":
            return operands["literal"]
        if mnemonic == "ADD":
            return operands["a"] + operands["b"]
        if mnemonic == "CLAMP":
            value = signed(operands["a"], 32)
            return min(value, signed(operands["limit"], 32)) if value >= 0 else 0
        amount = signed(operands["amount"], 32)
        if not -31 <= amount <= 31:
            raise illegal(f"SHIFT by {amount}; it must be -31..31.")
        return operands["a"] << amount if amount >= 0 else signed(operands["a"], 32) >> -amount

    def end(self) -> None:
        """Check that nothing is left undone."""
        if self.state.tiles:
            raise illegal(f"END with {len(self.state.tiles)} finished tiles that no VECTOR took.")

    def take_tokens(self, mask: int, queue: isa.Queue) -> None:
        """Lower the semaphores of a wait mask; each semaphore serves one queue."""
        for index in range(isa.SEMAPHORES):
            if not mask >> index & 1:
                continue
            if self.waiters.setdefault(index, queue) != queue:
                raise illegal(f"semaphore {index} is waited for by {queue.name} and {self.waiters[index].name}.")
            if self.state.semaphores[index] == 0:
                raise illegal(f"waits for semaphore {index}, which no earlier instruction raised: deadlock.")
            self.state.semaphores[index] -= 1

    def give_tokens(self, mask: int) -> None:
        """Raise the semaphores of a signal mask."""
        for index in range(isa.SEMAPHORES):
            self.state.semaphores[index] += mask >> index & 1
            if self.state.semaphores[index] >= 1 << isa.SEMAPHORE_BITS:
                raise illegal(f"semaphore {index} exceeds {(1 << isa.SEMAPHORE_BITS) - 1}.")

    def execute(self, instruction: isa.Instruction, operands: dict[str, int]) -> None:
        """Execute an engine instruction."""
        control = isa.unpack(instruction.operand("control").fields, operands["control"])
        if instruction.mnemonic == "LOAD":
            dma.load(self.state, operands, control)
        elif instruction.mnemonic == "STORE":
            dma.store(self.state, operands)
        elif instruction.mnemonic == "MATMUL":
            self.matmul(operands, control)
        elif instruction.mnemonic == "VECTOR":
            vector_unit.vector(self.state, operands, control)
        else:
            vector_unit.row_operation(self.state, operands, control)

    def matmul(self, operands: dict[str, int], control: dict[str, int]) -> None:
        """Execute MATMUL: append its tiles."""
        if operands["k"] < 1:
            raise illegal("MATMUL needs k of at least 1.")
        self.check_pending()
        lanes, block = self.check_widths(operands, control)
        row_tiles, column_tiles = self.config.tile_counts(operands["rows"], operands["columns"])
        for row_tile in range(row_tiles if column_tiles else 0):
            a = self.operand_tile(self.state.activation, operands, "a", row_tile)
            a = (a if control["a_unsigned"] else a.view(np.int8)).astype(np.float64)
            for column_tile in range(column_tiles):
                if control["band"]:
                    w = self.band(operands, row_tile * column_tiles + column_tile)
                else:
                    packed = self.operand_tile(self.state.weight, operands, "w", column_tile, lanes=lanes)
                    w = unpack_weights(packed, lanes)[:, :operands["k"]]
                for first in range(0, operands["k"], block):
                    part = slice(first, first + block)
                    sums = (a[:, part] @ w[:, part].astype(np.float64).T).astype(np.int64)
                    row_sums = a[:, part].sum(axis=1).astype(np.int64)
                    self.state.tiles.append((signed(sums, 32), row_sums))
        self.pending_matmuls.append(row_tiles * column_tiles * -(-operands["k"] // block))

    def check_widths(self, operands: dict[str, int], control: dict[str, int]) -> tuple[int, int]:
        """Return activations per step and the k of a sum; refuse what the array cannot run."""
        lanes = 1 << control["log2_lanes"]
        if self.config.word_bytes % lanes:
            raise illegal(f"weights of {8 // lanes} bits need words of a multiple of {lanes} bytes; these have "
                          f"{self.config.word_bytes}.")
        if control["block"] >= len(isa.BLOCKS):
            raise illegal(f"MATMUL has no block {control['block']}.")
        if control["band"] and (lanes > 1 or control["block"]):
            raise illegal("a band has weights of 8 bits and no blocks.")
        return lanes, isa.BLOCKS[control["block"]] or max(operands["k"], 1)

    def operand_tile(self, banks: np.ndarray, operands: dict[str, int], name: str, tile: int,
                     shorter: int = 0, lanes: int = 1) -> np.ndarray:
        """Return the k (less ``shorter``) bytes that each bank streams for one tile, uint8 ``[banks, bytes]``.

        A byte of weights holds ``lanes`` of them.
        """
        word = operands[f"{name}_base"] + tile * operands[f"{name}_tile_words"]
        size = max(-(-operands["k"] // lanes) - shorter, 0)
        start = word * self.config.word_bytes
        if start + size > banks.shape[1] and size:
            raise illegal(f"MATMUL reads words beyond the end of the {name} banks (word {word}, k {operands['k']}).")
        return banks[:, start:start + size]

    def band(self, operands: dict[str, int], tile: int) -> np.ndarray:
        """Return the operand of a banded tile, int8 ``[C, k]``: in row c a kernel, shifted by c, between zeros."""
        columns = self.config.columns
        kernel = self.operand_tile(self.state.weight[:1], operands, "w", tile, shorter=columns - 1)[0].view(np.int8)
        shifted = np.zeros((columns, operands["k"]), np.int8)
        for column in range(columns):
            shifted[column, column:column + len(kernel)] = kernel[:max(operands["k"] - column, 0)]
        return shifted

    def check_pending(self) -> None:
        """Refuse a MATMUL that could block the sequencer behind tiles nobody drains."""
        undrained = len(self.state.tiles)
        while self.pending_matmuls and sum(self.pending_matmuls[1:]) >= undrained:
            self.pending_matmuls.pop(0)
        limit = self.config.undrained_matmuls
        if len(self.pending_matmuls) >= limit:
            raise illegal(f"{len(self.pending_matmuls)} MATMULs are not drained yet; at most {limit - 1} may be "
                          "ahead of their VECTOR instructions, or the queues could deadlock.")


def unpack_weights(packed: np.ndarray, lanes: int) -> np.ndarray:
    """Return the weights in bytes ``[C, steps]``, int8 ``[C, steps * lanes]``; those of 1 bit are 0 or 1."""
    bits = 8 // lanes
    codes = packed[:, :, None] >> np.arange(lanes, dtype=np.uint8) * np.uint8(bits) & np.uint8((1 << bits) - 1)
    codes = codes.reshape(len(packed), -1).astype(np.int16)
    return codes.astype(np.int8) if bits in (1, 8) else (codes - (codes >> bits - 1 << bits)).astype(np.int8)
