"""``simulate``: one utterance on the RTL, with its transcript and its cost."""

import importlib.metadata
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from phonolith.compiler import model_file
from phonolith.compiler import program as program_file
from phonolith.compiler.program import Program
from phonolith.compiler.timing.report import explain_program
from phonolith.hw.config import MachineConfig
from phonolith.models.clips import reference_words
from phonolith.models.features import HOP, SAMPLE_RATE
from phonolith.reports.area import builtin_area
from phonolith.reports.energy import energy
from phonolith.reports.trace import Span, instruction_spans, layer_times, write_trace
from phonolith.sim.events import EventCounter
from phonolith.sim.iss import Machine
from phonolith.sim.ladder import Case, execute_rtl, first_difference, machine, make_case
from phonolith.sim.recognise import transcript
from phonolith.sim.rtl.run import RtlMachine, RunResult
from phonolith.sim.rtl.source import verilog_text
from phonolith.sim.verify import read_inputs


def simulate(audio: str | os.PathLike, model: str, config: MachineConfig, waves: Path | None = None,
             program: Path | None = None, trace: Path | None = None, explained: bool = False) -> dict:
    """Run ``audio`` through ``model`` on the simulated RTL and price the run.

    Parameters
    ----------
    audio : path
        Recording, or ``.npy`` of features.
    model : str
        Name or file of a quantized model.
    config : MachineConfig
    waves : Path, optional
        Write waveforms of the run to this VCD file (slow).
    program : Path, optional
        Run this program, made by ``phonolith compile`` from the same model for the same machine and no shorter input.
    trace : Path, optional
        Write what engines and bus did to this file (``docs/tracing.md``); times of layers are then exact.
    explained : bool
        Predict the cycles, operator by operator.

    Returns
    -------
    dict
        The contract's keys for ``simulate``; ``first_difference`` is None when all tensors equal the golden model's.
        ``explained``: with what :func:`phonolith.compiler.timing.report.explain_program` returns.
    """
    graph = model_file.load(model_file.resolve(model))
    inputs = read_inputs(graph, Path(audio))
    case = make_case(graph, inputs, config, program and program_file.load(program, config))
    watched = waves is not None or trace is not None
    rtl = RtlMachine(config, verilog_text(config), waves=waves, events=trace is not None) if watched \
        else machine(config)
    started = time.perf_counter()
    result = execute_rtl(case.program, case.image, rtl, log_writes=True)
    seconds = time.perf_counter() - started
    if watched:
        rtl.close()
    spans = None if trace is None else traced(trace, case.program, result, config)
    difference = first_difference(case, "rtl", result.image, result.writes)
    ids = case.program.read(result.image, graph.outputs[0])
    frames = len(inputs[graph.inputs[0].name])
    return {
        "transcript": " ".join(transcript(graph, ids)),
        "reference": reference_words(Path(audio)),
        "model": graph.name,
        "frames": frames,
        "bit_exact": difference is None,
        "first_difference": difference,
        "tensors_compared": len(case.expected),
        "elements_compared": sum(tensor.size for tensor in case.expected.values()),
        **costs(case, result, config, frames, spans),
        "simulated_cycles_per_second": result.simulated_cycles_per_second,
        "simulation_seconds": seconds,
        "waves": None if waves is None else str(waves),
        "trace": None if trace is None else str(trace),
        **(explain_program(case.program, config) if explained else {}),
    }


def traced(path: Path, program: Program, result: RunResult, config: MachineConfig) -> list[Span]:
    """Write a run's trace; return when its instructions ran."""
    assert result.events is not None
    spans = instruction_spans(program, result.events)
    write_trace(path, program, result, spans, config)
    return spans


def costs(case: Case, result: RunResult, config: MachineConfig, frames: int,
          spans: list[Span] | None = None) -> dict:
    """Return cycles, utilisation, engines, layers, traffic, energy, area and latency of a run."""
    program = case.program
    macs, mac_bits = (sum(getattr(region, name) for region in program.regions) for name in ("macs", "mac_bits"))
    counter = EventCounter(config)
    array_steps = replay(case, config, counter)
    assert result.writes is not None
    dram_bytes = {"read": result.dram_read_beats * config.bus_bytes,
                  "written": result.dram_write_beats * config.bus_bytes}
    parts = energy(counter.events, mac_bits, sum(dram_bytes.values()), config)
    area = builtin_area(config)
    latency = result.cycles / (config.clock_mhz * 1e6)
    return {
        "cycles": result.cycles,
        "macs": macs,
        "mac_bits": mac_bits,
        "utilisation": mac_bits / 8 / (config.rows * config.columns * result.cycles),
        "engines": result.engines,
        "layers": layers(program, array_steps, result.writes, spans),
        "dram_bytes": dram_bytes,
        "energy_uj": parts["total"],
        "energy_parts_uj": parts,
        "energy_note": "event counts times published energies, 130 nm; preliminary",
        "area_um2": area["area_um2"],
        "area_library": area["library"],
        "latency_ms": 1e3 * latency,
        "real_time_factor": latency / (frames * HOP / SAMPLE_RATE),
        "version": importlib.metadata.version("phonolith"),
    }


def replay(case: Case, config: MachineConfig, counter: EventCounter) -> Counter:
    """Count a program's events with the instruction-set simulator; return array steps by node."""
    steps: Counter = Counter()

    def retire(position, mnemonic, operands, state):
        counter.retire(position, mnemonic, operands, state)
        if mnemonic == "MATMUL":
            steps[case.program.node_at(position)] += config.tiles(operands["rows"], operands["columns"]) * operands["k"]

    Machine(case.program.words, case.image.copy(), config, case.program.arguments, retire).run()
    return steps


def layers(program: Program, array_steps: Counter, writes: np.ndarray,
           spans: list[Span] | None = None) -> list[dict]:
    """Return one dict per node in program order.

    ``start`` and ``end`` are the cycles in which its first instruction began and its last one ended, as far as
    ``spans`` tell, otherwise those of the first and last write of its result; ``array_busy`` counts the cycles in which
    the array takes operands for it.
    """
    times = layer_times(spans or [])
    addresses = writes["address"].astype(np.int64)
    rows = []
    for region in program.regions:
        if region.stop == region.start:
            continue
        view = program.tensors[region.node].as_bytes()
        last = view.address + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
        cycles = writes["cycle"][(addresses > view.address - 64) & (addresses <= last)]
        start, end = (int(cycles[0]), int(cycles[-1])) if len(cycles) else (0, 0)
        start, end = times.get(region.node, (start, end))
        rows.append({"name": region.node, "op": region.op, "macs": region.macs, "start": start, "end": end,
                     "array_busy": array_steps[region.node]})
    return rows
