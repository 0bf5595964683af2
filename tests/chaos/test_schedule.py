"""What a run does follows from its seed."""

from itertools import islice

from app.crash_points import CrashPoint
from tests.chaos.fleet import LEASE_SECONDS
from tests.chaos.schedule import WEIGHTS, Kind, actions, every_point, targets

MANY = 3_000


def test_equal_seeds_give_equal_schedules_and_others_do_not() -> None:
    first, again, other = (list(islice(actions(seed), MANY)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert every_point(7) == every_point(7) != every_point(8)


def test_a_longer_run_begins_as_a_shorter_one_does() -> None:
    assert list(islice(actions(7), 20)) == list(islice(actions(7), MANY))[:20]


def test_every_crash_point_is_armed_once_before_chance_takes_over() -> None:
    assert sorted(action.target for action in every_point(7)) == sorted(CrashPoint)


def test_chance_comes_to_everything_that_can_happen_and_to_nothing_else() -> None:
    seen = list(islice(actions(7), MANY))
    assert {action.target for action in seen} == targets()
    drawn = {(a.kind, "" if a.kind == Kind.ARM else a.target) for a in seen}
    assert drawn == set(WEIGHTS)


def test_some_pauses_are_longer_than_a_lease_and_some_shorter() -> None:
    held = [a.hold_seconds for a in islice(actions(7), MANY) if a.kind == Kind.PAUSE]
    assert min(held) < LEASE_SECONDS < max(held)
