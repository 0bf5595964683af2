"""The device that a worker computes on."""

import torch

from app.settings import settings


def set_up_device() -> torch.device:
    """Return the device of the settings and bound torch's threads; called in the child process.

    CUDA must not be touched before a fork, so that nothing here runs at import.
    """
    threads = settings().torch_threads
    if threads is not None:
        torch.set_num_threads(threads)
    if settings().device != "auto":
        return torch.device(settings().device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
