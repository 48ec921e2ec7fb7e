"""Float checkpoints: one safetensors file whose metadata names the family and holds its configuration."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from phonolith.hw.errors import PhonolithError
from phonolith.models.families import CONFIGS, build, default_features
from phonolith.models.features import FeatureParameters
from phonolith.models.layers import CTCModel

FORMATS = {f"phonolith-{family}-1": config for family, config in CONFIGS.items()}


def save_model(model: CTCModel, path: str | os.PathLike[str]) -> None:
    """Write a float checkpoint. A file of that name is replaced only when the new one is complete."""
    target = Path(path)
    # One key only: safetensors writes several in no fixed order, and equal models should be equal files.
    description = {"format": f"phonolith-{model.config.family}-1", "config": model.config.as_dict(),
                   "features": model.features.as_dict()}
    metadata = {"phonolith": json.dumps(description)}
    content = save({name: value.contiguous() for name, value in model.state_dict().items()}, metadata)
    try:
        write_whole(target, content)
    except OSError as error:
        raise PhonolithError("cannot-write", f"cannot write {target}: {error.strerror}",
                             "free some space there, or choose another folder") from error


def write_whole(target: Path, content: bytes) -> None:
    """Write a file by one rename; nothing stays of one that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint that could not be written, before the work that leads to it."""
    target = Path(path)
    try:
        write_whole(target.with_name(f".{target.name}.probe"), b"")
    except OSError as error:
        raise PhonolithError("cannot-write", f"cannot write {target}: {error.strerror}",
                             "choose a folder that you may write to") from error
    target.with_name(f".{target.name}.probe").unlink()


def load_model(path: str | os.PathLike[str]) -> CTCModel:
    """Read a float checkpoint of any family; the model is in evaluation mode.

    Raises PhonolithError if the file is missing, damaged, or no checkpoint.
    """
    description, tensors = _read(path)
    config = FORMATS[description["format"]].from_dict(description["config"])
    model = build(config, features=FeatureParameters.from_dict(
        {**default_features(config).as_dict(), **description.get("features", {})}))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise PhonolithError("model", f"{path}: tensors do not fit the configuration ({error})",
                             "make the checkpoint again with phonolith train") from error
    return model.eval()


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description and the tensors of a checkpoint."""
    if not Path(path).is_file():
        raise PhonolithError("model", f"{path}: no such checkpoint", "make one with phonolith train")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("phonolith", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise PhonolithError("model", f"{path}: not a safetensors file ({error})",
                             "make a checkpoint with phonolith train") from error
    if description.get("format") not in FORMATS:
        raise PhonolithError("model", f"{path}: format {description.get('format')!r} is not a float checkpoint",
                             f"give a file of format {' or '.join(FORMATS)}, as phonolith train writes it")
    return description, tensors
