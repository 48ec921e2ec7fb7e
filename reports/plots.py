"""Plots of sweeps, drawn without a display."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INCHES, DPI = (10.5, 5.2), 150
OPTIMAL, DOMINATED = "#1b6ca8", "#b0b0b0"
LATENCY = "latency of the utterance (ms)"
# Axes start at zero and end at the largest value times this: room for labels.
ROOM_X, ROOM_Y = 1.3, 1.25


@dataclass(frozen=True)
class Caption:
    """What a plot says about all its points."""

    model: str
    utterance: str
    frames: int
    library: str
    clock_mhz: float
    bus_bits: int


def sweep_plot(points: Sequence[dict], caption: Caption) -> bytes:
    """Return a PNG: area and energy of each machine over its latency.

    Filled points are Pareto-optimal in latency, area and energy; labels are arrays, with utilisation below.
    """
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw(left, points, "area_um2", 1e-6, "area (mm²)", "Area")
    draw(right, points, "energy_uj", 1.0, "energy per utterance (µJ)", "Energy")
    left.legend(handles=legend_handles(left, points), loc="lower left", frameon=False, fontsize=9)
    figure.suptitle(f"{caption.model} on “{caption.utterance}”, {caption.clock_mhz:g} MHz", fontsize=13)
    figure.supxlabel(footnote(caption), fontsize=8, color="#555555")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def footnote(caption: Caption) -> str:
    """Return under which conditions the figures hold."""
    area = f"Area: {caption.library}, memories by a model of IHP SG13G2 macros"
    return fill(f"{caption.frames} frames; cycles of the RTL, {caption.bus_bits}-bit AXI. {area}. "
                "Energy: event counts times 130 nm figures, preliminary.", 130)


def draw(axes: Axes, points: Sequence[dict], quantity: str, scale: float, label: str, title: str) -> None:
    """Draw one quantity over latency."""
    for point in points:
        x, y = point["latency_ms"], point[quantity] * scale
        axes.plot(x, y, "o", markersize=9, color=color(point), fillstyle="full" if point["pareto"] else "none")
        note = "" if point["bit_exact"] else "\nNOT bit-exact"
        axes.annotate(f"{point['array']}\n{point['utilisation']:.0%} used{note}", (x, y), xytext=(0, 9), ha="center",
                      textcoords="offset points", fontsize=9, color="#b3261e" if note else "#222222")
    axes.set(xlabel=LATENCY, ylabel=label)
    axes.set_title(f"{title} against latency", fontsize=11)
    axes.set_xlim(0, ROOM_X * max(point["latency_ms"] for point in points))
    axes.set_ylim(0, ROOM_Y * max(point[quantity] * scale for point in points))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def color(point: dict) -> str:
    """Return the colour of a point."""
    return OPTIMAL if point["pareto"] else DOMINATED


def legend_handles(axes: Axes, points: Sequence[dict]) -> list:
    """Return one handle per kind of point that occurs."""
    kinds = {True: "Pareto-optimal (latency, area, energy)", False: "dominated"}
    return [axes.plot([], [], "o", color=OPTIMAL if kind else DOMINATED, fillstyle="full" if kind else "none",
                      label=text)[0]
            for kind, text in kinds.items() if any(point["pareto"] == kind for point in points)]
