"""Matrix products: the one schedule behind linear, conv2d and matmul."""

from collections.abc import Callable
from dataclasses import dataclass

from phonolith.compiler.allocate import Region, Ring
from phonolith.compiler.lower.context import SATURATE, Lowering
from phonolith.compiler.pack import tile_words
from phonolith.compiler.tile import ProductSize, Step, plan_product
from phonolith.compiler.views import Block, Rows
from phonolith.hw.errors import PhonolithError
from phonolith.hw.isa import Destination, Multiplier, Pre, Source, Target

LoadColumns = Callable[[range, int], None]
Follow = Callable[[Block, int, int], None]
PARAMETER_BYTES = 8


@dataclass(frozen=True)
class Product:
    """``y = saturate(requantize(a b + bias) (+ residual))`` on rows in DRAM.

    ``load_columns(tiles, base)`` emits the LOADs of column tiles to weight word ``base``; a tile holds
    ``tile_columns`` columns. ``parameters`` is the DRAM address of 8 bytes per column, or None: then
    ``factor`` is (multiplier, shift), or ``prepare(rows)`` leaves row factors of a block of at most
    ``most_rows`` rows in ``factor_register``. ``rows_ready``: a is there from the start, not computed before.
    """

    a: Rows
    a_unsigned: bool
    k: int
    columns: int
    tile_columns: int
    load_columns: LoadColumns
    y: Rows
    dtype: str
    parameters: int | None = None
    factor: tuple[int, int] = (0, 0)
    residual: Rows | None = None
    prepare: Callable[[Rows], None] | None = None
    factor_register: int = 0
    most_rows: int | None = None
    rows_ready: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes per result."""
        return 2 if self.dtype == "int16" else 1

    @property
    def multiplier(self) -> Multiplier:
        """Where the requantizer's factor comes from."""
        if self.parameters is not None:
            return Multiplier.COLUMN
        return Multiplier.ROW if self.prepare else Multiplier.IMMEDIATE

    def column_range(self, tiles: range) -> range:
        """Return the columns of some tiles."""
        return range(tiles.start * self.tile_columns, min(tiles.stop * self.tile_columns, self.columns))


@dataclass(frozen=True)
class Loaded:
    """Where the operands of a step are."""

    a_base: int
    w_base: int
    residual: Region | None


class Resident:
    """What of one operand is on chip: a region for the current group, loaded piece by piece."""

    def __init__(self, ctx: Lowering, ring: Ring):
        self.ctx = ctx
        self.ring = ring
        self.region: Region | None = None
        self.group: object = None
        self.loaded: set = set()

    def enter(self, group: object, words: int) -> int:
        """Make room for ``group``, giving up the previous one; return its base."""
        if self.region is None or self.group is not group:
            self.leave()
            self.region = self.ctx.hold(self.ring, words)
            self.group = group
        return self.region.low

    def leave(self) -> None:
        """Give up the region."""
        if self.region is not None:
            self.ring.release(self.region)
        self.region = None
        self.loaded = set()

    def is_new(self, part: object) -> bool:
        """Tell whether a part has not been loaded yet, and remember it."""
        known = part in self.loaded
        self.loaded.add(part)
        return not known


class ProductSchedule:
    """Emits one product."""

    def __init__(self, ctx: Lowering, product: Product):
        self.ctx = ctx
        self.product = product
        self.words = tile_words(product.k, ctx.config)
        self.rows = Resident(ctx, ctx.activation)
        self.weights = Resident(ctx, ctx.weight)
        self.parameters = Resident(ctx, ctx.parameter)
        self.check_room()
        size = ProductSize(
            product.a.outer_count, product.a.inner_count, product.columns, product.k, product.tile_columns,
            product.itemsize == 1, product.parameters is not None, product.most_rows or product.a.count)
        self.plan = plan_product(size, ctx.config, first_small=product.rows_ready)

    def emit(self, follow: Follow | None = None) -> None:
        """Emit all steps; the operands of each are loaded while the array is busy with the one before.

        ``follow(block, base, pitch)`` may emit what reads the results of a block while they are in the scratchpad.
        """
        steps = list(self.plan.steps())
        loaded = self.load(steps[0])
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            self.emit_step(step, loaded, follow)
            if following:
                loaded = self.load(following)
            self.ctx.bus_is_free()
        for resident in (self.rows, self.weights, self.parameters):
            resident.leave()

    @property
    def whole_rows(self) -> bool:
        """Whether every step computes all columns."""
        return all(len(step.tiles) == self.plan.column_groups[-1].stop for step in self.plan.steps())

    @property
    def keeps_columns(self) -> bool:
        """Whether all columns stay on chip."""
        return len(self.plan.column_groups) == 1

    @property
    def parameter_words(self) -> int:
        """Parameter words in use at a time, at most."""
        return max(map(len, self.plan.column_groups)) if self.product.parameters is not None else 0

    def prefetch(self, tiles: int) -> bool:
        """Load some of the weights ahead of time; tell whether there was anything left to load."""
        group = self.plan.column_groups[0]
        missing = [tile for tile in group if tile not in self.weights.loaded]
        if missing:
            self.load_columns(group, range(missing[0], min(missing[0] + tiles, group.stop)))
        return bool(missing)

    @property
    def tile_bytes(self) -> int:
        """Bytes of a column tile's weights."""
        return self.words * self.ctx.config.columns * self.ctx.config.word_bytes

    @property
    def weight_words(self) -> int:
        """Weight words in use at a time, at most."""
        return max(map(len, self.plan.column_groups)) * self.words

    def check_room(self) -> None:
        """Refuse an inner dimension that does not fit the operand memories."""
        for ring in (self.ctx.activation, self.ctx.weight):
            if self.words > ring.words:
                raise PhonolithError(
                    "does-not-fit",
                    f"{self.ctx.user}: an inner dimension of {self.product.k} needs {self.words} words of each "
                    f"{ring.name} bank; {ring.words} are available.",
                    f"Configure a larger {ring.name} memory, or split the operator.")

    def load(self, step: Step) -> Loaded:
        """Load what a step needs and is not there yet, in the order in which it is needed."""
        group, p, residual = step.column_group, self.product, None
        base = self.load_columns(group, step.tiles if p.rows_ready else group)
        w_base = base + (step.tiles.start - group.start) * self.words
        a_base = self.enter_rows(step)
        self.load_parameters(group)
        if p.residual:
            columns = p.column_range(step.tiles)
            residual = self.ctx.hold(self.ctx.operands, step.block.rows * len(step.tiles))
            wanted = p.residual.columns(columns.start * 2, len(columns) * 2).block(step.block)
            self.ctx.load_rows(Target.SCRATCHPAD, wanted, residual.low, len(step.tiles))
        return Loaded(a_base, w_base, residual)

    def load_columns(self, group: range, wanted: range) -> int:
        """Load the wanted tiles of a column group unless they are there; return the group's base."""
        base = self.weights.enter(group, len(group) * self.words)
        missing = [tile for tile in wanted if self.weights.is_new(tile)]
        if missing:
            tiles = range(missing[0], missing[-1] + 1)
            self.product.load_columns(tiles, base + (tiles.start - group.start) * self.words)
        return base

    def enter_rows(self, step: Step) -> int:
        """Load the rows of a step if they are not there; return their base."""
        offsets, total = {}, 0
        for block in step.row_group:
            offsets[block] = total
            total += self.row_tiles(block) * self.words
        base = self.rows.enter(step.row_group, total) + offsets[step.block]
        if self.rows.is_new(step.block):
            self.ctx.load_rows(Target.ACTIVATION, self.product.a.block(step.block), base, self.words)
        return base

    def load_parameters(self, group: range) -> None:
        """Load the parameters of a column group unless they are there; VECTOR needs them last."""
        p = self.product
        if p.parameters is None:
            return
        base = self.parameters.enter(group, len(group))
        if self.parameters.is_new(group):
            columns = p.column_range(group)
            self.ctx.load_block(Target.PARAMETER, p.parameters + columns.start * PARAMETER_BYTES,
                                len(columns) * PARAMETER_BYTES, base)

    def row_tiles(self, block: Block) -> int:
        """Return the row tiles of a block."""
        return -(-block.rows // self.ctx.config.rows)

    def emit_step(self, step: Step, loaded: Loaded, follow: Follow | None) -> None:
        """Emit MATMUL, VECTOR and STORE of a step, with the row factors in front."""
        p, ctx, rows = self.product, self.ctx, step.block.rows
        columns = p.column_range(step.tiles)
        pitch = ctx.scratch_words(len(columns), p.itemsize)
        if p.prepare:
            p.prepare(p.a.block(step.block))
        ctx.emitter.matmul(
            a_base=loaded.a_base, a_tile_words=self.words, w_base=loaded.w_base, w_tile_words=self.words,
            row_tiles=self.row_tiles(step.block), column_tiles=len(step.tiles), k=p.k, a_unsigned=p.a_unsigned)
        with ctx.take(ctx.results, rows * pitch) as result:
            self.emit_vector(step, len(columns), loaded.residual.low if loaded.residual else 0, result, pitch)
            if loaded.residual:
                ctx.operands.release(loaded.residual)
            stored = p.y.columns(columns.start * p.itemsize, len(columns) * p.itemsize)
            ctx.store_rows(stored.block(step.block), result, pitch)
            if follow:
                follow(step.block, result, pitch)

    def emit_vector(self, step: Step, columns: int, residual: int, result: int, pitch: int) -> None:
        """Emit the VECTOR that takes a step's tiles."""
        p = self.product
        with_parameters = p.parameters is not None
        parameter_base = self.parameters.region.low if self.parameters.region else 0
        self.ctx.emitter.vector(
            rows=step.block.rows, columns=columns, source=Source.DRAIN,
            pre=Pre.BIAS if with_parameters else Pre.NONE, multiplier=p.multiplier, factor=p.factor,
            parameter_base=parameter_base + step.tiles.start - step.column_group.start if with_parameters else 0,
            factor_register=p.factor_register, residual=p.residual is not None, residual_base=residual,
            residual_pitch=len(step.tiles), saturate=SATURATE[p.dtype], destination=Destination.SCRATCHPAD,
            destination_byte=p.itemsize == 1, destination_base=result, destination_pitch=pitch)
