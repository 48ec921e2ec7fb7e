"""Why products are tiled as they are: roofline, candidates and alternatives of every plan."""

from collections import Counter

from phonolith.compiler.costs import drain_cycles
from phonolith.compiler.ir import Graph
from phonolith.compiler.passes import lower_graph
from phonolith.compiler.pipeline import emit
from phonolith.compiler.plan import Plan, ranked
from phonolith.compiler.shapes import Shape, infer_shapes
from phonolith.compiler.tile import ProductSize
from phonolith.hw.config import MachineConfig

# So many of the next best plans are told, besides the best with the other operand stationary.
NEXT_BEST = 2


def explain(graph: Graph, shapes: dict[str, Shape], config: MachineConfig) -> list[dict]:
    """Return one dict for every product that was planned, in program order; equal products of a node count as one.

    Parameters
    ----------
    graph : Graph
        Lowered, as for :func:`phonolith.compiler.pipeline.generate`.

    Returns
    -------
    list of dict
        ``operator``, ``count`` (equal products, one per head), ``m``, ``k``, ``n`` and what :func:`explain_product`
        returns. Attention whose scores stay on chip follows a pipeline of its own and is not among them.
    """
    products = Counter(emit(graph, shapes, config).planned)
    return [{"operator": name, "count": count, "m": size.outer * size.inner, "k": size.k, "n": size.columns,
             **explain_product(size, config)} for (name, size), count in products.items()]


def explain_model(graph: Graph, config: MachineConfig, frames: int) -> list[dict]:
    """Return :func:`explain` of a quantized model and inputs of ``frames`` time steps."""
    lowered = lower_graph(graph)
    return explain(lowered, infer_shapes(lowered, frames), config)


def explain_product(size: ProductSize, config: MachineConfig) -> dict:
    """Return why a product is tiled as it is.

    Returns
    -------
    dict
        ``plan``; ``predicted_cycles``, of a program of this product alone; ``program_words``; ``roofline``: cycles for
        which the plan needs array, bus (reads), vector unit and stores at least; ``bound``: which of them needs most,
        "drain" for an array that waits for its results to leave; ``candidates``: plans compared; ``alternatives``:
        ``plan`` and ``predicted_cycles`` of others.
    """
    best, *others = ranked(size, config)
    return {
        **described(best), "program_words": best.words, "roofline": best.busy, "bound": bound(best, size, config),
        "candidates": 1 + len(others), "alternatives": [described(plan) for plan in alternatives(best, others)],
    }


def described(plan: Plan) -> dict:
    """Return what a plan is and what it costs."""
    return {"plan": plan.description, "predicted_cycles": plan.cycles}


def bound(plan: Plan, size: ProductSize, config: MachineConfig) -> str:
    """Return what needs most cycles; the array's are its drain's where sums take longer to leave than to make."""
    most = max(plan.busy, key=lambda unit: plan.busy[unit])
    return "drain" if most == "array" and max(size.sums) < drain_cycles(config) else most


def alternatives(best: Plan, others: list[Plan]) -> list[Plan]:
    """Return the next best plans, and the best with the other operand stationary."""
    turned = next((plan for plan in others if plan.rows_stay != best.rows_stay), None)
    return [plan for rank, plan in enumerate(others) if rank < NEXT_BEST or plan is turned]
