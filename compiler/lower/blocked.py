"""Products whose rows are steps of a blocked tensor: LOAD turns channels into rows."""

from dataclasses import replace

from phonolith.compiler.counts import part
from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.lower.product import Product
from phonolith.compiler.lower.product_schedule import ProductSchedule
from phonolith.compiler.pack import tile_words
from phonolith.compiler.views import Block, BlockedView
from phonolith.hw.config import MachineConfig
from phonolith.hw.isa import Target


def blocked_product(ctx: Lowering, x: BlockedView, product: Product) -> ProductSchedule:
    """Return the schedule of a product on the steps of ``x``; ``product.a`` tells only how many there are."""
    config, words = ctx.config, tile_words(product.k, ctx.config)
    size = turned_steps(config)

    def load_rows(block: Block, base: int) -> None:
        for start in range(0, block.inner_count, config.rows):
            step = block.inner + start
            most = min(size, block.inner_count - start)
            ctx.emitter.load(
                target=Target.ACTIVATION, transpose=True, base=base + start // config.rows * words, row_words=words,
                address=x.address + step // x.block * x.strides[0] + step % x.block, inner_count=product.k,
                inner_stride=x.block, segment_bytes=part(x.shape[0], step, most))

    return ProductSchedule(ctx, replace(
        product, load_rows=load_rows, row_beats=-(-product.k // size),
        most_rows=size if size < config.rows else product.most_rows))


def turned_steps(config: MachineConfig) -> int:
    """Return the rows of a tile: as many steps of a block as a LOAD can turn, and so that blocks divide into tiles."""
    return next(size for size in range(min(config.rows, config.dma_bytes), 0, -1) if config.word_bytes % size == 0)
