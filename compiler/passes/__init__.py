"""Passes over the integer graph: pure functions from graph to graph."""

from collections.abc import Callable

from phonolith.compiler.ir import Graph
from phonolith.compiler.passes.check import check
from phonolith.compiler.passes.fuse_attention import fuse_attention
from phonolith.compiler.passes.fuse_residual import fuse_residual
from phonolith.compiler.passes.fuse_table import fuse_table
from phonolith.compiler.passes.prove_accumulators import prove_accumulators

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    check,  # refuse what docs/graph.md does not allow
    prove_accumulators,  # no sum of products can leave int32
    fuse_residual,  # linear + add -> linear with residual
    fuse_table,  # linear or convolution + table -> the same with a table
    fuse_attention,  # matmul + softmax_exp + matmul -> attention
    check,  # a pass that breaks a rule must not reach code generation
)


def lower_graph(graph: Graph, observe: Callable[[str, Graph, Graph], None] | None = None) -> Graph:
    """Return ``graph`` after all passes.

    ``observe`` is called with (pass name, graph before, graph after); tests use it to check that every
    pass keeps the bits. Raises the PhonolithErrors of the passes.
    """
    for run in PASSES:
        before, graph = graph, run(graph)
        if observe is not None:
            observe(run.__name__, before, graph)
    return graph
