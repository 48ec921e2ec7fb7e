"""Quantization-aware training: float weights that learn to be good after rounding.

In the forward pass a layer's weights are what their codes stand for; gradients go straight through the rounding to the
float weights (Bengio et al. 2013). How weights become codes is the caller's: the trained weights, quantized by the same
function, have the codes that training saw.
"""

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from phonolith.hw.errors import PhonolithError
from phonolith.models.layers import CTCModel
from phonolith.models.train import make_batches, optimize, to_stderr

LEARNING_RATE = 1e-3
LEVELS = 127
ArrayFunction = Callable[[np.ndarray], np.ndarray]
"""Float weights [N, ..] -> what their codes stand for, the same shape."""


class FakeWeight(nn.Module):
    """Parametrization of a weight: its values after quantization, with the gradients of the weight itself."""

    def __init__(self, quantize: ArrayFunction):
        super().__init__()
        self.quantize = quantize

    def forward(self, weight: Tensor) -> Tensor:
        values = torch.from_numpy(self.quantize(weight.detach().numpy()).astype(np.float32))
        return values + (weight - weight.detach())  # exactly the values


class FakeActivation:
    """Forward pre-hook: rounds a layer's input to int8 steps of the largest magnitude seen while training."""

    def __init__(self):
        self.maximum = 0.0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        if module.training:
            self.maximum = max(self.maximum, x.detach().abs().max().item())
        step = (self.maximum or 1.0) / LEVELS
        rounded = (x / step).round().clamp(-LEVELS - 1, LEVELS) * step
        return (rounded.detach() + (x - x.detach()), *rest)


class FakeQuantized:
    """Context in which some layers of a model are fake-quantized; the model itself has float weights again after it.

    Parameters
    ----------
    model : any module.
    weights : how the weights of each layer are quantized, by module name.
    activations : round what these layers read, too.

    Raises PhonolithError ``option`` for a name that is no layer with weights.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, ArrayFunction], activations: bool = False):
        modules = dict(model.named_modules())
        for name in weights:
            if not isinstance(getattr(modules.get(name), "weight", None), Tensor):
                raise PhonolithError("option", f"the model has no layer {name!r} with weights.",
                                     "Name a linear layer or a convolution of the module.")
        self._layers = {modules[name]: quantize for name, quantize in weights.items()}
        self._activations = activations
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "FakeQuantized":
        for layer, quantize in self._layers.items():
            parametrize.register_parametrization(layer, "weight", FakeWeight(quantize))
            if self._activations:
                self._hooks.append(layer.register_forward_pre_hook(FakeActivation()))
        return self

    def __exit__(self, *_error) -> None:
        for layer in self._layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        for hook in self._hooks:
            hook.remove()


def fine_tune(model: CTCModel, weights: Mapping[str, ArrayFunction], data_dir: str | os.PathLike[str], steps: int,
              seed: int = 0, activations: bool = False, learning_rate: float = LEARNING_RATE,
              log: Callable[[str], None] = to_stderr) -> list[float]:
    """Train a float model for some steps with fake-quantized layers, in place; return the loss of every step.

    On the recordings that training may open, one thread. Raises PhonolithError if there are none, and those of
    :class:`FakeQuantized`.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    batches = make_batches(data_dir, model.config.vocabulary, seed, model.features, log)
    with FakeQuantized(model, weights, activations):
        return optimize(model, batches, steps, log, learning_rate)
