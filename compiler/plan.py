"""Choice of a product's tiling: every candidate is timed by a model of bus, array, vector unit and stores.

The model follows a program's loads and steps one by one: bus, array, vector unit and stores are each busy with one
thing at a time, in order; a load waits for room, a step for its operands (or follows the weights into the memory),
results for their step. It is exact about what they do and coarse about latencies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from phonolith.compiler.allocate import Region, Ring
from phonolith.compiler.costs import drain_cycles, program_beats, tile_cycles
from phonolith.compiler.pack import tile_words
from phonolith.compiler.tile import (
    Action,
    Drop,
    Load,
    Order,
    Piece,
    ProductSize,
    Step,
    grouped,
    growing,
    row_pieces,
)
from phonolith.compiler.views import Block
from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import BY_MNEMONIC

WORDS = {name: 1 + len(BY_MNEMONIC[name].operands) for name in ("LOAD", "MATMUL", "VECTOR", "STORE")}
PARAMETER_BYTES = 8
# Cycles of the sequencer before the first instruction, besides the latency of fetching it.
START_CYCLES = 10
# Cycles from a complete instruction to its first address on the bus, and from a word of DRAM to the array.
ISSUE_CYCLES = 8
ARRIVAL_CYCLES = 6
# Cycles from the array's last operands to the first row of results in the scratchpad, besides C.
DRAIN_CYCLES = 12
WORDS_PER_CYCLE = 4
# Cycles from a VECTOR's last row to the next one's first, unless that follows without a pause: plans assume the worse.
VECTOR_CYCLES = 6
# Larger pieces than this many tiles save nothing.
MOST_TILES = 64


@dataclass(frozen=True)
class Plan:
    """What is done for one product.

    Attributes
    ----------
    actions : tuple of Load, Drop, Step
    rows_stay : bool
        Rows are the stationary operand.
    rows_together, columns_together : bool
        The operand is on chip as a whole.
    sliced : Block or None
        The rows that are loaded word by word, so that the array can follow.
    cycles : int
        Predicted, from the start of a program to its end.
    busy : dict
        Cycles for which each of array, bus (reads), vector and store is busy.
    words : int
        Of the program.
    description : str
    """

    actions: tuple[Action, ...]
    rows_stay: bool
    rows_together: bool
    columns_together: bool
    sliced: Block | None
    cycles: int
    busy: dict[str, int]
    words: int
    description: str

    def steps(self) -> Iterator[Step]:
        """Yield the steps in order."""
        yield from (action for action in self.actions if isinstance(action, Step))

    def column_pieces(self) -> list[range]:
        """Return the pieces of columns in the order of their first load."""
        return list(dict.fromkeys(action.piece for action in self.actions
                                  if isinstance(action, Load) and isinstance(action.piece, range)))


class Costs:
    """Words, beats and cycles of pieces and steps of one product on one machine."""

    def __init__(self, size: ProductSize, config: MachineConfig):
        self.size = size
        self.config = config
        self.row_words, self.column_words = tile_words(size.k, config), tile_words(size.steps, config)
        self.sums = len(size.sums)
        self.interval = tile_cycles(size.sums, config)
        self.drain_bound = max(size.sums) <= drain_cycles(config)
        self.tile_beats = config.columns * self.column_words * config.word_bytes // config.dma_bytes
        # Cycles from one burst to the next when latency bounds them; every row, every slice of one, is a burst or more.
        self.read_cycles = (config.dram_latency + ISSUE_CYCLES) / config.reads_outstanding
        self.write_cycles = (config.dram_latency + ISSUE_CYCLES) / config.writes_outstanding

    def tiles(self, piece: Piece) -> int:
        """Return the array tiles along a piece."""
        return len(piece) if isinstance(piece, range) else -(-piece.rows // self.config.rows)

    def beats(self, piece: Piece) -> int:
        """Return the cycles of the bus to load a piece."""
        if isinstance(piece, Block):
            return piece.rows * max(self.size.row_beats, round(self.size.segments * self.read_cycles))
        if not self.size.follows:
            row_beats = -(-self.size.steps // self.config.dma_bytes)
            return round(self.size.column_count(piece) * max(row_beats, self.read_cycles))
        columns = self.size.column_count(piece)
        parameters = columns * self.sums * PARAMETER_BYTES if self.size.has_parameters else 0
        return len(piece) * self.tile_beats + -(-parameters // self.config.dma_bytes)

    def sliced(self, rows: list[Block]) -> Block | None:
        """Return the first of row pieces that is one whole tile, if it can be loaded in slices."""
        whole = (block for block in rows if block.rows == self.config.rows)
        return next(whole, None) if self.size.sliceable else None

    def weight(self, piece: Piece) -> tuple[int, int]:
        """Return the tiles of a piece and the cycles after which it can be there."""
        made = piece.rows * self.size.lead if isinstance(piece, Block) else 0
        return self.tiles(piece), max(self.beats(piece), made)

    def array_cycles(self, step: Step) -> int:
        """Return the cycles in which the array multiplies."""
        wait = VECTOR_CYCLES if self.drain_bound else 0
        return self.tiles(step.block) * len(step.tiles) * self.interval + wait

    def store_beats(self, step: Step) -> int:
        """Return the cycles of the bus to store a step's results."""
        itemsize = 1 if self.size.byte_results else 2
        row = self.size.column_count(step.tiles) * itemsize
        aligned = self.size.columns * itemsize % self.config.dma_bytes == 0
        beats = -(-row // self.config.dma_bytes) + (not aligned)
        return round(step.block.rows * max(beats, self.write_cycles))

    def scratch_words(self, rows: int, tiles: int) -> int:
        """Return the scratchpad words of ``rows`` rows of results."""
        return rows * (-(-tiles // 2) if self.size.byte_results else tiles)


class Timeline:
    """When each unit is free, as the actions of a candidate are done one after the other."""

    def __init__(self, costs: Costs, order: Order, sliced: Block | None, rings: dict[bool, Ring]):
        self.costs = costs
        self.sliced = sliced
        self.rings = rings
        self.order = order
        self.latency = costs.config.dram_latency
        self.words = self.lead = 0
        self.decoded = self.bus = self.array = self.vector = self.store = 0
        self.busy: dict[str, int] = {"array": 0, "bus": 0, "vector": 0, "store": 0}
        self.places: dict[Piece, Region] = {}
        self.arrivals: dict[Piece, tuple[int, int]] = {}
        self.last_use: dict[Piece, int] = {}
        self.released: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
        # Weights that stay are loaded while the operator before is still busy.
        self.prefetched = costs.size.follows and not costs.size.rows_ready and False not in rings

    def decode(self, words: int) -> None:
        """Let the sequencer and the program's way over the bus take their time."""
        self.decoded += words
        self.words += words
        beats = program_beats(words, self.costs.config)
        self.bus += beats
        self.busy["bus"] += beats

    def run(self) -> int:
        """Do all actions; return when the last result is in DRAM."""
        self.decoded = self.latency + START_CYCLES
        for action in self.order.actions():
            if isinstance(action, Load):
                self.load(action.piece)
            elif isinstance(action, Drop):
                self.drop(action.piece)
            else:
                self.step(action)
        return self.store + self.latency + ISSUE_CYCLES

    def load(self, piece: Piece) -> None:
        """Bring a piece, when there is room."""
        is_rows = isinstance(piece, Block)
        self.decode(WORDS["LOAD"] * (1 if is_rows or not self.costs.size.has_parameters else 2))
        if self.prefetched and not is_rows:
            self.arrivals[piece] = (0, 0)
            return
        room = 0
        if is_rows in self.rings:
            words = self.costs.row_words if is_rows else self.costs.column_words
            region = self.rings[is_rows].take(self.costs.tiles(piece) * words, "a candidate")
            self.places[piece] = region
            room = max((time for low, high, time in self.released[is_rows] if low < region.high and region.low < high),
                       default=0)
        if is_rows:
            self.lead += piece.rows * self.costs.size.lead
            room = max(room, self.lead + self.latency + ISSUE_CYCLES if self.costs.size.lead else 0)
        start = max(self.bus, max(self.decoded + ISSUE_CYCLES, room) + self.latency + ARRIVAL_CYCLES)
        beats = self.costs.beats(piece)
        self.busy["bus"] += beats
        self.bus = start + (round(beats * max(1.0, self.costs.read_cycles)) if piece == self.sliced else beats)
        self.arrivals[piece] = (start, self.bus)

    def drop(self, piece: Piece) -> None:
        """Give up a piece's place."""
        region = self.places.pop(piece, None)
        if region is not None:
            is_rows = isinstance(piece, Block)
            self.rings[is_rows].release(region)
            self.released[is_rows].append((region.low, region.high, self.last_use[piece]))

    def step(self, step: Step) -> None:
        """Multiply, requantize, store."""
        costs, config = self.costs, self.costs.config
        self.decode(WORDS["MATMUL"] + WORDS["VECTOR"] + WORDS["STORE"])
        columns_begun, columns_there = self.arrivals[step.tiles]
        rows_begun, rows_there = self.arrivals[step.block]
        cycles = costs.array_cycles(step)
        start = max(self.array, self.decoded - WORDS["VECTOR"] - WORDS["STORE"],
                    rows_begun if step.block == self.sliced else rows_there,
                    columns_begun if costs.size.follows else columns_there)
        last_tiles = (costs.tiles(step.block) - 1) * len(step.tiles) * costs.interval
        self.array = max(start + cycles, columns_there + last_tiles + 1, rows_there + 1)
        self.busy["array"] += cycles
        rows = len(step.tiles) * step.block.rows * costs.sums
        self.vector = max(self.vector + rows, self.array + config.columns + DRAIN_CYCLES + config.rows)
        self.busy["vector"] += rows
        beats = costs.store_beats(step)
        self.store = max(self.store, self.vector + ISSUE_CYCLES) + beats
        self.busy["store"] += beats
        self.last_use[step.tiles] = self.last_use[step.block] = self.array


@lru_cache(maxsize=512)
def plan_product(size: ProductSize, config: MachineConfig) -> Plan:
    """Return the plan with the least predicted cycles.

    The inner dimension must fit both operand memories (the caller checks).
    """
    return min(plans(size, config), key=lambda plan: price(plan, size))


def plans(size: ProductSize, config: MachineConfig) -> Iterator[Plan]:
    """Yield the plans of all candidates that fit the memories."""
    for order, sliced, description in candidates(size, config):
        plan = timed(order, sliced, description, size, config)
        if plan:
            yield plan


def ranked(size: ProductSize, config: MachineConfig) -> list[Plan]:
    """Return the plans of all candidates that fit, each once, the one of :func:`plan_product` first."""
    distinct: dict[tuple, Plan] = {}
    for plan in sorted(plans(size, config), key=lambda plan: price(plan, size)):
        distinct.setdefault((plan.actions, plan.sliced), plan)
    return list(distinct.values())


def price(plan: Plan, size: ProductSize) -> float:
    """Return what a plan costs, in cycles.

    Between other operators, the words of its program use a bus and a sequencer that these want too.
    """
    return plan.cycles + (0 if size.rows_ready else plan.words / WORDS_PER_CYCLE)


def timed(order: Order, sliced: Block | None, description: str, size: ProductSize,
          config: MachineConfig) -> Plan | None:
    """Return the plan of an order with its time; None when it does not fit the memories."""
    costs = Costs(size, config)
    stationary_together, streamed_together = len(order.groups) == 1, order.all_stay
    together = {order.rows_stay: stationary_together, not order.rows_stay: streamed_together}
    depths = {True: config.activation_depth, False: column_room(size, costs, config) * costs.column_words}
    rings = {is_rows: Ring("memory", 0, depths[is_rows]) for is_rows, whole in together.items() if not whole}
    timeline = Timeline(costs, order, sliced, rings)
    try:
        cycles = timeline.run()
    except PhonolithError:
        return None
    return Plan(tuple(order.actions()), order.rows_stay, together[True], together[False], sliced, cycles, timeline.busy,
                timeline.words, description)


def column_room(size: ProductSize, costs: Costs, config: MachineConfig) -> int:
    """Return the column tiles that fit on chip with their parameters."""
    room = config.weight_depth // costs.column_words
    return min(room, config.parameter_depth // costs.sums) if size.has_parameters else room


def candidates(size: ProductSize, config: MachineConfig) -> Iterator[tuple[Order, Block | None, str]]:
    """Yield orders to choose from: either operand stationary, pieces of many sizes, small at first or not.

    With each come the rows to load in slices, and a description.
    """
    costs = Costs(size, config)
    rooms = {True: config.activation_depth // costs.row_words, False: column_room(size, costs, config)}
    for rows_most, tiles_most in piece_sizes(size, costs, config):
        for small in (True, False):
            rows = row_pieces(size, rows_most, small, config)
            columns = list(growing(size.tiles, tiles_most, small and size.rows_ready))
            for rows_stay in (True, False):
                order = make_order(rows, columns, rows_stay, rooms, size, costs)
                kind = "rows" if rows_stay else "columns"
                if order is None:
                    continue
                for sliced in {costs.sliced(rows) if small else None, None}:
                    yield order, sliced, (
                        f"{kind} stay, in {len(order.groups)} group(s); up to {rows_most} rows by {tiles_most} column "
                        f"tiles{', small first' if small else ''}{', the first tile in slices' if sliced else ''}")


def piece_sizes(size: ProductSize, costs: Costs, config: MachineConfig) -> Iterator[tuple[int, int]]:
    """Yield sizes of pieces (rows, column tiles) whose results leave room in the scratchpad for the next step's."""
    bank = config.scratch_bank_depth
    total = size.outer * size.inner
    tile_sizes = [1] if size.tile_columns < config.columns else doubling(1, min(size.tiles, MOST_TILES))
    smallest = min(config.rows, size.most_rows)
    whole = 2 * step_words(smallest, size.tiles, size, costs) <= bank and size.tiles <= column_room(size, costs, config)
    if not size.rows_ready and whole and len(tile_sizes) > 1:
        tile_sizes = [size.tiles]  # whole rows, which the operator behind may take from the scratchpad
    seen = set()
    for rows in doubling(smallest, smallest if size.has_residual else max(total, 1)):
        for tiles in tile_sizes:
            pair = (min(rows, size.most_rows), tiles)
            fits = 2 * step_words(*pair, size, costs) <= bank
            if (fits or pair == (smallest, 1)) and pair not in seen:
                seen.add(pair)
                yield pair


def step_words(rows: int, tiles: int, size: ProductSize, costs: Costs) -> int:
    """Return the words of a scratchpad bank that a step of some rows and column tiles takes."""
    return max(costs.scratch_words(rows, tiles), rows * tiles if size.has_residual else 0)


def doubling(first: int, most: int) -> list[int]:
    """Return first, 2 first, 4 first, ..., and the first of them that reaches ``most``, cut to it if first is below."""
    sizes = [first]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], max(most, first)) if first == 1 else 2 * sizes[-1])
    return sizes


def make_order(rows: list[Block], columns: list[range], rows_stay: bool, rooms: dict[bool, int], size: ProductSize,
               costs: Costs) -> Order | None:
    """Return the order of two lists of pieces; None when a piece does not fit."""
    stationary, streamed = (rows, columns) if rows_stay else (columns, rows)
    room, stream_room = rooms[rows_stay], rooms[not rows_stay]
    if max(map(costs.tiles, stationary)) > room or max(map(costs.tiles, streamed)) > stream_room:
        return None
    total = sum(map(costs.tiles, streamed))
    all_stay = total <= stream_room
    largest = max(map(costs.tiles, streamed))
    groups = tuple(grouped(stationary, room, costs.tiles))
    # Rows that are still being computed are loaded last.
    first = size.rows_ready == rows_stay
    return Order(groups, tuple(streamed), rows_stay, all_stay, first,
                 total if all_stay else max(stream_room - largest, largest), partial(Costs.weight, costs))
