"""``train``, ``quantize`` and ``evaluate``: from recordings to a quantized model and its word error rate."""

from pathlib import Path
from typing import Any

import click

from phonolith.cli.common import MAX_FRAMES, MODEL, NEW_FILE, PATH, CommaList, Result, verb
from phonolith.cli.output import cell, percent, print_facts

DATA = click.option("--data", type=PATH, required=True, metavar="DIR|CSV",
                    help="Folder of {digit}_{speaker}_{take}.wav, or a manifest path,text,speaker,split.")


class Group(click.ParamType):
    """A number of weights, or a word that says what shares a scale."""

    name = "group"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        return int(value) if str(value).isdecimal() else value


class Calibration(click.ParamType):
    """A way to choose ranges, or a number of strings."""

    name = "method"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        if str(value).isdecimal() and int(value) < 1:
            self.fail("there is nothing to calibrate with: give a string or more.", param, ctx)
        return int(value) if str(value).isdecimal() else value


class LayerBits(click.ParamType):
    """``NAME=BITS``; a pair."""

    name = "layer"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        layer, _, bits = value.rpartition("=")
        if not layer or not bits.isdecimal():
            self.fail(f"{value!r} is not NAME=BITS, like output=4.", param, ctx)
        return layer, int(bits)


def render_facts(result: Result) -> None:
    """Print the plain values of a result."""
    print_facts((name, cell(value)) for name, value in result.items() if not isinstance(value, list | dict))


@click.command()
@DATA
@click.option("-o", "--output", type=NEW_FILE, required=True, metavar="FILE",
              help="Float checkpoint to write.")
@click.option("--spec", type=PATH, metavar="SPEC.toml",
              help="Shape and family of the model; by default encoder-ctc.")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@verb(render_facts)
def train(_config, data: Path, output: Path, spec: Path | None, steps: int, seed: int) -> Result:
    """Train a float model on strings of recorded words (needs EXTRAS=train)."""
    from phonolith.models.config import EncoderConfig
    from phonolith.models.families import read_spec
    from phonolith.models.train import train as run

    model = run(read_spec(spec) if spec else EncoderConfig(), data, output, steps, seed)
    return {"model": output, "family": model.config.family, "parameters": model.config.parameters,
            "steps": steps, "seed": seed}


@click.command()
@click.argument("model", type=PATH, metavar="MODEL")
@DATA
@click.option("-o", "--output", type=NEW_FILE, required=True, metavar="FILE",
              help="Quantized model to write.")
@click.option("--strings", type=click.IntRange(min=1), default=64, show_default=True, metavar="N",
              help="Training strings that set the activation scales.")
@click.option("--bits", type=int, default=8, show_default=True,
              help="Width of weights between the first and the last linear layer: 8, 4, 2 or 1.")
@click.option("--scheme", default="symmetric", show_default=True,
              help="symmetric, or asymmetric: weights with a zero point, 1 bit with a mean.")
@click.option("--block", type=Group(), default="channel", show_default=True, metavar="N|channel|tensor",
              help="What shares a scale: 32, 64, 128 or 256 weights along K, a channel, all of a layer.")
@click.option("--clip-search", is_flag=True, help="Clip each range of weights where its L1 error is smallest.")
@click.option("--power-of-two", is_flag=True, help="Scales that are powers of two.")
@click.option("--layer", "layers", type=LayerBits(), multiple=True, metavar="NAME=BITS",
              help="Width of one layer's weights; repeatable.")
@click.option("--calibrate", type=Calibration(), default="max", show_default=True, metavar="METHOD",
              help="How int8 ranges are chosen: max, percentile, mse, clip (or a number of strings, as --strings).")
@click.option("--clip", hidden=True, help="The former name of --calibrate METHOD.")
@click.option("--kv-bits", type=int, default=8, show_default=True, help="Width of keys and values: 8 or 4.")
@click.option("--softmax-bits", type=int, default=8, show_default=True,
              help="Width of exponentials: 16 for long rows, at two to three times the cycles of attention.")
@click.option("--budget-bytes", type=click.IntRange(min=1), metavar="N",
              help="Choose the layers' widths so that all constants take so many bytes at most.")
@click.option("--budget-cycles", type=click.IntRange(min=1), metavar="N",
              help="The same for the array's cycles per 100 frames, if it is never idle.")
@click.option("--train-steps", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Train the float model so long with rounded weights first.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True,
              help="The highest of that training: less for wider weights.")
@click.option("--train-activations", is_flag=True, help="Round what the layers read while training, too.")
@MAX_FRAMES
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@verb(render_facts)
def quantize(config, model: Path, data: Path, output: Path, strings: int, bits: int, scheme: str,
             block: str | int, clip_search: bool, power_of_two: bool, layers: tuple[tuple[str, int], ...],
             calibrate: str | int, clip: str | None, kv_bits: int, softmax_bits: int, budget_bytes: int | None,
             budget_cycles: int | None, train_steps: int, learning_rate: float,
             train_activations: bool, max_frames: int, seed: int) -> Result:
    """Turn a float checkpoint into an integer model, its scales from recordings (needs EXTRAS=train)."""
    from phonolith.compiler.mixed_precision import Budget, node_bytes, node_cycles
    from phonolith.compiler.quantization import Quantization
    from phonolith.compiler.quantize import FineTuning, quantize_checkpoint
    from phonolith.compiler.weight_quantizer import WeightScheme

    if isinstance(calibrate, int):
        strings, calibrate = calibrate, "max"
    weights = WeightScheme(bits, scheme, block, clip_search, power_of_two)
    options = Quantization(weights, dict(layers), clip or calibrate, softmax_bits, kv_bits, max_frames)
    if budget_bytes and budget_cycles:
        raise click.UsageError("--budget-bytes and --budget-cycles exclude each other.")
    budget = Budget(budget_bytes) if budget_bytes else Budget(budget_cycles, "cycles") if budget_cycles else None
    cost = node_cycles(config.rows, config.columns) if budget_cycles else node_bytes
    training = FineTuning(train_steps, train_activations, learning_rate)
    return quantize_checkpoint(model, data, output, strings, seed, options, training, budget, cost)


def render_error_rate(result: Result) -> None:
    """Print the word error rate and its interval."""
    interval = f"{percent(result['wer_low'])} to {percent(result['wer_high'])}"
    print_facts([
        ("word error rate", f"{percent(result['wer'])} (95 %: {interval})"),
        ("words", cell(result["words"])),
        ("strings", cell(result["strings"])),
        ("seconds", cell(result["seconds"])),
    ])


@click.command()
@MODEL
@DATA
@click.option("--strings", type=click.IntRange(min=1), default=500, show_default=True, metavar="N")
@click.option("--snr", type=float, metavar="DB", help="Add noise at this signal-to-noise ratio.")
@click.option("--speakers", type=CommaList(), metavar="A,B",
              help="Speakers; the known ones by default.")
@click.option("--takes", default="0-4", show_default=True, help="Takes of each word; 0-4 are the test's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--float", "use_float", is_flag=True, help="Evaluate a float checkpoint in torch.")
@verb(render_error_rate)
def evaluate(_config, model: str, data: Path, strings: int, snr: float | None,
             speakers: tuple[str, ...] | None, takes: str, seed: int, use_float: bool) -> Result:
    """Measure the word error rate on strings of recorded words."""
    from phonolith.models.evaluate import evaluate as score
    from phonolith.models.evaluate import evaluate_float

    task = (data, strings, seed, speakers, takes, snr)
    if use_float:
        return evaluate_float(model, *task).as_dict()
    recognise, parameters = integer_recogniser(model)
    return score(recognise, *task, parameters).as_dict()


def integer_recogniser(model: str) -> tuple[Any, Any]:
    """Return the golden model of a quantized model as a function from features to words, and how features are made."""
    from phonolith.compiler import model_file
    from phonolith.sim.recognise import feature_parameters, golden_recogniser

    graph = model_file.load(model_file.resolve(model))
    return golden_recogniser(graph), feature_parameters(graph)
