"""Reads IDX files, the format of MNIST and its kin, and refuses what is not exactly one.

The format: two zero bytes, a type code (8 for unsigned bytes), the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values in row-major order and nothing more.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"


class NotIdx(ValueError):
    """The file is not a whole IDX file of the expected shape; get it again."""


def read_idx(path: Path, shape: tuple[int | None, ...]) -> Tensor:
    """Return the values of an IDX file of unsigned bytes, plain or gzipped, as uint8.

    Args:
        path: the file; whether it is gzipped is seen from its content.
        shape: the expected dimensions, None where any size will do, such as (None, 28, 28).

    Raises:
        NotIdx: another magic number, another shape, bytes missing or left over, broken gzip.
        OSError: the file cannot be read.

    """
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise NotIdx(f"{path} is not a whole gzip file: {error}") from error
    magic = bytes([0, 0, UNSIGNED_BYTE, len(shape)])
    header_bytes = 4 + 4 * len(shape)
    if content[:4] != magic:
        raise NotIdx(f"{path} starts with {content[:4].hex()}, not with {magic.hex()}")
    if len(content) < header_bytes:
        raise NotIdx(f"{path} ends within its header")
    sizes = struct.unpack(f">{len(shape)}I", content[4:header_bytes])
    if any(wanted not in (None, size) for wanted, size in zip(shape, sizes, strict=True)):
        raise NotIdx(f"{path} has the dimensions {sizes}, not {shape}")
    # Compared before anything is allocated, so that a forged header cannot ask for gigabytes.
    if len(content) - header_bytes != math.prod(sizes):
        raise NotIdx(
            f"{path} holds {len(content) - header_bytes} values, its header says "
            f"{math.prod(sizes)}: the file is truncated or damaged"
        )
    if math.prod(sizes) == 0:
        return torch.empty(sizes, dtype=torch.uint8)
    # A bytearray, because PyTorch warns of memory that it may not write to.
    return torch.frombuffer(bytearray(content[header_bytes:]), dtype=torch.uint8).reshape(sizes)
