"""How a matrix product is cut: row blocks, column groups, and the order of the steps.

One operand stays in its memory (in groups as large as fit) while the other streams through; the order with less
DRAM traffic wins. See docs/isa.md for what a tile is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from phonolith.compiler.views import Block
from phonolith.hw.config import MachineConfig

# Array cycles a step should last, so that instruction overhead and latencies hide behind it.
STEP_CYCLES = 512
# A smaller block is worth this fraction of the array's rows: the first results come earlier.
FILLED_ENOUGH = 0.98


@dataclass(frozen=True)
class ProductSize:
    """What the tiling depends on: rows (two loops), columns, inner dimension, and the widths of results."""

    outer: int
    inner: int
    columns: int
    k: int
    tile_columns: int
    byte_results: bool
    has_parameters: bool
    most_rows: int

    @property
    def tiles(self) -> int:
        """Column tiles."""
        return -(-self.columns // self.tile_columns)


@dataclass(frozen=True)
class Step:
    """One MATMUL: a row block times column tiles; groups say what is on chip together."""

    row_group: tuple[Block, ...]
    block: Block
    column_group: range
    tiles: range


@dataclass(frozen=True)
class Plan:
    """Groups of row blocks and of column tiles; the outermost groups stay while the others stream."""

    row_groups: tuple[tuple[Block, ...], ...]
    column_groups: tuple[range, ...]
    rows_stay: bool
    step_tiles: int
    first_small: bool

    def steps(self) -> Iterator[Step]:
        """Yield the steps in order."""
        if self.rows_stay:
            pairs = [(rows, columns) for rows in self.row_groups for columns in self.column_groups]
        else:
            pairs = [(rows, columns) for columns in self.column_groups for rows in self.row_groups]
        for rows, columns in pairs:
            small = self.first_small and not self.rows_stay and rows is self.row_groups[0]
            for block in rows:
                yield from (Step(rows, block, columns, tiles)
                            for tiles in pieces(columns, self.step_tiles, small))


def pieces(tiles: range, most: int, small: bool) -> Iterator[range]:
    """Cut a range into pieces of at most ``most``; ``small``: 1, 1, 2, 4, ... so that work can start early."""
    start, size = tiles.start, 1 if small else most
    while start < tiles.stop:
        stop = min(start + min(size, most), tiles.stop)
        yield range(start, stop)
        size = stop - tiles.start if small else most
        start = stop


def balanced(count: int, most: int) -> list[range]:
    """Cut ``range(count)`` into the fewest nearly equal ranges of at most ``most``."""
    parts = -(-count // most)
    edges = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def row_blocks(outer: int, inner: int, target: int, most: int, rows: int) -> list[Block]:
    """Cut two row loops into blocks of about ``target`` and at most ``most`` rows.

    Blocks hold whole inner loops where these fit: the fewest that fill the array's ``rows`` nearly as well as any.
    """
    if outer == 1 or inner > most:
        size = min(target, most)
        return [Block(o, 1, i, min(size, inner - i)) for o in range(outer) for i in range(0, inner, size)]
    limit = max(1, min(most // inner, outer))
    sizes = range(min(-(-target // inner), limit), limit + 1)
    fullest = max(filled(g * inner, rows) for g in sizes)
    best = next(g for g in sizes if filled(g * inner, rows) >= FILLED_ENOUGH * fullest)
    return [Block(o, min(best, outer - o), 0, inner) for o in range(0, outer, best)]


def filled(count: int, rows: int) -> float:
    """Return the fraction of array rows that ``count`` rows use."""
    return count / (-(-count // rows) * rows)


def plan_product(size: ProductSize, config: MachineConfig, first_small: bool) -> Plan:
    """Choose blocks, groups and order with the least DRAM traffic.

    ``first_small`` starts on small pieces; it is of no use when the rows arrive last anyway. The inner dimension
    must fit both operand memories (the caller checks).
    """
    words = -(-size.k // config.word_bytes)
    row_room = config.activation_depth // words
    column_room = config.weight_depth // words
    if size.has_parameters:
        column_room = min(column_room, config.parameter_depth)
    blocks = choose_blocks(size, config, row_room, column_room)
    step_tiles = choose_step_tiles(size, config, max(block.rows for block in blocks))
    resident_columns = balanced(size.tiles, column_room)
    resident_rows = group_blocks(blocks, row_room, config.rows)
    weight_bytes = size.tiles * config.columns * words * config.word_bytes
    row_bytes = size.outer * size.inner * size.k
    rows_stay = (weight_bytes * len(resident_rows) + row_bytes
                 < weight_bytes + row_bytes * len(resident_columns))
    if not rows_stay:
        return Plan(tuple((b,) for b in blocks), tuple(resident_columns), False, step_tiles, first_small)
    streamed = min(step_tiles, max(1, column_room // 3))
    return Plan(tuple(resident_rows), tuple(pieces(range(size.tiles), streamed, True)), True, step_tiles,
                first_small)


def choose_blocks(size: ProductSize, config: MachineConfig, row_room: int, column_room: int) -> list[Block]:
    """Return row blocks that last about STEP_CYCLES and leave room for a second one."""
    scratch_rows = config.scratch_bank_depth // 2
    most = min(max(row_room // 2, 1) * config.rows, scratch_rows, size.most_rows)
    row_tile_cycles = max(size.k, config.rows) * min(size.tiles, column_room)
    target = min(-(-STEP_CYCLES // row_tile_cycles) * config.rows, most)
    if target > config.rows:
        target -= target % config.rows
    return row_blocks(size.outer, size.inner, target, most, config.rows)


def choose_step_tiles(size: ProductSize, config: MachineConfig, rows: int) -> int:
    """Return the column tiles of one step whose results fit half a scratchpad bank."""
    if size.tile_columns < config.columns:
        return 1
    words = config.scratch_bank_depth // 2 // rows
    return max(1, 2 * words if size.byte_results else words)


def group_blocks(blocks: list[Block], room: int, rows: int) -> list[tuple[Block, ...]]:
    """Collect consecutive blocks into groups of at most ``room`` row tiles."""
    groups: list[list[Block]] = []
    used = 0
    for block in blocks:
        tiles = -(-block.rows // rows)
        if not groups or used + tiles > room:
            groups.append([])
            used = 0
        groups[-1].append(block)
        used += tiles
    return [tuple(group) for group in groups]
