"""Making references: one at a time, again after a crash, and given up when it cannot be."""

import math
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import torch

from app.db import transaction
from app.derived import leasing, references
from app.settings import settings
from app.tables import ReferenceSet
from lethe.recipe import CannotTrain, Recipe
from tests.workers.reference_sets import Trainings, expire, make_all, row, rows
from workers import data
from workers import references as making
from workers.heartbeat import Heartbeat
from workers.recipes import UnknownRecipe


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the worker may catch it."""


def test_a_set_that_was_interrupted_ends_with_the_numbers_of_one_that_was_not(
    plan: Callable[..., UUID], recipe: Any, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = plan(4)
    make_all(smooth)
    numbers = rows(smooth)
    set_id = plan(4)
    assert making.make_reference(set_id)
    for owner, name in ((recipe, "losses"), (references, "record")):
        with monkeypatch.context() as patch:

            def die(*_: Any) -> None:
                raise Killed

            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                making.make_reference(set_id)
        assert not making.make_reference(set_id)  # while the dead worker's lease lasts
        expire(set_id)
    assert row(set_id).done == 1
    assert make_all(set_id) == 3
    assert trainings.seen[5:8] == [trainings.seen[1]] * 3
    assert len(numbers) == 520
    assert rows(set_id) == numbers


def test_a_worker_whose_claim_was_stolen_records_nothing(
    plan: Callable[..., UUID], recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id, train = plan(4), recipe.train

    def stall(*args: Any) -> None:
        # While this worker trains, its lease runs out and another one takes the set.
        expire(set_id)
        with transaction() as session:
            assert references.claim(session, set_id, settings().lease) is not None
        train(*args)

    monkeypatch.setattr(recipe, "train", stall)
    assert making.make_reference(set_id) is False
    assert rows(set_id) == []
    found = row(set_id)
    assert (found.status, found.done, found.fence, found.error) == ("building", 0, 2, None)


def test_a_worker_that_lost_the_database_leaves_the_reference_to_another(
    plan: Callable[..., UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = plan(4)
    with monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "is_lost", lambda _: True)
        assert making.make_reference(set_id) is False
    assert (row(set_id).status, row(set_id).error) == ("building", None)
    expire(set_id)
    assert making.make_reference(set_id) is True


def test_a_lease_is_held_for_as_long_as_training_takes(
    plan: Callable[..., UUID],
    recipe: Any,
    reread: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reread("LETHE_LEASE", "1")
    set_id, train = plan(4), recipe.train

    def long(*args: Any) -> None:
        claimed, deadline = row(set_id).lease_expires_at, time.monotonic() + 20
        while row(set_id).lease_expires_at == claimed:
            assert time.monotonic() < deadline
        train(*args)

    monkeypatch.setattr(recipe, "train", long)
    assert making.make_reference(set_id) is True


def change_order(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    recipe.ids = recipe.ids[::-1]


def change_key(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(data, "key_id", lambda _: "k-other")


def uninstall(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Recipe:
        raise UnknownRecipe("recipe.unknown", "no recipe of this name")

    patch.setattr(making, "find_recipe", find)


def lose_train(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise CannotTrain("person-7")

    patch.setattr(recipe, "train", refuse)


def diverge(recipe: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recipe, "losses", lambda model, batch: torch.full((len(batch[1]),), math.inf))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change_order, "register the model anew"),
        (change_key, "LETHE_ID_KEY"),
        (uninstall, "UnknownRecipe"),
        (lose_train, "CannotTrain"),
        (diverge, "not finite"),
    ],
)
def test_what_another_attempt_would_meet_again_fails_the_set_at_once(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Any, pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    set_id = plan(4)
    assert making.make_reference(set_id) is True
    spoil(recipe, monkeypatch)
    assert making.make_reference(set_id) is False
    found = row(set_id)
    assert found.status == "failed"
    assert reason in (found.error or "")
    assert "person-" not in (found.error or "")
    assert rows(set_id) == []


def test_a_passing_error_is_tried_again_and_never_quoted(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    set_id = plan(4)

    def fail(*_: Any) -> None:
        raise KeyError("person-7")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "train", fail)
        assert making.make_reference(set_id) is False
    found = row(set_id)
    assert found.status == "building"
    assert "KeyError" in (found.error or "")
    assert "person-7" not in (found.error or "") + "".join(capfd.readouterr())
    with transaction() as session:
        assert leasing.waiting(session, ReferenceSet) == [set_id]
    assert making.make_reference(set_id) is True
    assert row(set_id).error is None


def test_a_set_fails_when_its_attempts_are_used_up(
    plan: Callable[..., UUID],
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    set_id = plan(4)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recipe, "train", fail)
    statuses = []
    for _ in range(3):
        making.make_reference(set_id)
        statuses.append(row(set_id).status)
    assert statuses == ["building", "failed", "failed"]
    assert row(set_id).attempts == 2


def test_a_set_whose_workers_all_die_is_given_up(
    plan: Callable[..., UUID], trainings: Trainings, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "2")
    set_id = plan(4)
    for _ in range(2):
        with transaction() as session:
            assert references.claim(session, set_id, settings().lease) is not None
        expire(set_id)
    assert making.make_reference(set_id) is False
    assert row(set_id).status == "failed"
    assert "died" in (row(set_id).error or "")
    assert trainings.seen == []


def test_a_set_that_waits_for_nothing_is_left_alone(
    plan: Callable[..., UUID], trainings: Trainings
) -> None:
    set_id = plan(4)
    make_all(set_id)
    trained = len(trainings.seen)
    assert making.make_reference(set_id) is False
    assert making.make_reference(uuid4()) is False
    assert len(trainings.seen) == trained
