"""Hold the files against the rows, and the audit log against itself; the service may run."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import text

from app.artifacts import ALGORITHM, ArtifactStore
from app.audit import ledger
from app.db import transaction
from app.scrub import leftovers, rows
from app.scrub.errors import CannotScrub
from app.scrub.files import Content, fault, list_files, look
from app.scrub.report import Damage, Report
from app.scrub.rows import Need


def scrub(
    store: ArtifactStore,
    older_than: timedelta,
    *,
    remove_leftovers: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Check every file that a row asks for and the audit log, and find what nobody refers to.

    No transaction is open while files are read, which may take hours.

    Args:
        store: where the files are.
        older_than: the age of a leftover from which it is nobody's work.
        remove_leftovers: whether those are to be removed.
        tell: is told what is looked at next.

    Raises:
        CannotScrub: the store is not there or may not be read.
        OSError: its folders cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.

    """
    # Files before rows: what is published between the two does not look unreferenced.
    listing = list_files(store)
    with transaction() as session:
        wanted = rows.needs(session)
        named = rows.named(session, older_than)
        purged = rows.purged(session)
    if wanted and not (store.folder / ALGORITHM).is_dir():
        raise CannotScrub(
            f"{store.folder} holds no artifacts at all. Is its volume mounted, and is "
            "LETHE_ARTIFACTS_FOLDER right?"
        )
    tell("the audit log")
    audit_problems = _replay()
    looked = _look(store, wanted, tell)
    found = leftovers.find(listing, named, purged)
    old = [each for each in found if leftovers.may_go(each, older_than)]
    return Report(
        folder=store.folder,
        files=len(looked),
        size_bytes=sum(seen.size_bytes for seen in looked.values() if isinstance(seen, Content)),
        damaged=_damaged(store, wanted, looked),
        audit_problems=audit_problems,
        leftovers=tuple(leftovers.remove(store, old, older_than) if remove_leftovers else old),
        young=len(found) - len(old),
        older_than=older_than,
        foreign=tuple(listing.foreign),
    )


def _replay() -> tuple[str, ...]:
    with transaction() as session:
        # One moment of the log, which grows meanwhile; and it may be long.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        return tuple(ledger.replay(session))


def _look(
    store: ArtifactStore, wanted: list[Need], tell: Callable[[str], None]
) -> dict[str, Content | str]:
    looked: dict[str, Content | str] = {}
    for need in wanted:
        if need.digest not in looked:
            tell(f"{need.model}, {need.role}: {need.digest}")
            looked[need.digest] = look(store.path_of(need.digest))
    return looked


def _damaged(
    store: ArtifactStore, wanted: list[Need], looked: dict[str, Content | str]
) -> tuple[Damage, ...]:
    suspect = {need.digest for need in wanted if fault(need, looked[need.digest]) is not None}
    if not suspect:
        return ()
    # Once more: a version may have been purged meanwhile, a ledger superseded, a file put back.
    with transaction() as session:
        still_wanted = rows.needs(session, suspect)
    again = {digest: look(store.path_of(digest)) for digest in suspect}
    return tuple(
        Damage(need, store.path_of(need.digest), words)
        for need in still_wanted
        if (words := fault(need, again[need.digest])) is not None
    )
