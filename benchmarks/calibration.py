"""Word error rate of the shipped float model and of its quantizations by each way to choose clips.

    python benchmarks/calibration.py [RECORDINGS] [STRINGS]

Needs torch (``make setup EXTRAS=train``). Prints the table of docs/decisions/0004-calibration-range.md.
"""

import sys
import tempfile
from pathlib import Path

from phonolith.compiler import model_file
from phonolith.compiler.calibrate import CLIPS
from phonolith.compiler.quantization import Quantization
from phonolith.compiler.quantize import quantize_checkpoint
from phonolith.models.evaluate import evaluate, evaluate_float
from phonolith.sim.recognise import golden_recogniser

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "models/checkpoints/encoder-ctc.safetensors"
SEEDS = (0, 1)


def integer_rates(data: Path, strings: int, clip: str) -> list[float]:
    """Return the word error rate of one quantization for each seed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        quantize_checkpoint(CHECKPOINT, data, path, options=Quantization(clip=clip))
        recognise = golden_recogniser(model_file.load(path))
    return [evaluate(recognise, data, strings, seed).as_dict()["wer"] for seed in SEEDS]


def main() -> None:
    """Print one line per way."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared/data/fsdd/recordings"
    strings = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    print("| `--calibrate` |" + "".join(f" WER, {strings} strings, seed {seed} |" for seed in SEEDS))
    print("|---|" + "---|" * len(SEEDS))
    rows = {"float32": [evaluate_float(CHECKPOINT, data, strings, seed).as_dict()["wer"] for seed in SEEDS]}
    rows |= {f"`{clip}`": integer_rates(data, strings, clip) for clip in CLIPS}
    for name, rates in rows.items():
        print(f"| {name} |" + "".join(f" {100 * rate:.2f} % |" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
