"""A small log and its receipts, made from docs/evidence-formats.md alone, truly or not."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.lethe.verify import naive
from tests.lethe.verify.names import (
    KEY,
    MODEL,
    ORIGIN,
    REQUEST,
    SALT,
    Json,
    digest,
    quoted,
    utc,
    weights,
)
from tests.lethe.verify.sealing import seal


@dataclass
class Story:
    """Entries are told one a minute; the tree of each model keeps its first version's shape."""

    origin: str = ORIGIN
    key: Ed25519PrivateKey = KEY
    entries: list[Json] = field(default_factory=list)
    keys: dict[UUID, set[bytes]] = field(default_factory=dict)
    gone: dict[UUID, set[bytes]] = field(default_factory=dict)
    made: dict[UUID, list[Json]] = field(default_factory=dict)
    proofs: dict[str, Json] = field(default_factory=dict)

    def say(self, event: str, subject: UUID, facts: Json) -> None:
        at = quoted(len(self.entries))
        self.entries.append({"at": at, "event": event, "facts": facts, "subject": str(subject)})

    def register(self, names: Sequence[str], model: UUID = MODEL, name: str = "digits") -> None:
        """Publish a model's first version, trained on these samples."""
        self.keys[model] = {naive.sample_key(model, digest(each)) for each in names}
        self.gone[model] = set()
        facts = {
            "model": str(model),
            "model_name": name,
            "number": 1,
            "digest": "sha256:" + hashlib.sha256(weights(1, model)).hexdigest(),
            "id_key_id": "k-1",
            "commitment": {"root": self._root(model), "retained": len(names)},
        }
        self.made[model] = [facts]
        self.say("version.current", version_id(model, 1), facts)

    def forget(self, names: Sequence[str], model: UUID = MODEL, **facts: Any) -> int:
        """Publish a version without these samples; return its number."""
        parent = self.made[model][-1]
        number = parent["number"] + 1
        before = self._root(model)
        going = {naive.sample_key(model, digest(each)) for each in names}
        proof = naive.transition(self.keys[model], self.gone[model], going)
        self.gone[model] |= going
        made = {
            "model": str(model),
            "model_name": parent["model_name"],
            "number": number,
            "digest": "sha256:" + hashlib.sha256(weights(number, model)).hexdigest(),
            "parent_digest": parent["digest"],
            "id_key_id": "k-1",
            "method": "nabla_tau",
            "guarantee": "approximate",
            "verdict": "passed",
            "rungs": [{"seconds": 1.5}],
            "commitment": {
                "root": self._root(model),
                "retained": len(self.keys[model]) - len(self.gone[model]),
                "parent_root": before,
                "removed": len(going),
            },
        } | facts
        self.proofs[made["digest"]] = proof
        self.made[model].append(made)
        self.say("version.withdrawn", version_id(model, number - 1), {})
        self.say("version.current", version_id(model, number), made)
        return number

    def ask(self, names: Sequence[str], request: UUID = REQUEST, salt: bytes | None = SALT) -> None:
        samples = sorted(digest(each) for each in names)
        facts: Json = {"regulation": "gdpr", "samples": len(samples), "due_at": quoted(60)}
        if salt is not None:
            said = naive.sha256(b"lethe samples", b"\x00", salt, *samples)
            facts["samples_commitment"] = said.hex()
        self.say("deletion_request.pending", request, facts)
        self.say("deletion_request.in_progress", request, {})

    def finish(
        self,
        names: Sequence[str],
        erasures: Sequence[Json],
        status: str = "completed",
        request: UUID = REQUEST,
    ) -> None:
        """Say that a request ended; ``erasures`` are those of the receipt."""
        facts = {
            "regulation": "gdpr",
            "samples": len(names),
            "received_at": quoted(0.5),
            "erasures": [
                {
                    "model": each["model"],
                    "samples": len(each["forgotten"]) or 1,
                    "status": each["status"],
                    "version": each["version"],
                    "digest": self._digest(each),
                }
                for each in erasures
            ],
        }
        self.say(f"deletion_request.{status}", request, facts)

    def _digest(self, erasure: Json) -> str | None:
        if erasure["version"] is None:
            return None
        digest: str = self.made[UUID(erasure["model"])][erasure["version"] - 1]["digest"]
        return digest

    def _root(self, model: UUID) -> str:
        return naive.sparse_root(self.keys[model], self.gone[model]).hex()

    @property
    def leaves(self) -> list[bytes]:
        return [rfc8785.dumps(entry) for entry in self.entries]

    def head(self, size: int | None = None, minutes: float = 100, **other: Any) -> str:
        size = len(self.entries) if size is None else size
        told: Json = {
            "origin": self.origin,
            "size": size,
            "root_hash": naive.root(self.leaves[:size]),
            "at": utc(minutes),
            "key": self.key,
        } | other
        return naive.note(**told)

    def export(self, heads: Sequence[str] | None = None) -> bytes:
        heads = [self.head()] if heads is None else heads
        lines = [
            {"format": "lethe-log-v1", "origin": self.origin},
            *({"entry": leaf.decode()} for leaf in self.leaves),
            *({"checkpoint": head} for head in heads),
        ]
        return b"".join(rfc8785.dumps(line) + b"\n" for line in lines)

    def statement(
        self,
        names: Sequence[str],
        erasures: Sequence[Json],
        status: str = "completed",
        salt: bytes | None = SALT,
        request: UUID = REQUEST,
    ) -> Json:
        last = [entry for entry in self.entries if entry["subject"] == str(request)][-1]
        versions = [
            self.made[UUID(model)][number - 1]
            for model, number in sorted(
                {(e["model"], f["version"]) for e in erasures for f in e["forgotten"]}
            )
        ]
        subjects = [
            {
                "name": f"models/{facts['model_name']}/versions/{facts['number']}",
                "digest": {"sha256": facts["digest"].removeprefix("sha256:")},
            }
            for facts in versions
        ] or [
            {
                "name": f"requests/{request}",
                "digest": {"sha256": naive.sha256(b"\x00", rfc8785.dumps(last)).hex()},
            }
        ]
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": "urn:lethe:deletion-receipt:v1",
            "predicate": {
                "issuer": {"log": self.origin, "software": "lethe 0.1.0"},
                "issued_at": utc(101),
                "request": {
                    "id": str(request),
                    "status": status,
                    "regulation": "gdpr",
                    "received_at": utc(0.5),
                    "due_at": utc(60),
                    "finished_at": last["at"].replace("+00:00", "Z"),
                    "id_key_id": "k-1",
                    "samples": sorted(digest(each).hex() for each in names),
                    "salt": None if salt is None else salt.hex(),
                },
                "erasures": list(erasures),
                "versions": deepcopy(versions),
                "not_shown": ["That nobody kept a copy."],
            },
        }

    def receipt(self, statement: Json, size: int | None = None, minutes: float = 100) -> Json:
        size = len(self.entries) if size is None else size
        request = statement["predicate"]["request"]["id"]
        versions = statement["predicate"]["versions"]
        wanted = {
            (facts["model"], number)
            for facts in versions
            for number in (facts["number"], facts["number"] - 1)
        }
        leaves = self.leaves[:size]
        quoted = [
            {
                "entry": leaf.decode(),
                "path": [node.hex() for node in naive.inclusion(position, leaves)],
                "position": position,
            }
            for position, leaf in enumerate(leaves)
            if self.entries[position]["subject"] == request
            or (
                self.entries[position]["event"] == "version.current"
                and _place(self.entries[position]["facts"]) in wanted
            )
        ]
        return {
            "format": "lethe-receipt-v1",
            "envelope": seal(rfc8785.dumps(statement)),
            "log": {"checkpoint": self.head(size, minutes), "entries": quoted},
            "transitions": [
                {"digest": facts["digest"], "proof": deepcopy(self.proofs.get(facts["digest"]))}
                for facts in versions
            ],
        }


def version_id(model: UUID, number: int) -> UUID:
    return UUID(bytes=naive.sha256(model.bytes, bytes([number]))[:16])


def erasure(
    forgotten: dict[str, int],
    version: int | None = None,
    status: str = "completed",
    model: UUID = MODEL,
    name: str = "digits",
) -> Json:
    """What became of a request in one model; ``forgotten`` has the versions by sample."""
    return {
        "model": str(model),
        "name": name,
        "status": status,
        "version": max(forgotten.values()) if forgotten and version is None else version,
        "forgotten": [
            {"sample": digest(each).hex(), "version": number} for each, number in forgotten.items()
        ],
    }


def simple() -> tuple[Story, Json]:
    """One request for two samples, of which the model was trained on one."""
    story = Story()
    story.register(["a", "b", "c"])
    story.ask(["a", "z"])
    story.forget(["a", "c"])
    erasures = [erasure({"a": 2})]
    story.finish(["a", "z"], erasures)
    return story, story.receipt(story.statement(["a", "z"], erasures))


def in_two_versions() -> tuple[Story, Json]:
    """A request for two samples, of which an earlier job forgot one for somebody else."""
    story = Story()
    story.register(["a", "b", "c", "d"])
    story.forget(["a"])
    story.ask(["a", "b"])
    story.forget(["b", "d"], verdict="inconclusive", guarantee="exact")
    erasures = [erasure({"a": 2, "b": 3})]
    story.finish(["a", "b"], erasures)
    return story, story.receipt(story.statement(["a", "b"], erasures))


def _place(facts: Json) -> tuple[str, int]:
    return facts["model"], facts["number"]
