"""Random engine instructions that are legal one by one.

Every method of :class:`InstructionMaker` returns an :class:`Issue` whose operands are plain integers; how they are
encoded, ordered and synchronized is the business of ``random_programs.py``.
"""

import numpy as np

from phonolith.compiler.assembler import Issue
from phonolith.compiler.disassembler import Resolved
from phonolith.compiler.footprint import Access, Memory, accesses, load_banks, sums_per_tile
from phonolith.hw import isa
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Destination, Multiplier, Pre, Reduce, Source, Target, Width
from phonolith.sim.program_case import IMAGE_BYTES, PARAMETER_BYTES, WORD, plain

LARGEST_LOAD = 1200
# Root mean square of what VECTOR reads, by source; DRAIN: for k of about 20.
SCALE = {Source.DRAIN: 25_000.0, Source.SCRATCHPAD: 19_000.0, Source.ZERO: 1000.0}


def resolve(issue: Issue) -> Resolved:
    """Return an instruction with plain operands as its engine sees it, without semaphores."""
    instruction = isa.BY_MNEMONIC[issue.mnemonic]
    operands = {name: plain(value) & WORD for name, value in issue.operands.items()}
    parts = {o.name: isa.unpack(o.fields, operands[o.name]) for o in instruction.operands if o.fields}
    return Resolved(0, instruction, 0, 0, operands, parts)


def overlaps(first: Access, second: Access) -> bool:
    """Tell whether two accesses share a word."""
    return first.memory == second.memory and first.low < second.high and second.low < first.high


class InstructionMaker:
    """Draws instructions; addresses gather around a few places, so that instructions meet in the memories.

    Parameters
    ----------
    rng : numpy.random.Generator
    config : MachineConfig

    Attributes
    ----------
    tiles : int
        Finished tiles that no VECTOR has taken yet, in program order.
    products : int
        MATMULs since the last time there were none.
    """

    def __init__(self, rng: np.random.Generator, config: MachineConfig):
        self.rng = rng
        self.config = config
        self.tiles = 0
        self.products = 0
        self.depths = {
            Memory.ACTIVATION: config.activation_depth, Memory.WEIGHT: config.weight_depth,
            Memory.SCRATCHPAD: config.scratch_depth, Memory.PARAMETER: config.parameter_depth,
        }
        self.longest_window = min(config.rows, (1 << isa.WINDOW_BITS) - 1)
        self.dram_place = self.integer(PARAMETER_BYTES, IMAGE_BYTES - 1)
        self.places = {memory: self.gathering_places(memory) for memory in self.depths}

    def gathering_places(self, memory: Memory) -> list[int]:
        """Return a word address, or one in each bank of the scratchpad."""
        depth = self.depths[memory]
        if memory is Memory.SCRATCHPAD:
            half = depth // 2
            low, high = self.integer(0, half - 1), self.integer(half, depth - 1)
            return [self.choose(0, low, half - 8), self.choose(high, depth)]
        return [self.choose(0, self.integer(0, depth - 1), self.integer(0, depth - 1), depth)]

    def integer(self, low: int, high: int) -> int:
        """Return an integer in ``low .. high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def choose(self, *values):
        """Return one of some values."""
        return values[self.integer(0, len(values) - 1)]

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random() < probability)

    def member(self, kind):
        """Return a member of an enumeration."""
        return self.choose(*kind)

    def size(self, most: int) -> int:
        """Return a size in 1 .. ``most``, often the smallest or the largest."""
        return self.choose(1, most, self.integer(1, most), self.integer(1, most))

    def rest(self, used: bool, value: int) -> int:
        """Return ``value``, or anything at all for an operand that does not matter."""
        return value if used or self.chance(0.5) else self.integer(-(1 << 20), 1 << 20)

    def base(self, memory: Memory, extent: int) -> int | None:
        """Return where ``extent`` words of a memory may start; None when they do not fit."""
        highest = self.depths[memory] - extent
        if highest < 0:
            return None
        return min(max(self.choose(*self.places[memory]) + self.integer(-2, 6), 0), highest)

    def settle(self, issue: Issue, memories: dict[str, tuple[Memory, bool]]) -> Issue | None:
        """Give base operands addresses at which the instruction's accesses fit, or return None.

        ``memories`` names per base operand its memory and whether it is written.
        """
        operands = dict(issue.operands)
        for name, (memory, write) in memories.items():
            alone = {other: 0 for other in memories}
            found = accesses(resolve(Issue(issue.mnemonic, operands | alone)), self.config)
            extents = [each.high for each in found if (each.memory, each.write) == (memory, write)]
            base = self.base(memory, max(extents, default=1))
            if base is None:
                return None
            operands[name] = base
        return Issue(issue.mnemonic, operands)

    def loops(self, most: int) -> dict[str, int]:
        """Return counts and strides of two loops."""
        return {"outer_count": self.size(most), "outer_stride": self.stride(),
                "inner_count": self.size(most), "inner_stride": self.stride()}

    def stride(self) -> int:
        """Return a signed byte stride of any alignment."""
        return self.choose(0, self.integer(-300, 300), self.integer(-40, 40), 16 * self.integer(-8, 8),
                           self.integer(-1500, 1500))

    def address(self, operands: dict[str, int], row_bytes: int, lowest: int) -> int | None:
        """Return a DRAM address at which strided loops stay within the image; None when there is none."""
        low = high = 0
        for loop in ("outer", "inner", "segment"):
            reach = (operands.get(f"{loop}_count", 1) - 1) * operands.get(f"{loop}_stride", 0)
            low, high = low + min(reach, 0), high + max(reach, 0)
        first, last = lowest - low, IMAGE_BYTES - high - row_bytes
        if first > last:
            return None
        if self.chance(0.4):
            return self.integer(first, last)
        return min(max(self.dram_place + self.integer(-48, 48), first), last)

    def load(self) -> Issue | None:
        """Return a LOAD to any target in any pattern."""
        target = self.choose(Target.ACTIVATION, Target.ACTIVATION, Target.WEIGHT, Target.WEIGHT, Target.SCRATCHPAD,
                             Target.SCRATCHPAD, Target.PARAMETER, Target.TABLE)
        operand = target in (Target.ACTIVATION, Target.WEIGHT)
        pattern = self.choose("rows", "bank_per_word", "transpose") if operand else "rows"
        window = target == Target.ACTIVATION and pattern != "bank_per_word" and self.chance(0.4)
        operands = self.loops(4 if pattern != "transpose" else 16 if window else 6)
        operands |= {"segment_count": self.size(3), "segment_stride": self.stride(),
                     "segment_bytes": self.size(self.choose(8, 3 * self.config.word_bytes, 150))}
        if pattern == "transpose":
            operands |= {"segment_count": 1, "segment_bytes": self.size(self.config.dma_bytes)}
        if target == Target.PARAMETER and self.chance(0.9):
            self.align_parameters(operands)
        if self.chance(0.03):
            operands[self.choose("outer_count", "inner_count", "segment_count", "segment_bytes")] = 0
        rows = operands["outer_count"] * operands["inner_count"]
        row_bytes = operands["segment_count"] * operands["segment_bytes"]
        address = self.address(operands, operands["segment_bytes"], 0)
        if rows * row_bytes > LARGEST_LOAD or address is None:
            return None
        if target == Target.PARAMETER and not operands["segment_bytes"] % 8:
            address = 8 * self.integer(0, (PARAMETER_BYTES - row_bytes) // 8)
            operands |= {"outer_stride": 0, "inner_stride": 0, "segment_stride": operands["segment_bytes"]}
        operands |= {"address": address, "row_words": self.integer(0, 6), "base": self.integer(0, 500)}
        operands["control"] = isa.pack(
            isa.LOAD_CONTROL, target=target, bank_per_word=pattern == "bank_per_word", transpose=pattern == "transpose",
            one_bank=operand and not window and self.chance(0.2),
            window=self.integer(1, self.longest_window) if window else 0)
        issue = Issue("LOAD", {**operands})
        if pattern == "bank_per_word" and self.chance(0.7):
            words = rows * -(-row_bytes // self.config.word_bytes)
            operands["row_words"] = -(-words // load_banks(resolve(issue), self.config))
            issue = Issue("LOAD", {**operands})
        return issue if target == Target.TABLE else self.settle(issue, {"base": (Memory(target), True)})

    def align_parameters(self, operands: dict[str, int]) -> None:
        """Make a LOAD take whole parameter records."""
        operands["segment_bytes"] = 8 * self.size(2 * self.config.columns)
        operands["outer_count"] = operands["inner_count"] = 1
        operands["segment_count"] = self.choose(1, 1, 2)

    def store(self) -> Issue | None:
        """Return a STORE."""
        operands = self.loops(4) | {"pitch": self.integer(0, 5)}
        operands["row_bytes"] = self.size(self.choose(5, 2 * self.config.columns, 100))
        if self.chance(0.03):
            operands[self.choose("outer_count", "inner_count", "row_bytes")] = 0
        address = self.address(operands, operands["row_bytes"], PARAMETER_BYTES)
        if address is None:
            return None
        issue = Issue("STORE", {**operands, "address": address, "base": 0, "control": int(self.chance(0.1))})
        return self.settle(issue, {"base": (Memory.SCRATCHPAD, False)})

    def matmul(self) -> Issue | None:
        """Return a MATMUL and count its tiles."""
        log2_lanes = self.choose(*(0, 0, *range(len(isa.WEIGHT_WIDTHS))))
        log2_lanes = 0 if self.config.word_bytes % (1 << log2_lanes) else log2_lanes
        block = self.choose(0, 0, 0, *range(1, len(isa.BLOCKS)))
        k = self.size(3 * self.config.word_bytes) if not block else self.size(3 * isa.BLOCKS[block])
        operands = {
            "rows": self.size(2 * self.config.rows), "columns": self.size(3 * self.config.columns),
            "k": min(k, self.config.word_bytes * self.config.activation_depth // 2), "a_tile_words": self.integer(0, 5),
            "w_tile_words": self.integer(0, 5), "a_base": 0, "w_base": 0,
            "control": isa.pack(isa.MATMUL_CONTROL, a_unsigned=self.chance(0.4), log2_lanes=log2_lanes, block=block,
                                band=self.chance(0.25) and not log2_lanes and not block)}
        if self.chance(0.03):
            operands[self.choose("rows", "columns")] = 0
        tiles = self.config.tiles(operands["rows"], operands["columns"])
        tiles *= sums_per_tile(resolve(Issue("MATMUL", {**operands})))
        issue = self.settle(Issue("MATMUL", {**operands}), {"a_base": (Memory.ACTIVATION, False),
                                                        "w_base": (Memory.WEIGHT, False)})
        if issue:
            self.tiles += tiles
            self.products += 1
        return issue

    def drain(self) -> Issue | None:
        """Return a VECTOR that takes tiles of the array."""
        chunks = self.integer(1, min(self.tiles, 3))
        blocks = self.integer(1, min(self.tiles // chunks, 4)) if self.chance(0.4) else 0
        taken = chunks * max(blocks, 1)
        rows = self.config.rows * self.integer(0, min(self.tiles // taken, 4) - 1) + self.size(self.config.rows)
        columns = (chunks - 1) * self.config.columns + self.size(self.config.columns)
        issue = self.vector(Source.DRAIN, rows, columns, blocks)
        if issue:
            self.tiles -= taken * -(-rows // self.config.rows)
            self.products *= self.tiles > 0
        return issue

    def pass_rows(self) -> Issue | None:
        """Return a VECTOR on the scratchpad, or on nothing."""
        rows, columns = self.size(2 * self.config.rows + 1), self.size(4 * self.config.columns)
        if self.chance(0.03):
            rows, columns = self.choose((0, columns), (rows, 0))
        source = self.choose(Source.SCRATCHPAD, Source.SCRATCHPAD, Source.SCRATCHPAD, Source.ZERO)
        return self.vector(source, rows, columns)

    def vector(self, source: Source, rows: int, columns: int, blocks: int = 0) -> Issue | None:
        """Return a VECTOR of a size with everything else at random; None when its operands would collide."""
        control = self.vector_control(source) | {"partial": blocks > 0}
        operands = {
            "control": isa.pack(isa.VECTOR_CONTROL, **control), "rows": rows, "columns": columns,
            "factor": isa.pack(isa.FACTOR, multiplier=self.multiplier(), shift=self.shift(source, control),
                               blocks=max(blocks - 1, 0)),
            **{f"{name}_pitch": self.rest(rows > 1, self.integer(0, 6)) for name in ("source", "residual")},
            "destination_pitch": self.integer(0, 6),
            **{name: 0 for name in ("source_base", "residual_base", "destination_base", "parameter_base")}}
        issue = Issue("VECTOR", {**operands})
        touched = {each.memory: each.write for each in accesses(resolve(issue), self.config)}
        memories = {"parameter_base": (Memory.PARAMETER, False)} if Memory.PARAMETER in touched else {}
        if control["source"] == Source.SCRATCHPAD:
            memories["source_base"] = (Memory.SCRATCHPAD, False)
        if isa.reads_residual(control):
            memories["residual_base"] = (Memory.SCRATCHPAD, False)
        if control["destination"]:
            activation = control["destination"] == Destination.ACTIVATION
            memories["destination_base"] = (Memory.ACTIVATION if activation else Memory.SCRATCHPAD, True)
        settled = self.settle(issue, memories)
        return settled if settled and not self.collides(settled, control) else None

    def vector_control(self, source: Source) -> dict[str, int]:
        """Return the fields of a VECTOR's control operand."""
        control = {
            "source": source, "source_width": self.member(Width), "pre": self.member(Pre),
            "multiplier": self.member(Multiplier), "post_bias": self.chance(0.25), "residual": self.chance(0.3),
            "saturate": self.member(isa.Saturate), "table": self.chance(0.25), "table_signed": self.chance(0.5),
            "destination": self.choose(*Destination, Destination.SCRATCHPAD), "destination_byte": self.chance(0.5),
            "reduce": self.choose(*Reduce, Reduce.NONE, Reduce.NONE), "reduce_register": self.integer(0, 3),
            "row_register": self.integer(0, 3), "factor_register": self.integer(0, 3),
            "row_sum": self.chance(0.4), "zero_shift": self.integer(0, 7)}
        can_pair = control["destination_byte"] or self.config.rows % 2 == 0
        control["nibble"] = control["destination"] == Destination.SCRATCHPAD and can_pair and self.chance(0.3)
        read = {control["row_register"]} if control["pre"] in (Pre.MINUS_ROW, Pre.MINUS_INDEX) else set()
        read |= {control["factor_register"]} if control["multiplier"] == Multiplier.ROW else set()
        control["residual"] &= control["multiplier"] != Multiplier.ELEMENT
        if control["reduce_register"] in read:
            control["reduce_register"] = self.choose(*(set(range(isa.ROW_REGISTERS)) - read))
        return control

    def multiplier(self) -> int:
        """Return a signed multiplier, mostly a large one."""
        return self.choose(1, -1) * self.integer(1 << 14, 65535) if self.chance(0.9) else self.integer(-65536, 65535)

    def shift(self, source: Source, control: dict[str, int]) -> int:
        """Return a shift that brings the source near the saturation's range, or any."""
        if self.chance(0.1):
            return self.integer(0, 63)
        small = control["saturate"] in (isa.Saturate.INT8, isa.Saturate.UINT8) or control["table"]
        typical = 5 if control["nibble"] else 60 if small else 6000
        wide = source != Source.SCRATCHPAD or control["source_width"] == Width.INT16
        scale = SCALE[source] if wide else 75.0
        exact = np.log2(40_000 * scale / typical)
        return int(min(max(round(exact) + self.integer(-1, 1), 0), isa.MAX_SHIFT))

    def collides(self, issue: Issue, control: dict[str, int]) -> bool:
        """Tell whether a VECTOR reads what it writes, or reads both sources from one bank."""
        found = accesses(resolve(issue), self.config)
        written = [each for each in found if each.write]
        read = [each for each in found if not each.write]
        if any(overlaps(one, other) for one in written for other in read):
            return True
        if control["source"] != Source.SCRATCHPAD or not isa.reads_residual(control):
            return False
        half = self.config.scratch_bank_depth
        banks = [{each.low // half, (each.high - 1) // half} for each in read if each.memory is Memory.SCRATCHPAD]
        return len(banks) == 2 and (banks[0] & banks[1] != set() or max(map(len, banks)) > 1)

    def row_operation(self) -> Issue:
        """Return a ROWOP."""
        control = isa.pack(isa.ROWOP_CONTROL, function=self.member(isa.RowFunction), source_register=self.integer(0, 3),
                           destination_register=self.integer(0, 3))
        factor = isa.pack(isa.ROWOP_FACTOR, numerator=self.integer(1 << 15, (1 << 16) - 1), shift=self.integer(20, 60))
        epsilon = self.rng.integers(0, 1 << self.integer(1, 32))
        return Issue("ROWOP", {"control": control, "rows": self.integer(0, self.config.rows + 2), "factor": factor,
                               "epsilon": int(epsilon)})

    def draw(self) -> list[Issue]:
        """Return the next instruction or instructions; never none."""
        while True:
            if self.tiles and (self.tiles > 5 or self.products > 2 or self.chance(0.75)):
                issue = self.drain()
            else:
                kind = self.choose(self.load, self.load, self.load, self.matmul, self.matmul, self.pass_rows,
                                   self.pass_rows, self.row_operation, self.store, self.store)
                issue = kind()
            if issue:
                return [issue]

    def finish(self) -> list[Issue]:
        """Return VECTORs that take the tiles still there."""
        issues = []
        while self.tiles:
            issue = self.drain()
            issues += [issue] if issue else []
        return issues
