"""From a torch module to the float graph, through ``torch.export``.

torch is imported when a module is imported, never before.
"""

import contextlib
import inspect
import io
import logging
import operator
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from phonolith.compiler.float_graph import FloatGraph, FloatNode
from phonolith.compiler.frontend_views import LayoutError, View, axes_of, new_axis
from phonolith.compiler.torch_emitter import location
from phonolith.compiler.torch_operators import Operators, operator_name, supported_operators
from phonolith.hw.errors import PhonolithError


class Importer:
    """Walks an exported program; ``values`` maps torch nodes to views, constants, or lists of them."""

    def __init__(self):
        self.operators = Operators()
        self.values: dict[Any, Any] = {}

    def argument(self, value):
        """Translate an argument of a torch node: nodes become their values, lists are searched."""
        if isinstance(value, list | tuple):
            return [self.argument(item) for item in value]
        return self.values[value] if hasattr(value, "meta") else value

    def visit(self, node) -> None:
        """Import one call of an operator."""
        self.operators.current = node
        arguments: list[Any] = [self.argument(argument) for argument in node.args]
        keywords = {name: self.argument(value) for name, value in node.kwargs.items()}
        if node.target is operator.getitem:
            self.values[node] = arguments[0][arguments[1]]
        elif depends_on_input([*arguments, *keywords.values()]):
            self.values[node] = self.call(node, arguments, keywords)
        else:
            self.values[node] = fold(node.target, arguments, keywords)

    def call(self, node, arguments: list, keywords: dict):
        """Import an operator that depends on the input."""
        handler = self.operators.handler(operator_name(node))
        if handler is None:
            raise unsupported(node, "")
        try:
            inspect.signature(handler).bind(*arguments, **keywords)
        except TypeError as error:
            raise unsupported(node, f" with these arguments: {error}") from None
        try:
            return handler(*arguments, **keywords)
        except LayoutError as error:
            raise unsupported(node, f": {error}") from None


def depends_on_input(value) -> bool:
    """Tell whether a translated argument holds a view."""
    if isinstance(value, list):
        return any(map(depends_on_input, value))
    return isinstance(value, View)


def fold(target, arguments: list, keywords: dict):
    """Run an operator on constants; return arrays."""
    import torch

    def tensors(value):
        if isinstance(value, list):
            return [tensors(item) for item in value]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    result = target(*tensors(arguments), **{name: tensors(value) for name, value in keywords.items()})
    parts = result if isinstance(result, list | tuple) else [result]
    arrays = [part.detach().numpy() if isinstance(part, torch.Tensor) else part for part in parts]
    return arrays if isinstance(result, list | tuple) else arrays[0]


def unsupported(node, reason: str) -> PhonolithError:
    """Return the error for an operator, or a use of one, that cannot be imported."""
    return PhonolithError(
        "unsupported-operator",
        f"operator {node.target} in {location(node)} is not supported{reason}.",
        f"Supported are {', '.join(supported_operators())}.",
    )


def export(module, example_input):
    """Return ``torch.export``'s program of a module in evaluation mode."""
    import torch

    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module.eval(), (example_input,))
    except Exception as error:
        raise PhonolithError(
            "export-failed",
            f"torch.export cannot trace {type(module).__name__}{written_at(module, error)}: {reason(error)}.",
            "The module must run on one [1, T, features] tensor without data-dependent control flow.",
        ) from error


@contextlib.contextmanager
def quiet():
    """Keep torch from printing, logging and warning of what an error says anyway."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def reason(error: Exception) -> str:
    """Return the first line of an error; what torch says of values that are known at run time only, in plain words."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].rstrip(".")
    return f"control flow depends on the input's values ({line})" if "data-dependent" in line else line


def written_at(module, error: Exception) -> str:
    """Return which submodule raised ``error``, and the line outside torch that did; "" when no module's code ran."""
    paths = {id(part): path or "(top)" for path, part in module.named_modules()}
    path, place, torch = "", "", torch_folder()
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = paths.get(id(frame.f_locals.get("self")), path)
        if path and not frame.f_code.co_filename.startswith(torch):
            place = f"{frame.f_code.co_filename}:{line}"
    return f", module {path}, {place}" if place else ""


def torch_folder() -> str:
    """Return the folder of torch's own code."""
    import torch

    return str(Path(torch.__file__).parent)


def import_module(module, example_input, name: str = "model") -> FloatGraph:
    """Import a ``torch.nn.Module`` that takes ``example_input``, a tensor ``[1, T, features]`` with T > 1.

    The batch dimension is dropped. If the module returns scores ``[1, T', N]``, an ``argmax`` is appended.
    Raises PhonolithError ``unsupported-operator`` naming the operator and its place, ``export-failed``.
    """
    program = export(module, example_input)
    importer, output = Importer(), ""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    tensors = {**program.state_dict, **program.constants}
    scores = scores_of(program.graph)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            target = specs[node.name].target
            parameter = None if target is None else tensors[target].detach().numpy()
            importer.values[node] = input_view(tuple(example_input.shape)) if target is None else parameter
        elif node.op == "call_function":
            importer.visit(node)
        if node is scores:
            output = finish(importer, node)
            break
    width = int(example_input.shape[-1])
    return FloatGraph(name, "features", (width,), tuple(live_nodes(importer.operators.nodes, output)), output)


def input_view(shape: tuple[int, ...]) -> View:
    """Return the view of a ``[1, T, features]`` input."""
    if len(shape) != 3 or shape[0] != 1 or shape[1] < 2:
        raise PhonolithError(
            "export-failed", f"the example input has shape {list(shape)}.", "Give a tensor [1, T, features]."
        )
    time, columns = new_axis(shape[1], time=True), axes_of(shape[2])
    return View("features", ((), (time,), columns), (time, *columns), (shape[2],))


def scores_of(graph):
    """Return the node of a module's output, or what that is the softmax of, over its last dimension.

    The arg-max of a softmax or a log-softmax is that of its input.
    """
    (result,) = graph.output_node().args[0][:1]
    if operator_name(result) not in ("softmax", "log_softmax") or len(result.users) > 1:
        return result
    scores, dimension = result.args[:2]
    return scores if dimension in (-1, scores.meta["val"].dim() - 1) else result


def finish(importer: Importer, node) -> str:
    """Append an argmax to the module's output unless it ends with one; return the output's name."""
    view = importer.values[node]
    if not isinstance(view, View):
        raise unsupported(node, " as the module's output: it does not depend on the input")
    if view.tail == ():
        return view.value
    try:
        importer.operators.current = node
        return importer.operators.op_argmax(view, -1).value
    except LayoutError as error:
        raise unsupported(node, f" as the module's output: {error}") from None


def live_nodes(nodes: list[FloatNode], output: str) -> list[FloatNode]:
    """Drop nodes that nothing reads, such as the unused parts of a split."""
    needed, live = {output}, []
    for node in reversed(nodes):
        if node.name in needed:
            needed |= set(node.inputs)
            live.append(node)
    return live[::-1]
