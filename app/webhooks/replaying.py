"""Send messages again whose delivery is over, under the same id."""

from sqlalchemy import ColumnElement, and_, case, func, update
from sqlalchemy.orm import Session

from app.tables import Delivery
from app.webhooks.endpoints import is_open


def replay(session: Session, *conditions: ColumnElement[bool], secret: bytes | None = None) -> int:
    """Open those deliveries again, with all their attempts; return how many.

    One that is open yet is sent at once, and has the attempts that it had left.
    """
    begun_anew = case((and_(*is_open()), Delivery.earlier_attempts), else_=Delivery.attempts)
    opened = session.execute(
        update(Delivery)
        .where(*conditions)
        .values(
            delivered_at=None,
            given_up_at=None,
            problem=None,
            not_before=func.clock_timestamp(),
            earlier_attempts=begun_anew,
            **({} if secret is None else {"secret": secret}),
        )
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(opened.all())
