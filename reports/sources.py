"""Which sources a committed figure was made from."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

# They describe or emit hardware; the others do not change what is synthesized.
NOT_HARDWARE = ("__init__.py", "errors.py")


@cache
def hardware_sources() -> str:
    """Return sixteen hex digits that name the sources of ``phonolith.hw``."""
    folder = Path(str(resources.files("phonolith.hw")))
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        if path.name not in NOT_HARDWARE:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
