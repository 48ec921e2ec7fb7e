"""What of a product's operands is on chip, and where."""

from collections.abc import Callable, Iterator

from phonolith.compiler.allocate import Region, Ring
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.tile import Piece

LoadColumns = Callable[[range, int], None]


class Shelf:
    """What of one operand is on chip: each piece in a place of its own, or all of them together."""

    def __init__(self, ctx: Lowering, ring: Ring, together: bool):
        self.ctx = ctx
        self.ring = ring
        self.together = together
        self.region: Region | None = None
        self.regions: dict[Piece, Region] = {}
        self.loaded: set[Piece] = set()
        self.used = False

    def base(self, piece: Piece, offset: int) -> int:
        """Return the first word of a piece that is on chip; ``offset``: its distance from the first one."""
        region = self.region if self.together else self.regions[piece]
        assert region is not None
        return region.low + (offset if self.together else 0)

    def enter(self, piece: Piece, words: int, total: int) -> bool:
        """Make room for a piece, or for all of them at the first; tell whether it has to be loaded."""
        if piece in self.loaded:
            return False
        if not self.together and not self.used and not self.ring.live:
            self.ring.rewind()
        self.used = True
        self.loaded.add(piece)
        if not self.together:
            self.regions[piece] = self.ctx.hold(self.ring, words)
        elif self.region is None:
            self.region = self.ctx.hold(self.ring, total)
        return True

    def drop(self, piece: Piece) -> None:
        """Give up a piece, unless all stay."""
        if not self.together:
            self.ring.release(self.regions.pop(piece))
            self.loaded.discard(piece)

    def leave(self) -> None:
        """Give up everything."""
        for region in (*self.regions.values(), *([self.region] if self.region else [])):
            self.ring.release(region)
        self.region, self.regions, self.loaded = None, {}, set()


class Weights:
    """Column tiles on chip: each piece in a place of its own, or all of them, in one region or two.

    The first region holds what was loaded ahead of time: tiles below ``first``.

    Parameters
    ----------
    ctx : Lowering
    load_columns : callable
        Emits the LOADs of column tiles to a weight word.
    tiles, words : int
        Tiles in all, and words of a tile.
    together : bool
    """

    def __init__(self, ctx: Lowering, load_columns: LoadColumns, tiles: int, words: int, together: bool):
        self.ctx = ctx
        self.load_columns = load_columns
        self.tiles = tiles
        self.words = words
        self.together = together
        self.pieces = Shelf(ctx, ctx.weight, False)
        self.first = tiles
        self.regions: dict[int, Region] = {}
        self.loaded: set[int] = set()

    def load(self, tiles: range) -> None:
        """Load column tiles unless they are there."""
        if not self.together:
            if self.pieces.enter(tiles, len(tiles) * self.words, 0):
                self.load_columns(tiles, self.pieces.base(tiles, 0))
            return
        missing = [tile for tile in tiles if tile not in self.loaded]
        if missing:
            self.keep(range(missing[0], missing[-1] + 1))

    def keep(self, tiles: range) -> None:
        """Load column tiles that all stay."""
        self.loaded.update(tiles)
        for run, base in self.runs(tiles):
            self.load_columns(run, base)

    def runs(self, tiles: range) -> Iterator[tuple[range, int]]:
        """Yield the parts of some tiles on chip that lie one behind the other, and the first word of each."""
        if not self.together:
            yield tiles, self.pieces.base(tiles, 0)
            return
        for part in (range(self.first), range(self.first, self.tiles)):
            run = range(max(part.start, tiles.start), min(part.stop, tiles.stop))
            if run:
                yield run, self.region(part).low + (run.start - part.start) * self.words

    def region(self, part: range) -> Region:
        """Return where a part of all tiles is, or make room for it."""
        if part.start not in self.regions:
            self.regions[part.start] = self.ctx.hold(self.ctx.weight, len(part) * self.words)
        return self.regions[part.start]

    def drop(self, tiles: range) -> None:
        """Give up a piece, unless all stay."""
        if not self.together:
            self.pieces.drop(tiles)

    def leave(self) -> None:
        """Give up everything."""
        self.pieces.leave()
        for region in self.regions.values():
            self.ctx.weight.release(region)
        self.first, self.regions, self.loaded = self.tiles, {}, set()
