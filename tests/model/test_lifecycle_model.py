"""The lifecycle's model keeps its promises, and each fault that is planted in it breaks one."""

import re
from pathlib import Path

import pytest

from tests.model.searches import MODEL, ROOT, is_missing, search

PAGE = (ROOT / "docs" / "model.md").read_text()
SOURCES = "".join(path.read_text() for path in sorted(MODEL.glob("*.pml")))
SAFE = re.findall(r"^bit (\w+) = 1;$", SOURCES, re.M)
LIVE = re.findall(r"^ltl (\w+)", SOURCES, re.M)

# The faults that are planted together, the promise that they break, and sizes that it takes.
PLANTED = [
    (["BUG_NO_FENCE"], "no_stale_write", []),
    (["BUG_SPLIT_PUBLISH"], "all_or_nothing", []),
    (["BUG_ARTIFACT_AFTER_COMMIT"], "artifact_durable", []),
    (["BUG_TWO_PLANNERS"], "one_unfinished_job", []),
    (["BUG_TWO_PLANNERS", "BUG_NO_CAS"], "one_chain", []),
    (["BUG_BLIND_PUBLISH", "BUG_NO_CAS"], "published_once", []),
    (["BUG_BLIND_RETRY"], "completed_once", []),
    (["BUG_JOIN_UNFINISHED"], "completed_was_forgotten", []),
    (["BUG_CANCEL_LEAVES_RUNNING"], "cancelled_stays_out", []),
    (["BUG_CANCEL_UNLOCKED"], "cancelled_stays_out", []),
    (["BUG_LATE_CANCEL"], "cancelled_stays_out", []),
    (["BUG_NUDGE_BEFORE_COMMIT"], "nudge_names_a_row", []),
    (["BUG_NO_HEARTBEAT"], "live_worker_keeps_its_lease", []),
    (["BUG_NO_SPLIT"], "poison_alone_needs_attention", ["POISON=0", "TROUBLE=0"]),
    (["BUG_NO_SWEEP"], "nothing_lost", ["LIVENESS", "SCHEDULERS=1", "TROUBLE=1"]),
    (["BUG_NO_SECOND_NUDGE"], "nothing_lost", ["LIVENESS", "SCHEDULERS=1", "TROUBLE=0"]),
]

# Guards that another one stands behind, and what holds without them: one promise, or all.
BACKED_UP = [
    (["BUG_NO_LOCK"], None),
    (["BUG_NO_INDEX"], None),
    (["BUG_NO_CAS"], None),
    (["BUG_TWO_PLANNERS"], "one_chain"),
    (["BUG_BLIND_PUBLISH"], "published_once"),
]

pytestmark = pytest.mark.skipif(
    is_missing(), reason="install Debian's packages spin, gcc and libc6-dev to run this"
)


@pytest.mark.parametrize("sizes", [["TROUBLE=1"], ["TROUBLE=2", "RETRIES=0"]], ids=" ".join)
def test_every_order_of_steps_keeps_every_promise(sizes: list[str], tmp_path: Path) -> None:
    found = search(tmp_path, *sizes, optimize=True)
    assert (found.broken, found.is_complete) == (None, True)
    assert found.states > 50_000


def test_all_that_is_accepted_comes_to_an_end(tmp_path: Path) -> None:
    sizes = ["SCHEDULERS=1", "TROUBLE=1", "RETRIES=0", "INTERRUPTIONS=0"]
    found = search(tmp_path, "LIVENESS", *sizes, optimize=True)
    assert (found.broken, found.is_complete) == (None, True)


def test_a_poisonous_erasure_takes_no_other_with_it(tmp_path: Path) -> None:
    found = search(tmp_path, "POISON=1", "TROUBLE=0", "ERASURES=3")
    assert (found.broken, found.is_complete) == (None, True)


def test_the_work_ends_though_an_erasure_is_poisonous(tmp_path: Path) -> None:
    sizes = ["POISON=0", "TROUBLE=0", "WORKERS=1", "SCHEDULERS=1"]
    found = search(tmp_path, "LIVENESS", *sizes)
    assert (found.broken, found.is_complete) == (None, True)


@pytest.mark.parametrize(
    ("bugs", "promise", "sizes"), PLANTED, ids=["+".join(bugs) for bugs, _, _ in PLANTED]
)
def test_a_planted_bug_breaks_its_promise(
    bugs: list[str], promise: str, sizes: list[str], tmp_path: Path
) -> None:
    checked = f"CHECK={promise if promise in SAFE else 1}"
    found = search(tmp_path, *bugs, checked, *(sizes or ["TROUBLE=0"]))
    assert (found.broken, found.is_complete) == (promise, False)


@pytest.mark.parametrize(
    ("bugs", "promise"), BACKED_UP, ids=["+".join(bugs) for bugs, _ in BACKED_UP]
)
def test_a_guard_with_another_behind_it_may_be_missing(
    bugs: list[str], promise: str | None, tmp_path: Path
) -> None:
    checked = [] if promise is None else [f"CHECK={promise}"]
    # Without any mishap the guard behind has enough to do: its own bug is found so, too.
    found = search(tmp_path, *bugs, *checked, "TROUBLE=0")
    assert (found.broken, found.is_complete) == (None, True)


@pytest.mark.parametrize(
    "never",
    [
        "erasure[0].status!=Cancelled",
        "erasure[0].status!=NeedsAttention",
        "newest!=3",  # each of two erasures in a version of its own
        "erasure[1].cohort!=2",  # the second half of a batch that was split
        "retries!=0",
    ],
)
def test_the_model_comes_to_where_the_promises_matter(never: str, tmp_path: Path) -> None:
    assert search(tmp_path, f"CHECK={never}", "TROUBLE=2").broken is not None


def test_a_search_that_was_cut_short_is_not_complete(tmp_path: Path) -> None:
    found = search(tmp_path, "TROUBLE=0", depth=10)
    assert (found.broken, found.is_complete) == (None, False)


def test_every_promise_has_a_planted_bug() -> None:
    assert len(SAFE) == 12
    assert {promise for _, promise, _ in PLANTED} == {*SAFE, *LIVE}


def test_every_bug_of_the_model_is_tried() -> None:
    together = [bugs for bugs, _, _ in PLANTED] + [bugs for bugs, _ in BACKED_UP]
    tried = {bug for bugs in together for bug in bugs}
    assert set(re.findall(r"BUG_\w+", SOURCES)) == tried


def test_the_page_tells_which_promise_each_bug_breaks() -> None:
    rows = re.findall(r"^\| (`BUG[^|]*) \|[^|]*\| `(\w+)` \|", PAGE, re.M)
    told = {(frozenset(re.findall(r"BUG_\w+", bugs)), promise) for bugs, promise in rows}
    assert told == {(frozenset(bugs), promise) for bugs, promise, _ in PLANTED}
