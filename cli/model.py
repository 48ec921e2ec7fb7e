"""``compile``, ``inspect`` and ``new-model``: what can be done with a model file without running it."""

from pathlib import Path

import click

from phonolith.cli.common import MAX_FRAMES, NEW_FILE, PATH, Result, verb
from phonolith.cli.explain import EXPLAIN, print_explanation, print_prediction
from phonolith.cli.output import cell, print_facts, print_table

FRAMES = click.option("--frames", type=click.IntRange(min=0), default=100, show_default=True, metavar="T",
                      help="Feature frames (10 ms each) of the utterance; compile: of the longest.")


def render_compilation(result: Result) -> None:
    """Print facts of the program, and why its products are tiled as they are."""
    print_facts((name, cell(value)) for name, value in result.items() if name not in ("products", "operators"))
    if "products" in result:
        print_prediction(result)
        print_explanation(result["products"])


@click.command("compile")
@click.argument("model", metavar="MODEL|package.module:factory")
@click.option("-o", "--output", type=NEW_FILE, required=True, metavar="PROGRAM")
@FRAMES
@click.option("--save-model", type=NEW_FILE, metavar="FILE", help="Write the quantized model of a factory's module.")
@EXPLAIN
@verb(render_compilation)
def compile_(config, model: str, output: Path, frames: int, save_model: Path | None, explained: bool) -> Result:
    """Compile a model for the configured machine and utterances up to a length.

    MODEL is a quantized model's name or file, or a function that returns a torch module, example inputs and
    calibration data (needs EXTRAS=train); the example's length then counts instead of --frames.
    """
    from phonolith.compiler import model_file, pipeline
    from phonolith.compiler.explain import explain_model
    from phonolith.compiler.timing.report import explain_program

    if ":" in model:
        if explained:
            raise click.UsageError("--explain goes with a quantized model.")
        return compile_module(config, model, output, save_model)
    if save_model is not None:
        raise click.UsageError("--save-model goes with package.module:factory.")
    graph = model_file.load(model_file.resolve(model))
    program = pipeline.compile_graph(graph, config, frames)
    program.save(output)
    explanation = {**explain_program(program, config), "products": explain_model(graph, config, frames)} \
        if explained else {}
    return {"program": output, "frames": frames, **program.summary(), **explanation}


def compile_module(config, factory: str, output: Path, save_model: Path | None) -> Result:
    """Quantize and compile what a factory returns."""
    from phonolith.compiler import api, model_file

    module, example, calibration = api.call_factory(factory)
    compiled = api.compile(module, example, calibration, config)
    if save_model is not None:
        model_file.save(save_model, compiled.graph)
    compiled.program.save(output)
    (view,) = compiled.program.inputs.values()
    return {"program": output, "frames": view.shape[0], **compiled.program.summary()}


def weights_cell(layer: dict) -> str:
    """Return the width of a layer's weights, and their scheme unless it is the plain one."""
    return layer["weights"] + (f" {layer['scheme']}" if layer["scheme"] not in ("", "symmetric") else "")


def render_inspection(result: Result) -> None:
    """Print one line per layer, the totals, and the parameters by part."""
    layers = result["layers"]
    columns = tuple(name for name in layers[0] if name != "scheme") if layers else ()
    rows = [layer | {"weights": weights_cell(layer)} for layer in layers]
    print_table(columns, [[row[column] for column in columns] for row in rows])
    print()
    print_facts((name, cell(value)) for name, value in result.items() if not isinstance(value, list | dict))
    print_facts((f"parameters, {part}", cell(count)) for part, count in result["parameters"].items())


@click.command()
@click.argument("model", metavar="MODEL")
@FRAMES
@verb(render_inspection)
def inspect(_config, model: str, frames: int) -> Result:
    """List a model's layers: operator, shape, widths, MACs, bytes."""
    from phonolith.compiler import model_file
    from phonolith.compiler.inspect import inspect as describe

    return describe(model_file.load(model_file.resolve(model)), frames)


@click.command("new-model")
@click.argument("spec", type=PATH, metavar="SPEC.toml")
@click.option("--random-weights", "seed", type=click.IntRange(min=0), default=0, show_default=True,
              metavar="SEED", help="Seed of the weights.")
@click.option("-o", "--output", type=NEW_FILE, required=True, metavar="FILE",
              help="Quantized model to write.")
@MAX_FRAMES
@verb(lambda result: print_facts((name, cell(value)) for name, value in result.items()))
def new_model(_config, spec: Path, seed: int, output: Path, max_frames: int) -> Result:
    """Make a quantized model of the shape in SPEC.toml with random weights (needs EXTRAS=train)."""
    from phonolith.compiler.quantize import new_model as make

    return make(spec, seed, output, max_frames)
