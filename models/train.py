"""Training of the float models on the CPU: connected-word strings, augmented, CTC loss.

Recipe: AdamW (betas 0.9/0.98, weight decay 0.01), learning rate 2e-3 after a warm-up
of 100 steps, cosine decay to zero, batch 32, dropout 0.1 on residual branches, gradient norm clipped at 5.
"""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F

from phonolith.models import synthetic
from phonolith.models.checkpoint import check_writable, save_model
from phonolith.models.config import ModelConfig
from phonolith.models.data import StringMaker, add_noise, training_recordings, vocabulary_of
from phonolith.models.families import build, default_features
from phonolith.models.features import SAMPLE_RATE, FeatureParameters, features, mel_energies, resample
from phonolith.models.layers import CTCModel
from phonolith.models.normalization import RunningNormalization

BATCH = 32
POOL = 8
LEARNING_RATE = 2e-3
WARM_UP = 100
CLIP = 5.0
DROPOUT = 0.1
SYNTHETIC_SHARE = 0.3
SYNTHETIC_VOICES = 240
NOISY_SHARE = 0.7
MEASURED_STRINGS = 256
RUNNING_WEIGHT = 50.0
"""Frames that the fixed means of a streaming model's features count for."""


@dataclass(frozen=True)
class Batch:
    """Padded features float32 [B, T, mels], their lengths, and the token ids of all strings joined."""

    features: torch.Tensor
    frames: torch.Tensor
    targets: torch.Tensor
    target_lengths: torch.Tensor


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speed 0.85-1.15 (with pitch), then in most cases coloured noise at 5-40 dB; float32 samples."""
    faster = resample(samples, round(SAMPLE_RATE * rng.uniform(0.85, 1.15)), SAMPLE_RATE)
    if rng.random() >= NOISY_SHARE:
        return faster
    return add_noise(faster, rng.uniform(5.0, 40.0), rng.uniform(0.0, 2.0), rng)


def mask_spectrum(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SpecAugment (Park et al. 2019): two bands of up to 6 bins and two spans of up to 10 frames set to 0."""
    masked = frames.copy()
    for _ in range(2):
        width, start = rng.integers(0, 7), rng.integers(0, frames.shape[1] - 6)
        masked[:, start:start + width] = 0.0
        length, first = rng.integers(0, 11), rng.integers(0, max(1, frames.shape[0] - 10))
        masked[first:first + length] = 0.0
    return masked


class Batches:
    """Endless seeded training batches from recordings and, if there are any, synthetic voices."""

    def __init__(self, real: StringMaker, spoken: StringMaker | None, vocabulary: Sequence[str], seed: int,
                 parameters: FeatureParameters):
        self._real, self._spoken = real, spoken
        self._ids = {word: number for number, word in enumerate(vocabulary, 1)}
        self._parameters = parameters
        self._rng = np.random.default_rng([seed, 1])
        self._numbers = count()
        self._ready: list[Batch] = []

    def next(self, size: int = BATCH) -> Batch:
        """A batch of `size` strings of like length: the rest of `POOL` batches' worth waits its turn."""
        if not self._ready:
            examples = sorted((self._example() for _ in range(POOL * size)), key=lambda pair: len(pair[0]))
            order = self._rng.permutation(POOL)
            self._ready = [collate(examples[part * size: (part + 1) * size]) for part in order]
        return self._ready.pop()

    def _example(self) -> tuple[np.ndarray, list[int]]:
        rng = self._rng
        synthetic_turn = self._spoken is not None and rng.random() < SYNTHETIC_SHARE
        maker = self._spoken if synthetic_turn and self._spoken else self._real
        string = maker.string(next(self._numbers))
        samples = augment(string.samples, rng)
        frames = mask_spectrum(features(samples, parameters=self._parameters), rng)
        return frames, [self._ids[word] for word in string.words]


def collate(examples: Sequence[tuple[np.ndarray, list[int]]]) -> Batch:
    """Pad features [T, mels] with zeros to the longest string of the batch."""
    longest = max(len(frames) for frames, _ in examples)
    padded = np.stack([np.pad(frames, ((0, longest - len(frames)), (0, 0))) for frames, _ in examples])
    return Batch(torch.from_numpy(padded), torch.tensor([len(frames) for frames, _ in examples]),
                 torch.tensor([token for _, ids in examples for token in ids]),
                 torch.tensor([len(ids) for _, ids in examples]))


def ctc_loss(model: CTCModel, batch: Batch) -> torch.Tensor:
    """Mean CTC loss per word of a padded batch; attention does not see the padding."""
    lengths = torch.tensor([model.config.convolved(frames) for frames in batch.frames.tolist()])
    steps = torch.arange(model.config.convolved(batch.features.shape[1]))
    mask = (steps < lengths[:, None])[:, None, None, :]
    scores = F.log_softmax(model(batch.features, mask), dim=-1).transpose(0, 1)
    return F.ctc_loss(scores, batch.targets, lengths, batch.target_lengths, zero_infinity=True)


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over `WARM_UP` steps (a tenth of a short training), then half a cosine to zero."""
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def optimize(model: CTCModel, batches: Batches, steps: int, log: Callable[[str], None],
             learning_rate: float = LEARNING_RATE) -> list[float]:
    """Run the recipe in place; returns the loss of every step. Logs a mean every 50 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, (0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    losses: list[float] = []
    model.train()
    for step in range(1, steps + 1):
        loss = ctc_loss(model, batches.next())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            log(f"step {step}/{steps}: loss {np.mean(losses[-50:]):.3f}")
    model.eval()
    return losses


def make_batches(data_dir: str | os.PathLike[str], vocabulary: Sequence[str], seed: int,
                 parameters: FeatureParameters, log: Callable[[str], None]) -> Batches:
    """Batches of the recordings training may open, and of synthetic voices if they are installed."""
    real = StringMaker(training_recordings(data_dir), seed)
    if not synthetic.available():
        log("espeakng-loader is not installed: training without synthetic voices")
        return Batches(real, None, vocabulary, seed, parameters)
    voices = synthetic.SyntheticWords(synthetic.training_voices(SYNTHETIC_VOICES, seed), vocabulary)
    spoken = StringMaker(voices.recordings, seed, load=voices.load)
    return Batches(real, spoken, vocabulary, seed, parameters)


def feature_parameters(config: ModelConfig, data_dir: str | os.PathLike[str], seed: int) -> FeatureParameters:
    """How the model's features are computed: by utterance, or for a streaming model by a running mean that
    starts from what `MEASURED_STRINGS` augmented training strings have."""
    if not config.streaming:
        return default_features(config)
    maker, rng = StringMaker(training_recordings(data_dir), seed), np.random.default_rng([seed, 2])
    heard = (mel_energies(augment(string.samples, rng), config.mels) for string in maker.strings(MEASURED_STRINGS))
    return FeatureParameters(RunningNormalization.measured(heard, RUNNING_WEIGHT), config.min_frames, config.mels)


def to_stderr(line: str) -> None:
    """Print progress where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def train(config: ModelConfig, data_dir: str | os.PathLike[str], output: str | os.PathLike[str],
          steps: int = 1000, seed: int = 0, log: Callable[[str], None] = to_stderr) -> CTCModel:
    """Train on the recordings of `data_dir` and write the float checkpoint `output` (safetensors).

    The vocabulary is the data's. One thread. Without synthetic voices the result depends on the data, `config`,
    `steps` and `seed` (and on torch and the processor); some synthetic voices add noise of their own. Raises
    PhonolithError if the data holds no recordings that training may open.
    """
    check_writable(output)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    vocabulary = vocabulary_of(training_recordings(data_dir))
    parameters = feature_parameters(config, data_dir, seed)
    model = build(replace(config, vocabulary=vocabulary), DROPOUT, parameters)
    model.front_end.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (stub lacks it)
    batches = make_batches(data_dir, vocabulary, seed, parameters, log)
    optimize(model, batches, steps, log)
    save_model(model, output)
    return model
