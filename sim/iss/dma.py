"""LOAD and STORE."""

import numpy as np

from phonolith.hw.isa import Target
from phonolith.sim.iss.state import State, illegal, signed, view_range


def row_addresses(operands: dict[str, int]) -> np.ndarray:
    """Return the DRAM address of each row, int64 ``[outer_count * inner_count]``."""
    outer = np.arange(operands["outer_count"], dtype=np.int64) * signed(operands["outer_stride"], 32)
    inner = np.arange(operands["inner_count"], dtype=np.int64) * signed(operands["inner_stride"], 32)
    return operands["address"] + (outer[:, None] + inner[None, :]).reshape(-1)


def gather(dram: np.ndarray, operands: dict[str, int]) -> np.ndarray:
    """Return the rows of a LOAD, uint8 ``[rows, segment_count * segment_bytes]``."""
    segments = np.arange(operands["segment_count"], dtype=np.int64) * signed(operands["segment_stride"], 32)
    starts = (row_addresses(operands)[:, None] + segments[None, :]).reshape(-1)
    width = operands["segment_bytes"]
    if starts.size == 0 or width == 0:
        return np.zeros((0, 0), np.uint8)
    check_dram(dram, starts, width)
    rows = dram[starts[:, None] + np.arange(width)[None, :]]
    return rows.reshape(-1, operands["segment_count"] * width)


def check_dram(dram: np.ndarray, starts: np.ndarray, width: int) -> None:
    """Refuse accesses outside DRAM."""
    if starts.min() < 0 or starts.max() + width > dram.size:
        raise illegal(f"DRAM bytes {starts.min()}..{starts.max() + width - 1} lie outside its {dram.size} bytes.")


def pad_rows(rows: np.ndarray, unit: int) -> np.ndarray:
    """Fill each row with zeros up to a multiple of ``unit`` bytes."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % unit)))


def load(state: State, operands: dict[str, int], control: dict[str, int]) -> None:
    """Execute LOAD."""
    rows = gather(state.dram, operands)
    if rows.size == 0:
        return
    target = control["target"]
    check_early(state, rows, operands, control)
    if target in (Target.ACTIVATION, Target.WEIGHT):
        banks = state.activation if target == Target.ACTIVATION else state.weight
        banks = banks[:1] if control["one_bank"] else banks
        load_banks(state, banks, rows, operands, control)
    elif target in (Target.SCRATCHPAD, Target.PARAMETER):
        load_flat(state, rows, operands, target)
    elif target == Target.TABLE:
        for row in pad_rows(rows, state.config.word_bytes)[:, :256]:
            state.table[:len(row)] = row
    else:
        raise illegal(f"LOAD has no target {target}.")


def check_early(state: State, rows: np.ndarray, operands: dict, control: dict) -> None:
    """Refuse early signals of a LOAD that the array cannot follow word by word."""
    if not control["early"]:
        return
    banks = {Target.ACTIVATION: state.config.rows, Target.WEIGHT: state.config.columns}.get(control["target"])
    if not banks or not control["bank_per_word"] or control["transpose"]:
        raise illegal("only a LOAD into an operand memory with bank_per_word may signal early.")
    words = -(-len(rows) * -(-rows.shape[1] // state.config.word_bytes) // (1 if control["one_bank"] else banks))
    if operands["row_words"] != words:
        raise illegal(f"a LOAD that signals early gives the words per bank that it writes as row_words: {words}, "
                      f"not {operands['row_words']}.")


def load_banks(state: State, banks: np.ndarray, rows: np.ndarray, operands: dict, control: dict) -> None:
    """Write rows to operand banks in one of the patterns; transposed, one block of WB rows after the other."""
    word = state.config.word_bytes
    row_words = operands["row_words"]
    if control["window"]:
        check_window(banks, control)
    if control["transpose"]:
        most = state.config.dma_bytes
        if operands["segment_count"] != 1 or operands["segment_bytes"] > most:
            raise illegal(f"a transposing LOAD takes one segment of at most {most} bytes per row, not "
                          f"{operands['segment_count']} of {operands['segment_bytes']} bytes.")
        rows = rows.T
    padded = pad_rows(rows, word)
    if control["window"]:
        load_windows(banks, padded, operands, control, word)
        return
    if control["bank_per_word"] and not control["transpose"]:
        padded = padded.reshape(-1, word)
        row_words = 1
    step = word if control["transpose"] else padded.shape[1]
    for first in range(0, padded.shape[1], step):
        for index, part in enumerate(padded[:, first:first + step]):
            start = (operands["base"] + index // len(banks) * row_words) * word + first
            view_range(banks[index % len(banks)], start, len(part), "operand bank")[:] = part


def check_window(banks: np.ndarray, control: dict) -> None:
    """Refuse windows that the hardware cannot write."""
    if control["target"] != Target.ACTIVATION or control["bank_per_word"] or control["one_bank"]:
        raise illegal("a LOAD of windows goes to all activation banks, row by row.")
    if control["window"] > len(banks):
        raise illegal(f"windows of {control['window']} words need as many banks; there are {len(banks)}.")


def load_windows(banks: np.ndarray, rows: np.ndarray, operands: dict, control: dict, word: int) -> None:
    """Write word b of each row into the windows that hold it, those that start at b, b - 1, ..."""
    window = control["window"]
    places = [(row, time) for time in range(rows.shape[1] // word) for row in range(len(rows))]
    for row, time in places if control["transpose"] else sorted(places):
        for start in range(max(time - window + 1, 0), time + 1):
            group, bank = divmod(start, len(banks))
            address = operands["base"] + row * operands["row_words"] + group * window + time - start
            view_range(banks[bank], address * word, word, "operand bank")[:] = rows[row, time * word:(time + 1) * word]


def load_flat(state: State, rows: np.ndarray, operands: dict, target: int) -> None:
    """Write rows to the scratchpad or to the parameter memory, in units of word_bytes."""
    memory, word = ((state.scratchpad, state.config.scratch_word_bytes) if target == Target.SCRATCHPAD
                    else (state.parameter, state.config.parameter_word_bytes))
    for index, row in enumerate(pad_rows(rows, state.config.word_bytes)):
        start = (operands["base"] + index * operands["row_words"]) * word
        view_range(memory, start, len(row), Target(target).name.lower())[:] = row


def store(state: State, operands: dict[str, int]) -> None:
    """Execute STORE."""
    width = operands["row_bytes"]
    starts = row_addresses(operands)
    if width == 0 or starts.size == 0:
        return
    check_dram(state.dram, starts, width)
    for index, start in enumerate(starts):
        source = (operands["base"] + index * operands["pitch"]) * state.config.scratch_word_bytes
        state.dram[start:start + width] = view_range(state.scratchpad, source, width, "scratchpad")
