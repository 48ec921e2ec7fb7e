"""What was said in a recording, where that is known."""

import os
from pathlib import Path

from phonolith.models.data import find_recordings, recording_from_name

MANIFEST = "transcripts.csv"


def reference_words(path: str | os.PathLike[str]) -> str | None:
    """Return the words of a recording listed in its folder's ``transcripts.csv`` or named like FSDD's, else None."""
    audio = Path(path)
    manifest = audio.parent / MANIFEST
    listed = find_recordings(manifest) if manifest.is_file() else ()
    named = recording_from_name(audio)
    found = [item for item in (*listed, *([named] if named else [])) if item.path.resolve() == audio.resolve()]
    return " ".join(found[0].words) if found else None
