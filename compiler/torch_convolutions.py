"""Convolutions, padding and BatchNorm of torch."""

import math
from dataclasses import replace

import numpy as np

from phonolith.compiler.frontend_views import LayoutError, View, axes_of, new_axis
from phonolith.compiler.torch_emitter import Emitter


class ConvolutionOperators(Emitter):
    """Methods ``op_<name>`` take the arguments of ``aten.<name>``."""

    def op_conv2d(self, x: View, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        """[B, C, T, F]; the value is [T, F, C]."""
        if isinstance(padding, str) or groups != 1 or max(dilation) != 1:
            raise LayoutError("groups, dilation and named padding are not supported")
        if len(x.dims) != 4:
            raise LayoutError("its input has no batch dimension")
        batch, channels, time, frequency = x.dims
        if batch or x.order != (*time, *frequency, *channels) or len(time) != 1 or not time[0].time:
            raise LayoutError("its input is not [1, C, T, F] with channels last in memory")
        image = (math.prod(a.size for a in frequency), math.prod(a.size for a in channels))
        source = x.value if x.tail == image else self.emit("reshape", (x.value,), tail=list(image))
        weight = self.array(weight).transpose(0, 2, 3, 1) * np.float32(x.scale)
        constants = {"weight": weight, "bias": self.bias(bias, len(weight))}
        strides, pads = pair(stride), pair(padding)
        value = self.emit("conv2d", (source,), constants, stride=strides, padding=pads)
        sizes = zip((time[0].size, image[0]), weight.shape[1:3], strides, pads, strict=True)
        t, f = ((size + 2 * pad - k) // step + 1 for size, k, step, pad in sizes)
        if t < 2:
            raise LayoutError(f"it leaves {t} frame of the example input; give a longer example")
        t_axis, f_axes, c_axes = new_axis(t, time=True), axes_of(f), axes_of(len(weight))
        dims = ((), c_axes, (t_axis,), f_axes)
        return View(value, dims, (t_axis, *f_axes, *c_axes), (f, len(weight)))

    def op_conv1d(self, x: View, weight, bias=None, stride=(1,), padding=(0,), dilation=(1,), groups=1) -> View:
        """[B, C, T]: depthwise, pointwise (a linear layer), or over all channels (conv2d of one frequency)."""
        if len(x.dims) != 3 or x.dims[0] or x.order != (*x.dims[2], *x.dims[1]) or not x.order[0].time:
            raise LayoutError("its input is not [1, C, T] with channels last in memory")
        weight = self.array(weight)
        channels, step, kernel = x.shape[1], single(stride), weight.shape[2]
        if single(dilation) != 1 or groups not in (1, channels):
            raise LayoutError("dilation and groups of several channels are not supported")
        before, behind = same(kernel) if padding == "same" else (0 if padding == "valid" else single(padding),) * 2
        rows, padding = self.unpadded(replace(x, dims=((), x.dims[2], x.dims[1])))
        before, behind = before + padding[0], behind + padding[1]
        if groups == 1 and kernel == step == 1 and before == behind == 0:
            return self.linear(rows, weight[:, :, 0], bias).permute((0, 2, 1))
        if groups == 1:
            image, weight = rows.permute((0, 2, 1)).insert(3), symmetric(weight, before, behind)
            return self.op_conv2d(image, weight[..., None], bias, (step, 1), (max(before, behind), 0)).drop(3)
        if step != 1 or len(weight) != channels:
            raise LayoutError("a depthwise convolution with a stride or several outputs per channel is not supported")
        constants = {"weight": weight[:, 0] * np.float32(x.scale), "bias": self.bias(bias, channels)}
        value = self.emit("depthwise", (self.matrix(replace(rows, scale=1.0)).value,), constants,
                          padding=[before, behind])
        return self.with_frames(x, value, rows.shape[1] + before + behind - kernel + 1, channels)

    def unpadded(self, rows: View) -> tuple[View, list[int]]:
        """Return what [B, T, C] was before zeros were put around it, and how many."""
        pad = next((node for node in self.nodes if node.name == rows.value and node.op == "pad"), None)
        if pad is None:
            return rows, [0, 0]
        padding, (_, frames, channels) = pad.attributes["padding"], rows.shape
        source = self.with_frames(rows, pad.inputs[0], frames - sum(padding), channels)
        return source.permute((0, 2, 1)), padding

    def with_frames(self, x: View, value: str, frames: int, channels: int) -> View:
        """Return [B, C, frames] of a value ``[T, C]`` with other frames than ``x`` has."""
        if frames < 2:
            raise LayoutError(f"it leaves {frames} frame of the example input; give a longer example")
        time, width = new_axis(frames, time=True), axes_of(channels)
        return View(value, ((), width, (time,)), (time, *width), (channels,))

    def op_pad(self, x: View, pad, mode="constant", value=None) -> View:
        """Zeros around time, the last dimension of [B, C, T], for a convolution behind it."""
        pads = [int(each) for each in pad]
        if not any(pads):
            return x
        if mode != "constant" or value or any(pads[2:]) or len(x.dims) != 3 or not x.dims[2] or not x.dims[2][0].time:
            raise LayoutError("only zeros around time, as the last of three dimensions, are supported")
        if min(pads) < 0:
            raise LayoutError("it removes frames")
        rows = self.matrix(replace(x, dims=((), x.dims[2], x.dims[1])))
        padded = self.emit("pad", (rows.value,), padding=pads[:2])
        return self.with_frames(x, padded, x.shape[2] + sum(pads), x.shape[1])

    def op_batch_norm(self, x: View, weight, bias, mean, variance, training, momentum, eps, _cudnn=True) -> View:
        """Over dimension 1 with the statistics of training, an affine function per channel."""
        channels = x.shape[1]
        if training or mean is None or x.order[-len(x.dims[1]):] != x.dims[1] or x.tail[-1:] != (channels,):
            raise LayoutError("only evaluation mode, over channels that are last in memory, is supported")
        gamma = np.ones(channels, np.float32) if weight is None else self.array(weight)
        gamma = gamma / np.sqrt(self.array(variance) + np.float32(eps))
        beta = self.bias(bias, channels) - self.array(mean) * gamma
        return self.affine(replace(x, scale=1.0), gamma * np.float32(x.scale), beta)


def pair(value) -> list[int]:
    """Return a stride or padding as two integers."""
    values = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
    return values if len(values) == 2 else values * 2


def single(value) -> int:
    """Return a stride, padding or dilation over time as an integer."""
    return int(value[0]) if isinstance(value, list | tuple) else int(value)


def symmetric(weight: np.ndarray, before: int, behind: int) -> np.ndarray:
    """Return ``weight [N, C, k]`` with taps of zero, so that as much padding on both sides gives the same outputs."""
    taps = before - behind
    return np.pad(weight, ((0, 0), (0, 0), (max(-taps, 0), max(taps, 0))))


def same(kernel: int) -> tuple[int, int]:
    """Return the padding that keeps the number of frames; of an odd number the larger half goes behind."""
    return (kernel - 1) // 2, kernel // 2
