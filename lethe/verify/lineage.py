"""The versions that a receipt speaks of: their parents, and the samples that went in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import rfc8785

from lethe.verify.commitment import sample_key, verify_transition
from lethe.verify.documents import Malformed, digest, members
from lethe.verify.entries import CURRENT, Entry, Version, read_version
from lethe.verify.reasons import NotProven, Reason

Place = tuple[UUID, int]  # model, number


@dataclass(frozen=True, slots=True)
class Step:
    """A version, its parent, and the keys of the samples that went between the two."""

    version: Version
    parent: Version
    retained: int
    """How many samples the version commits to."""
    removed: frozenset[bytes]

    def forgot(self, sample: bytes) -> bool:
        """Tell whether a sample, by its keyed digest, is among those that went."""
        return sample_key(self.version.model, sample) in self.removed


@dataclass(frozen=True, slots=True)
class _Made:
    position: int
    version: Version
    facts: bytes


def trace(
    entries: Sequence[tuple[int, Entry]],
    listed: Sequence[Mapping[str, Any]],
    transitions: Sequence[object],
) -> list[Step]:
    """Return the steps that made the versions of a statement, in its order.

    Args:
        entries: those of the log that are not about the request, by position.
        listed: facts of versions, as the statement has them.
        transitions: one proof for each of these.

    Raises:
        NotProven: entries are missing or have nothing to do with it, a version does not follow from
            its parent, or a proof does not hold.

    """
    made = _made(entries)
    versions = _find(listed, made)
    parents = [_parent(version, made) for version in versions]
    if made.keys() != {_place(each) for each in [*versions, *parents]}:
        raise NotProven(Reason.ENTRIES_CONTRADICT, "an entry has nothing to do with the request")
    for version in versions:
        if version.commitment is None:
            raise _without_commitment(version)
    if len(transitions) != len(versions):
        raise NotProven(Reason.COMMITMENT_CONTRADICTS, "not one transition for each version")
    return [
        _step(version, parent, transition)
        for version, parent, transition in zip(versions, parents, transitions, strict=True)
    ]


def check_commitment(version: Version, parent: Version) -> None:
    """Hold what a version retains against what its parent retained.

    Raises:
        NotProven: the one does not follow from the other.

    """
    before, after = parent.commitment, version.commitment
    if before is None:
        return
    if after is None:
        raise _without_commitment(version)
    if after.parent_root != before.root:
        raise NotProven(
            Reason.COMMITMENT_CONTRADICTS, f"{version.label} begins at another root than its parent"
        )
    if after.retained != before.retained - after.removed:
        raise NotProven(
            Reason.COMMITMENT_CONTRADICTS, f"{version.label} retains another number of samples"
        )


def _made(entries: Sequence[tuple[int, Entry]]) -> dict[Place, _Made]:
    made: dict[Place, _Made] = {}
    for position, entry in entries:
        if entry.event != CURRENT:
            raise NotProven(
                Reason.ENTRIES_CONTRADICT, "an entry is about neither the request nor a version"
            )
        version = read_version(entry)
        if _place(version) in made:
            raise NotProven(Reason.CHAIN_BROKEN, f"version {version.number} was made twice")
        made[_place(version)] = _Made(position, version, rfc8785.dumps(dict(entry.facts)))
    return made


def _find(listed: Sequence[Mapping[str, Any]], made: Mapping[Place, _Made]) -> list[Version]:
    # As bytes: for Python, true and 1 are equal.
    by_facts = {each.facts: each.version for each in made.values()}
    versions: list[Version] = []
    for facts in listed:
        version = by_facts.get(rfc8785.dumps(dict(facts)))
        if version is None:
            raise NotProven(Reason.ENTRIES_MISSING, "no entry quoted has a version's facts")
        versions.append(version)
    if len({_place(version) for version in versions}) != len(versions):
        raise NotProven(Reason.ENTRIES_CONTRADICT, "the statement lists a version twice")
    return versions


def _parent(version: Version, made: Mapping[Place, _Made]) -> Version:
    if version.number == 1:
        raise NotProven(Reason.CHAIN_BROKEN, "a model's first version has forgotten nothing")
    found = made.get((version.model, version.number - 1))
    if found is None:
        raise NotProven(Reason.ENTRIES_MISSING, f"no entry of the parent of {version.label}")
    if found.version.digest != version.parent_digest:
        raise NotProven(Reason.CHAIN_BROKEN, f"{version.label} names another parent")
    if found.position > made[_place(version)].position:
        raise NotProven(Reason.CHAIN_BROKEN, f"{version.label} came before its parent")
    return found.version


def _step(version: Version, parent: Version, transition: object) -> Step:
    check_commitment(version, parent)
    after = version.commitment
    if after is None or after.parent_root is None:
        raise _without_commitment(version)
    try:
        found = members(transition, "transition", "digest", "proof")
        about = digest(found["digest"], "transition.digest")
    except Malformed as error:
        raise NotProven(Reason.RECEIPT_MALFORMED, str(error)) from None
    if about != version.digest:
        raise NotProven(
            Reason.COMMITMENT_CONTRADICTS, f"the transition in the place of {version.label}'s"
        )
    removed = verify_transition(found["proof"], after.parent_root, after.root)
    if len(removed) != after.removed:
        raise NotProven(
            Reason.COMMITMENT_CONTRADICTS, f"{version.label} removed another number of samples"
        )
    return Step(version, parent, after.retained, removed)


def _without_commitment(version: Version) -> NotProven:
    return NotProven(Reason.NO_COMMITMENT, f"{version.label} does not say what it retains")


def _place(version: Version) -> Place:
    return version.model, version.number
