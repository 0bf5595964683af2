"""Check a demo's receipts and its log as an auditor would: with ``lethe.verify`` alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lethe.verify.keys import load_keys
from lethe.verify.log import verify_log
from lethe.verify.receipt import Verified, verify_receipt

Fetch = Callable[[str], bytes]


def check(
    fetch: Fetch, pinned: str, requests: list[Any], weights: bytes, folder: Path
) -> Iterator[str]:
    """Yield what was proven, step by step; the files are left in the folder, to be checked again.

    Args:
        fetch: returns what the service answers at a path.
        pinned: the signed tree head that was kept before anything happened.
        requests: the finished requests, as the service describes them.
        weights: the file that is served.
        folder: an empty folder.

    Raises:
        NotProven: at the first thing that does not hold.

    """
    keys = load_keys(_keep(folder / "keys.json", fetch("/v1/keys")).read_bytes())
    served = _keep(folder / "served.safetensors", weights)
    _keep(folder / "pinned.txt", pinned.encode())
    receipts = [
        _keep(
            folder / f"receipt-{number}.json",
            fetch(f"/v1/deletion-requests/{request['id']}/receipt"),
        )
        for number, request in enumerate(requests, 1)
    ]
    # After the receipts, so that it reaches as far as their tree heads.
    log = _keep(folder / "log.jsonl", fetch("/v1/audit/export"))
    found: list[Verified] = []
    for receipt, request in zip(receipts, requests, strict=True):
        weights_given = served if request["status"] == "completed" else None
        content = receipt.read_bytes()
        found.append(verify_receipt(content, keys, weights=weights_given, log=log, pinned=[pinned]))
    named = [each.weights_of.version for each in found if each.weights_of is not None]
    yield f"{len(found)} receipts hold: signatures, places in the log, versions, removed samples"
    yield f"{len(named)} of them name the weights that were downloaded: sha256:{named[0].digest}"
    replayed = verify_log(log, keys, [pinned])
    yield f"the log of {replayed.size} entries, replayed, has the root of its signed head"
    yield f"and appends to the head of {found[0].pinned[0].size} that was pinned before"
    yield (
        f"check it yourself: lethe verify {folder}/receipt-1.json --key {folder}/keys.json "
        f"--weights {served} --log {log}"
    )


def _keep(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
