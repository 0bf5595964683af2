"""Envelopes around statements, and the lies that are put into them."""

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lethe.verify.keys import thumbprint
from tests.lethe.verify import naive
from tests.lethe.verify.names import KEY, Json

Change = Callable[[Json], Any]


def seal(payload: bytes, key: Ed25519PrivateKey = KEY, **other: Any) -> Json:
    """Return a DSSE envelope."""
    kind = "application/vnd.in-toto+json"
    signature = key.sign(naive.pae(kind.encode(), payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [
            {"keyid": thumbprint(key.public_key()), "sig": base64.b64encode(signature).decode()}
        ],
    } | other


def opened(receipt: Json) -> Json:
    """Return the statement in a receipt."""
    statement: Json = json.loads(base64.b64decode(receipt["envelope"]["payload"]))
    return statement


def restated(receipt: Json, change: Callable[[Json], None]) -> Json:
    """Return a receipt whose statement was changed and signed anew, with the log's own key."""
    statement = opened(receipt)
    change(statement)
    return {**deepcopy(receipt), "envelope": seal(rfc8785.dumps(statement))}


def set_at(*path: str | int, to: Any) -> Change:
    def change(value: Json) -> None:
        for step in path[:-1]:
            value = value[step]  # type: ignore[index]
        value[path[-1]] = to  # type: ignore[index]

    return change


def delete(*path: str | int) -> Change:
    def change(value: Json) -> None:
        for step in path[:-1]:
            value = value[step]  # type: ignore[index]
        del value[path[-1]]  # type: ignore[arg-type]

    return change
