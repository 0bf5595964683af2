"""Look at an uploaded checkpoint without torch: is it a whole safetensors file?

The format (safetensors 0.x): 8 bytes N, little-endian; N bytes of JSON naming for each tensor
its dtype, shape and byte range; then the bytes, which the ranges cover without hole or overlap.
"""

import json
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.errors import NotACheckpoint

# The reference reader's own bound, against headers that eat the reader's memory.
LONGEST_HEADER_BYTES = 100_000_000

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_Whole = Annotated[int, Field(ge=0, strict=True)]


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dtype: str
    shape: list[_Whole]
    data_offsets: tuple[_Whole, _Whole]


_HEADER = TypeAdapter(dict[str, _Tensor])


def require_safetensors(path: Path) -> None:
    """Check the file's structure; its numbers are checked against the recipe later.

    Raises:
        NotACheckpoint: saying what is wrong with the file.

    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise NotACheckpoint("The file ends within the length of its header.")
        length = int.from_bytes(prefix, "little")
        if length > min(LONGEST_HEADER_BYTES, size - 8):
            raise NotACheckpoint("The header is longer than the file; is it safetensors?")
        header = file.read(length)
    tensors = _tensors(header)
    if not tensors:
        raise NotACheckpoint("The file holds no tensors.")
    ranges = sorted(tensor.data_offsets for tensor in tensors.values())
    joined = all(left[1] == right[0] for left, right in pairwise(ranges))
    if not joined or ranges[0][0] != 0 or ranges[-1][1] != size - 8 - length:
        raise NotACheckpoint("The tensors' bytes do not fill the file; it is cut off or altered.")
    for tensor in tensors.values():
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            raise NotACheckpoint("A tensor has a dtype that is not known here.")
        start, end = tensor.data_offsets
        if prod(tensor.shape) * bits != 8 * (end - start):
            raise NotACheckpoint("A tensor's bytes do not fit its shape and dtype.")


def _tensors(header: bytes) -> dict[str, _Tensor]:
    try:
        content: Any = json.loads(header, object_pairs_hook=_unique)
        if isinstance(content, dict):
            content.pop("__metadata__", None)
        return _HEADER.validate_python(content)
    except (ValueError, RecursionError, ValidationError) as error:
        raise NotACheckpoint("The header is not safetensors' JSON.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands twice")
    return content
