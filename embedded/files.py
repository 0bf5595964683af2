"""Files that hold a secret."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write a file only its owner may read; there is the whole file under its name, or none."""
    # mkstemp creates it 0600 and follows no link.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
