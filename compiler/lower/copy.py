"""Copies through the scratchpad, for what address arithmetic cannot express."""

from phonolith.compiler.lower.context import Lowering
from phonolith.compiler.tile import row_blocks
from phonolith.compiler.views import Rows, View, common_rows
from phonolith.hw.isa import Target


def packed_input(ctx: Lowering, x: View, frame_rows: int, frame_bytes: int) -> View:
    """Return ``x``, or a copy, such that its rows are contiguous and the frame around it is zero."""
    if x.is_packed() and x.frame_rows >= frame_rows and x.frame_bytes >= frame_bytes:
        return x
    copy = ctx.temporary(x, frame_rows, frame_bytes)
    copy_tensor(ctx, x, copy)
    return copy


def copy_tensor(ctx: Lowering, source: View, target: View) -> None:
    """Copy between views of one shape."""
    for rows, stored in common_rows(source, target):
        copy_rows(ctx, rows, stored)


def copy_rows(ctx: Lowering, source: Rows, target: Rows) -> None:
    """Copy rows in pieces that fit half a scratchpad bank."""
    room = ctx.config.scratch_bank_depth // 2
    piece = room * ctx.config.scratch_word_bytes
    for start in range(0, source.row_bytes, piece):
        size = min(piece, source.row_bytes - start)
        words = -(-size // ctx.config.scratch_word_bytes)
        most = room // words
        for block in row_blocks(int(source.outer_count), int(source.inner_count), most, most,
                                    ctx.config.rows):
            with ctx.take(ctx.operands, block.rows * words) as base:
                ctx.load_rows(Target.SCRATCHPAD, source.columns(start, size).block(block), base, words)
                ctx.store_rows(target.columns(start, size).block(block), base, words)
