"""Ask for what is computed beside a model's weights, as soon as it can be."""

from uuid import UUID

from app import queue
from app.db import transaction
from app.derived import leasing
from app.tables import GradientLedger, ReferenceSet


def nudge_derived(model_id: UUID) -> None:
    """Nudge workers for the references and the gradient ledger that a model waits for."""
    with transaction() as session:
        sets = leasing.waiting(session, ReferenceSet, model_id)
        sums = leasing.waiting(session, GradientLedger, model_id)
    for ledger_id in sums:
        queue.nudge(queue.REFRESH_LEDGER, ledger_id)
    for set_id in sets:
        queue.nudge(queue.MAKE_REFERENCE, set_id)
