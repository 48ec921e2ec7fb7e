"""What a program can see: memories, registers, semaphores, finished tiles."""

from collections import deque

import numpy as np

from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError


class State:
    """Architectural state of one accelerator and its DRAM.

    Parameters
    ----------
    config : MachineConfig
    dram : np.ndarray
        uint8, changed in place; address 0 is its first byte.

    Attributes
    ----------
    activation, weight : np.ndarray
        uint8 ``[banks, depth * word_bytes]``.
    scratchpad, parameter : np.ndarray
        uint8, flat.
    row_registers : np.ndarray
        int64 ``[4, R]`` holding 48-bit signed values.
    tiles : deque
        Finished int32 ``[R, C]`` tiles that no VECTOR has taken yet, each with its rows' sums of activations ``[R]``.
    """

    def __init__(self, config: MachineConfig, dram: np.ndarray):
        self.config = config
        self.dram = dram
        word = config.word_bytes
        self.activation = np.zeros((config.rows, config.activation_depth * word), np.uint8)
        self.weight = np.zeros((config.columns, config.weight_depth * word), np.uint8)
        self.scratchpad = np.zeros(config.scratch_depth * config.scratch_word_bytes, np.uint8)
        self.parameter = np.zeros(config.parameter_depth * config.parameter_word_bytes, np.uint8)
        self.table = np.zeros(256, np.uint8)
        self.row_registers = np.zeros((isa.ROW_REGISTERS, config.rows), np.int64)
        self.registers = [0] * isa.REGISTERS
        self.semaphores = [0] * isa.SEMAPHORES
        self.tiles: deque[tuple[np.ndarray, np.ndarray]] = deque()


def illegal(message: str) -> PhonolithError:
    """Build the error for a program that the hardware could not run to a defined result."""
    return PhonolithError("illegal-program", message, "Correct the program or the compiler that emitted it.")


def signed(value, bits: int):
    """Take an int or int64 array modulo ``2**bits`` as two's complement."""
    half = 1 << bits - 1
    return (value + half & (1 << bits) - 1) - half


def view_range(memory: np.ndarray, start: int, length: int, what: str) -> np.ndarray:
    """Return ``memory[..., start:start+length]``; PhonolithError when that is outside."""
    if start < 0 or start + length > memory.shape[-1]:
        raise illegal(f"{what} bytes {start}..{start + length - 1} lie outside its {memory.shape[-1]} bytes.")
    return memory[..., start:start + length]
