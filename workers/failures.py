"""Say what went wrong without quoting it: a recipe's exception may hold a sample ID."""

import os
import traceback
from pathlib import PurePath

import torch

from app.errors import LetheError
from app.keys import KeyRefused
from workers.artifacts import Corrupted
from workers.data import DataChanged
from workers.recipes import UnknownRecipe
from workers.unlearning.errors import UnlearningError

# Errors whose words are this project's own.
OWN = (LetheError, KeyRefused, Corrupted, DataChanged, UnknownRecipe, UnlearningError)

# What another attempt would meet again; everything else may pass.
PERMANENT = (Corrupted, DataChanged, UnknownRecipe)

# What fewer records at a time may avoid.
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


def describe(error: BaseException) -> str:
    """Return the type and the place of an error, and its words only if they are our own."""
    if isinstance(error, OWN):
        return f"{type(error).__name__}: {error}"
    kind = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int):
        # The system's words for the number; the error's own may quote a file's name.
        kind += f" ({os.strerror(error.errno)})"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return kind
    place = PurePath(frames[-1].filename)
    return f"{kind} in {place.parent.name}/{place.name}:{frames[-1].lineno}"
