"""Weights on disk: safetensors and nothing else, checked against their digest before parsing."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor


class Corrupted(Exception):
    """A file does not hold the bytes that its digest names, or they are no safetensors."""


def digest_of(content: bytes) -> str:
    """Return the digest by which artifacts are named: ``sha256:`` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def dump_state(state: Mapping[str, Tensor]) -> bytes:
    """Return the state dict as safetensors; equal states give equal bytes, on any device.

    Tensors that share memory, such as tied weights, are written once for each name: the format
    has no aliases, and a module ties them again when it loads them.

    Raises:
        TypeError: an entry is not a dense tensor; the format holds nothing else.

    """
    # Copies, because the format refuses tensors that are strided or share their memory.
    dense = {
        name: _dense(name, state[name]).clone(memory_format=torch.contiguous_format)
        for name in sorted(state)
    }
    return safetensors.torch.save(dense)


def write_state(state: Mapping[str, Tensor], path: Path) -> str:
    """Write the state dict to the path and return its digest.

    The file appears whole or not at all, and it is durable when this returns.
    """
    content = dump_state(state)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    incoming = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        incoming.chmod(0o644)  # mkstemp's 0600 would keep the service from a file made for it
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the rename itself durable
    finally:
        os.close(folder)
    return digest_of(content)


def load_state(path: Path, digest: str) -> dict[str, Tensor]:
    """Return the state dict of a safetensors file, on the CPU, if the file has the digest.

    The bytes that are hashed are the bytes that are parsed: the file is read once.

    Raises:
        Corrupted: the bytes are others than the digest names, or no safetensors.
        OSError: the file cannot be read.

    """
    content = path.read_bytes()
    found = digest_of(content)
    if found != digest:
        raise Corrupted(
            f"the file stored as {digest} holds {len(content)} bytes with the digest {found}; "
            "restore it from a backup, or register the checkpoint again"
        )
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError):  # KeyError: a dtype that PyTorch lacks
        # Without the parser's words: they may quote the header, and people write into headers.
        raise Corrupted(f"{digest} is no safetensors file that PyTorch can load") from None


def _dense(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
        raise TypeError(
            f"{name!r} is no dense tensor; only dense tensors can be stored in safetensors"
        )
    return value.detach().cpu()
