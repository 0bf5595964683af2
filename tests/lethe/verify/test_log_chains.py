"""Every model's versions are one chain, or the log contradicts itself."""

import io
from collections.abc import Callable
from uuid import UUID

import pytest

from lethe.verify import NotProven, Reason, ReplayedLog, verify_log
from tests.lethe.verify.names import MODEL, TRUSTED, Json
from tests.lethe.verify.story import Story, simple, version_id


def replayed(content: bytes, *pinned: str) -> ReplayedLog:
    return verify_log(io.BytesIO(content), [TRUSTED], pinned)


def reason_of(content: bytes, *pinned: str) -> Reason:
    with pytest.raises(NotProven) as refused:
        replayed(content, *pinned)
    return refused.value.reason


def published(story: Story) -> list[Json]:
    return [entry for entry in story.entries if entry["event"] == "version.current"]


def version_again(story: Story) -> None:
    story.say("version.withdrawn", version_id(MODEL, 2), {})
    story.say("version.current", version_id(MODEL, 2), story.made[MODEL][1])


def number_again(story: Story) -> None:
    story.say("version.withdrawn", version_id(MODEL, 2), {})
    story.say("version.current", UUID(int=9), story.made[MODEL][1])


def id_again(story: Story) -> None:
    story.forget(["b"])
    published(story)[-1]["subject"] = str(version_id(MODEL, 2))


def beside_its_parent(story: Story) -> None:
    story.forget(["b"])
    story.entries.pop(-2)


def removed_more_than_it_says(story: Story) -> None:
    story.forget(["b"])
    published(story)[-1]["facts"]["commitment"]["retained"] = 1


def grew(story: Story) -> None:
    story.forget([])
    commitment = published(story)[-1]["facts"]["commitment"]
    commitment.update(retained=3, removed=0, root=story.made[MODEL][0]["commitment"]["root"])


def from_another_root(story: Story) -> None:
    story.forget(["b"])
    commitment = published(story)[-1]["facts"]["commitment"]
    commitment["parent_root"] = story.made[MODEL][0]["commitment"]["root"]


def without_commitment(story: Story) -> None:
    story.forget(["b"])
    del published(story)[-1]["facts"]["commitment"]


def of_another_parent(story: Story) -> None:
    story.forget(["b"])
    published(story)[-1]["facts"]["parent_digest"] = story.made[MODEL][0]["digest"]


def number_left_out(story: Story) -> None:
    story.forget(["b"])
    published(story)[-1]["facts"]["number"] = 4


def begins_in_the_middle(story: Story) -> None:
    facts = story.made[MODEL][1] | {"model": str(UUID(int=7))}
    story.say("version.current", UUID(int=9), facts)


def never_current(story: Story) -> None:
    story.say("version.withdrawn", UUID(int=9), {})


def purged_while_current(story: Story) -> None:
    story.say("version.purged", version_id(MODEL, 2), {})


def failed(story: Story) -> None:
    story.forget(["b"], verdict="failed")


@pytest.mark.parametrize(
    "lie",
    [
        version_again,
        number_again,
        id_again,
        beside_its_parent,
        removed_more_than_it_says,
        grew,
        from_another_root,
        without_commitment,
        of_another_parent,
        number_left_out,
        begins_in_the_middle,
        never_current,
        purged_while_current,
        failed,
    ],
)
def test_versions_that_are_not_one_chain_are_refused(lie: Callable[[Story], None]) -> None:
    story = simple()[0]
    before = story.export()
    lie(story)
    assert reason_of(story.export()) == Reason.LOG_CONTRADICTS
    assert replayed(before).size == 6


def test_what_was_signed_is_looked_at_before_what_it_says() -> None:
    story = simple()[0]
    head = story.head()
    story.entries[0]["facts"] = story.entries[0]["facts"] | {"number": 2}
    assert reason_of(story.export([head])) == Reason.LOG_ROOT_DIFFERS
    assert reason_of(story.export(), head) == Reason.LOG_FORKED
    assert reason_of(story.export()) == Reason.LOG_CONTRADICTS


def test_versions_from_before_commitments_may_come_first() -> None:
    story = simple()[0]
    for entry in published(story):
        del entry["facts"]["commitment"]
    story.forget(["b"])
    assert replayed(story.export()).size == 8
