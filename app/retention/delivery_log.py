"""Keep the log of deliveries for a while: what is over for longer goes, with its attempts.

Messages of notices stay as long as these: they show that recipients were told (GDPR Art. 19).
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import transaction
from app.tables import Delivery, DeliveryAttempt

log = structlog.get_logger()

# Deliveries that go in one transaction: whoever wants to replay one of them, in order to be told
# that it is gone, waits for tens of milliseconds.
BATCH = 500
# A pass begins no further batch after this, and the next one comes so much later: planning waits in
# the same process, and may be kept from a tenth of its time while there is much to remove.
PASS_SECONDS = 0.4
PAUSE_SECONDS = 4.0


@dataclass(slots=True)
class Clearing:
    """Removes what was kept for its time, and then nothing for a moment, however often asked."""

    ended_at: float | None = None
    """On the monotonic clock."""

    def go_on(self, kept: timedelta) -> int:
        """Remove what is over for longer than this, unless that was done a moment ago.

        Returns how many deliveries went. A database that does not answer is logged; what is left,
        the next call finds.
        """
        if self.ended_at is not None and time.monotonic() - self.ended_at < PAUSE_SECONDS:
            return 0
        removed = 0
        ends_at = time.monotonic() + PASS_SECONDS
        try:
            while True:
                with transaction() as session:
                    batch = remove(session, kept)
                removed += batch
                if batch < BATCH or time.monotonic() >= ends_at:
                    break
        except DBAPIError as error:
            log.error("deliveries.not_removed", error=type(error).__name__)
        if removed:
            log.info("deliveries.removed", number=removed)
        self.ended_at = time.monotonic()
        return removed


def remove(session: Session, kept: timedelta) -> int:
    """Remove a batch of deliveries that are over for longer than this; return how many went.

    The oldest first. Those that another transaction holds are left out, so that nobody is waited
    for: somebody removes them, too, or replays them.
    """
    over_at = func.coalesce(Delivery.delivered_at, Delivery.given_up_at)
    over = session.scalars(
        select(Delivery.id)
        # By the time at which the transaction began: for a clock that goes on within a statement,
        # PostgreSQL would have to read the index to its end.
        .where(Delivery.notice_id.is_(None), over_at < func.now() - kept)
        .order_by(over_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    if not over:
        return 0
    # Statements of their own, which see the attempts that were noted until the rows were locked.
    for of, table in ((DeliveryAttempt.delivery_id, DeliveryAttempt), (Delivery.id, Delivery)):
        session.execute(
            delete(table)
            .where(of == any_(bindparam("over", list[UUID](over), ARRAY(Uuid))))
            .execution_options(synchronize_session=False)
        )
    return len(over)
