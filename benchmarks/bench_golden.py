"""How many utterances the golden model interprets per second of one core, and for how many features are computed.

    OPENBLAS_NUM_THREADS=1 python benchmarks/bench_golden.py [--data DIR] [--model M] [--strings N] [--repeats N]

Prints one JSON object: utterances per second of processor time, of the features alone and of the golden model alone
(median, least and most of some rounds over the same utterances, after one to warm up), and what was measured. With
``--data`` the utterances are strings of that folder's test recordings, as those of ``phonolith evaluate``; without
it, the shipped clips.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonolith.compiler import model_file
from phonolith.models.data import StringMaker, evaluation_recordings
from phonolith.models.features import SAMPLE_RATE, features, load_wav
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.recognise import feature_parameters, quantize_features

CLIPS = Path(__file__).parents[1] / "models" / "clips"


def utterances(data: Path | None, strings: int) -> list[np.ndarray]:
    """Return float32 samples: of strings of the recordings in ``data``, or of the shipped clips."""
    if data is None:
        return [load_wav(path) for path in sorted(CLIPS.glob("*.wav"))]
    return [each.samples for each in StringMaker(evaluation_recordings(data), 0).strings(strings)]


def rates(run: Callable[[], object], count: int, repeats: int) -> dict[str, float]:
    """Return the median, the least and the most of ``count`` / seconds of processor time that ``run`` takes."""
    run()
    measured = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        measured.append(count / (time.process_time() - started))
    return {"median": round(statistics.median(measured), 2), "least": round(min(measured), 2),
            "most": round(max(measured), 2)}


def measure(model: str, data: Path | None, strings: int, repeats: int) -> dict:
    """Return utterances per second for features and for the golden model, and the configuration."""
    graph, samples = model_file.load(model_file.resolve(model)), utterances(data, strings)
    parameters, name = feature_parameters(graph), graph.inputs[0].name

    def front_end() -> list[np.ndarray]:
        return [quantize_features(graph, features(each, parameters=parameters)) for each in samples]

    inputs = front_end()
    return {
        "model": model, "utterances": len(samples), "repeats": repeats,
        "mean_seconds": round(sum(map(len, samples)) / SAMPLE_RATE / len(samples), 3),
        "mean_frames": round(statistics.mean(map(len, inputs)), 1),
        "features_per_second": rates(front_end, len(samples), repeats),
        "golden_per_second": rates(lambda: [interpret(graph, {name: each}) for each in inputs], len(samples), repeats),
        "numpy": np.__version__, "python": platform.python_version(), "processor": platform.machine(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="conformer-ctc-w8", metavar="NAME|FILE")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--strings", type=int, default=40, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
