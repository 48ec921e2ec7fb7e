"""How many utterances per second the golden model interprets on one core, and how many features are computed for.

    OPENBLAS_NUM_THREADS=1 python benchmarks/bench_golden.py --data DIR [--model conformer-ctc-w8] [--strings 40]

Prints one JSON object: utterances per second of features alone and of the golden model alone (medians of several
rounds over the same strings, after one round to warm up), and what they were measured with.
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
from phonolith.models.features import SAMPLE_RATE, features
from phonolith.sim.golden.interpret import interpret
from phonolith.sim.recognise import feature_parameters, quantize_features


def rounds(run: Callable[[], None], strings: int, repeats: int) -> dict[str, float]:
    """Return the median, the least and the most utterances per second of ``run`` over all strings."""
    run()
    rates = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        rates.append(strings / (time.process_time() - started))
    return {"median": round(statistics.median(rates), 2), "least": round(min(rates), 2), "most": round(max(rates), 2)}


def measure(model: str, data: Path, strings: int, repeats: int) -> dict:
    """Return utterances per second of processor time, for features and for the golden model."""
    graph = model_file.load(model_file.resolve(model))
    parameters, name = feature_parameters(graph), graph.inputs[0].name
    samples = [each.samples for each in StringMaker(evaluation_recordings(data), 0).strings(strings)]

    def front_end() -> list[np.ndarray]:
        return [quantize_features(graph, features(each, parameters=parameters)) for each in samples]

    inputs = front_end()

    def golden() -> None:
        for frames in inputs:
            interpret(graph, {name: frames})

    return {
        "model": model, "strings": strings, "repeats": repeats,
        "frames": round(statistics.mean(map(len, inputs)), 1),
        "seconds_of_speech": round(sum(map(len, samples)) / SAMPLE_RATE / strings, 3),
        "features_per_second": rounds(front_end, strings, repeats),
        "golden_per_second": rounds(golden, strings, repeats),
        "numpy": np.__version__, "python": platform.python_version(), "processor": platform.machine(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="conformer-ctc-w8")
    parser.add_argument("--data", type=Path, required=True, help="recordings, as for `phonolith evaluate`")
    parser.add_argument("--strings", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
