"""A gradient ledger whose worker is overtaken, dies or meets an error."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from app.db import transaction
from app.derived import ledgers as rows
from app.settings import settings
from tests.workers.gradient_ledgers import begin, die, files, row, store
from workers import ledgers
from workers.unlearning.errors import NotFinite
from workers.unlearning.ledger import GradientSum


@pytest.fixture
def begun(serve: Callable[..., UUID]) -> UUID:
    """The ledger, not yet computed, of a served model's first version."""
    return begin(serve())


def test_a_worker_whose_lease_was_stolen_does_not_finish(
    begun: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files()
    real = ledgers.gradient_sum

    def stall(*args: Any) -> GradientSum:
        die()
        with transaction() as session:
            assert rows.claim(session, begun, settings().lease) is not None
        return real(*args)

    monkeypatch.setattr(ledgers, "gradient_sum", stall)
    ledgers.refresh(begun)
    assert (row(begun).status, row(begun).fence, row(begun).error) == ("computing", 2, None)
    assert files() == before


def test_an_exception_of_the_recipe_is_tried_again_and_never_quoted(
    begun: UUID,
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    reread: Callable[[str, str], None],
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("person-7")

    reread("LETHE_JOB_ATTEMPTS", "2")
    monkeypatch.setattr(recipe, "losses", fail)
    for status in ("computing", "failed"):
        ledgers.refresh(begun)
        told = row(begun)
        assert told.status == status
        assert "KeyError" in str(told.error)
        assert "person-7" not in str(told.error) + "".join(capfd.readouterr())


def test_a_ledger_whose_workers_all_died_is_given_up_and_left_alone(
    begun: UUID, monkeypatch: pytest.MonkeyPatch, reread: Callable[[str, str], None]
) -> None:
    reread("LETHE_JOB_ATTEMPTS", "1")
    with transaction() as session:
        rows.claim(session, begun, settings().lease)
    die()
    monkeypatch.setattr(ledgers, "gradient_sum", pytest.fail)
    ledgers.refresh(begun)
    ledgers.refresh(begun)  # the nudge came twice
    assert row(begun).attempts == 2
    assert row(begun).status == "failed"
    assert "died" in str(row(begun).error)


@pytest.mark.parametrize("trouble", ["data", "key", "weights", "numbers"])
def test_what_another_attempt_would_meet_again_ends_the_ledger(
    begun: UUID,
    recipe: Any,
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
    reread: Callable[[str, str], None],
    trouble: str,
) -> None:
    if trouble == "data":
        recipe.ids = recipe.ids[::-1]
    if trouble == "key":
        reread("LETHE_ID_KEY", "another-" + "c" * 32)
    if trouble == "weights":
        store().remove(stored)
    if trouble == "numbers":
        losses = recipe.losses
        monkeypatch.setattr(recipe, "losses", lambda *args: losses(*args) * float("inf"))
    ledgers.refresh(begun)
    names = {"key": "LETHE_ID_KEY", "weights": stored, "numbers": NotFinite.__name__}
    assert (row(begun).status, row(begun).attempts) == ("failed", 1)
    assert names.get(trouble, "register the model anew") in str(row(begun).error)
