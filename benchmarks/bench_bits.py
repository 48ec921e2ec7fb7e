"""The shipped Conformer with weights of 8, 4, 2 and 1 bit: word error rate, bytes, cycles, area, energy.

    python benchmarks/bench_bits.py [-o FOLDER] [--data RECORDINGS] [--only TEXT] [--without-rtl] [--known]

Every width with every scheme, quantized after training and trained with rounded weights. Resumable: what a row of the
table needs is kept in FOLDER (docs/verification/bits), a JSON file each, and is not made again; nor are models while
their files are there. Needs torch (``make setup EXTRAS=train``) and the recordings. With all rows complete it writes
its section of ``docs/results.md``; with ``--known`` it makes no further model and writes what there is, "-" for what
is not.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from page import RESULTS, ROOT, TABLES, percent, table, write_section

from phonolith.compiler import model_file
from phonolith.compiler.inspect import inspect
from phonolith.compiler.quantization import Quantization
from phonolith.compiler.quantize import FineTuning, quantize_checkpoint
from phonolith.compiler.weight_quantizer import WIDTHS, WeightScheme
from phonolith.hw.config import MachineConfig
from phonolith.models.evaluate import Evaluation, evaluate, evaluate_float
from phonolith.reports.simulation import simulate
from phonolith.sim.recognise import feature_parameters, golden_recogniser

CHECKPOINT = ROOT / "models/checkpoints/conformer-ctc.safetensors"
UTTERANCE = ROOT / "models/clips/seven_three_one.wav"
RECORDINGS = ROOT.parent / "shared/data/fsdd/recordings"
SCHEMES: dict[str, tuple[str, str | int]] = {
    "symmetric": ("symmetric", "channel"), "asymmetric": ("asymmetric", "channel"), "blocks of 64": ("asymmetric", 64)}
NOISE = {"clean": None, "snr3": 3.0}
STRINGS, STEPS, FRAMES = 1000, 200, 100
# The wider the weights, the less there is to learn, and the more a large step spoils.
LEARNING_RATES = {8: 2e-4, 4: 2e-4, 2: 1e-3, 1: 1e-3}
UNKNOWN = "-"
RTL_KEYS = ("cycles", "utilisation", "area_um2", "energy_uj")
HEADER = ("bits", "weights", "trained", "WER", "WER at 3 dB", "bytes of weights", "bytes of all constants", "cycles",
          "utilisation", "area, mm2", "energy, uJ")


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    bits: int
    scheme: str
    trained: bool

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"w{self.bits}-{self.scheme.replace(' ', '-')}-{'trained' if self.trained else 'after'}"

    @property
    def options(self) -> Quantization:
        """How its model is quantized: few bits with clipped ranges."""
        return Quantization(WeightScheme(self.bits, *SCHEMES[self.scheme], clip_search=self.bits in (2, 4)))

    @property
    def training(self) -> FineTuning:
        """How its float model is trained further."""
        return FineTuning(STEPS if self.trained else 0, learning_rate=LEARNING_RATES[self.bits])


class Results:
    """What is known of one row, kept in a JSON file."""

    def __init__(self, path: Path):
        self._path = path
        self.facts: dict = json.loads(path.read_text()) if path.exists() else {}

    def need(self, key: str, make: Callable[[], object]) -> None:
        """Make a fact, unless it is known."""
        if key not in self.facts:
            self.facts[key] = make()
            self._path.write_text(json.dumps(self.facts, indent=1) + "\n")
            print(f"{self._path.stem}: {key} {self.facts[key]}", flush=True)


def quantized(cell: Cell, folder: Path, data: Path) -> Path:
    """Return the model file of a row; it is made if need be."""
    path = folder / f"{cell.name}.safetensors"
    if not path.exists():
        quantize_checkpoint(CHECKPOINT, data, path, options=cell.options, training=cell.training)
    return path


def error_rate(evaluation: Evaluation) -> dict[str, float]:
    """Return the rate and its 95 % interval."""
    return {key: value for key, value in evaluation.as_dict().items() if key.startswith("wer")}


def integer_rate(path: Path, data: Path, snr: float | None) -> dict[str, float]:
    """Return the golden model's word error rate."""
    graph = model_file.load(path)
    return error_rate(evaluate(golden_recogniser(graph), data, STRINGS, snr=snr, parameters=feature_parameters(graph)))


def sizes(path: Path) -> dict[str, int]:
    """Return the bytes of weights alone, and of all constants: scales, zero points, biases and tables, too."""
    facts = inspect(model_file.load(path), FRAMES)
    return {key: facts[key] for key in ("weight_bytes", "constant_bytes")}


def measured(path: Path, config: MachineConfig) -> dict[str, float]:
    """Return the figures of one utterance on RTL; SystemExit unless every tensor is exact."""
    result = simulate(UTTERANCE, str(path), config)
    if not result["bit_exact"]:
        raise SystemExit(f"{path.stem} differs from the golden model")
    return {key: result[key] for key in RTL_KEYS}


def known(cell: Cell, folder: Path, config: MachineConfig) -> Results:
    """Return what is known of a row; of a model that is there, what is quickly measured, too."""
    results, path = Results(folder / f"{cell.name}.json"), folder / f"{cell.name}.safetensors"
    if path.exists():
        results.need("sizes", lambda: sizes(path))
        results.need(f"rtl {config.hash}", lambda: measured(path, config))
    return results


def fill(cell: Cell, folder: Path, data: Path, config: MachineConfig | None) -> Results:
    """Make what a row lacks; cycles, area and energy only with a machine."""
    results = Results(folder / f"{cell.name}.json")
    for name, snr in NOISE.items():
        results.need(name, lambda snr=snr: integer_rate(quantized(cell, folder, data), data, snr))
    results.need("sizes", lambda: sizes(quantized(cell, folder, data)))
    if config is not None:
        results.need(f"rtl {config.hash}", lambda: measured(quantized(cell, folder, data), config))
    return results


def fill_float(folder: Path, data: Path) -> Results:
    """Make the float model's word error rates."""
    results = Results(folder / "float.json")
    for name, snr in NOISE.items():
        results.need(name, lambda snr=snr: error_rate(evaluate_float(CHECKPOINT, data, STRINGS, snr=snr)))
    return results


def rate(fact: dict[str, float] | None) -> str:
    """Return a word error rate and its interval as text."""
    if fact is None:
        return UNKNOWN
    return f"{percent(fact['wer'])} ({100 * fact['wer_low']:.2f} to {100 * fact['wer_high']:.2f})"


def row(cell: Cell, facts: dict, config: MachineConfig | None) -> list[str]:
    """Return one line of the table; what was not measured is UNKNOWN."""
    rtl = facts.get(f"rtl {config.hash}") if config else None
    costs = (f"{rtl['cycles']:,}", percent(rtl["utilisation"]), f"{rtl['area_um2'] / 1e6:.2f}",
             f"{rtl['energy_uj']:.1f}") if rtl else (UNKNOWN,) * 4
    stored = facts.get("sizes", {})
    weights = (f"{stored[key]:,}" if stored else UNKNOWN for key in ("weight_bytes", "constant_bytes"))
    return [str(cell.bits), cell.scheme, "yes" if cell.trained else "no", *(rate(facts.get(name)) for name in NOISE),
            *weights, *costs]


def section(rows: list[list[str]], plain: dict, config: MachineConfig) -> str:
    """Return the text of the page's section."""
    return "\n".join([
        "The shipped Conformer (`models/checkpoints/conformer-ctc-w8.md`), weights between the front end and the last "
        f"layer in few bits, all others in 8. Word error rates with 95 % intervals: golden model, {STRINGS:,} strings "
        "of the official test takes, clean and with coloured noise at 3 dB; the float model's are "
        f"{rate(plain['clean'])} and {rate(plain['snr3'])}. *Trained*: {STEPS} further steps with rounded weights. "
        f"2 and 4 bits with `--clip-search`. Cycles, area and energy: `{UTTERANCE.name}` on RTL, equal to the golden "
        f"model, {config.array}, {config.bus_bits}-bit bus (configuration `{config.hash}`); energy from counts of "
        "events, preliminary; area from the built-in table (docs/area.md).", "",
        *table(HEADER, rows), ""])


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Table of weight widths and schemes.")
    parser.add_argument("-o", "--output", type=Path, default=TABLES / "bits", metavar="FOLDER")
    parser.add_argument("--data", type=Path, default=RECORDINGS, metavar="RECORDINGS")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name holds this, like w2-symmetric")
    parser.add_argument("--known", action="store_true", help="make no model; write what there is")
    parser.add_argument("--without-rtl", action="store_true", help="no cycles, area and energy")
    return parser.parse_args()


def main() -> None:
    """Fill the table and print it."""
    options = arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    config = None if options.without_rtl else MachineConfig()
    # The cheap half first.
    cells = [Cell(bits, scheme, trained) for trained, bits, scheme in itertools.product((False, True), WIDTHS, SCHEMES)]
    wanted = [cell for cell in cells if options.only in cell.name]
    plain = fill_float(options.output, options.data).facts
    if options.known:
        filled = {cell: known(cell, options.output, MachineConfig()).facts for cell in wanted}
    else:
        filled = {cell: fill(cell, options.output, options.data, config).facts for cell in wanted}
    order = sorted(filled, key=lambda cell: (-cell.bits, cells.index(cell)))
    rows = [row(cell, filled[cell], config) for cell in order]
    print("\n".join(table(HEADER, rows)))
    if config is not None and wanted == cells:
        write_section("bench_bits.py", section(rows, plain, config), RESULTS)


if __name__ == "__main__":
    main()
