"""Which deletion requests a list shows, and in which order, as its query says."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import StringConstraints

from app.deletions.clocks import Regulation
from app.deletions.service import Filter, Order
from app.statuses import RequestStatus
from app.wire import Moment, Name, Text

Statuses = Annotated[
    list[RequestStatus] | None,
    Query(max_length=len(RequestStatus), description="Any of these; may be repeated."),
]
ModelName = Annotated[
    Name | None, Query(description="Limited to this model, or with an erasure in it.")
]
ClientName = Annotated[
    Text | None,
    StringConstraints(max_length=256),
    Query(description="Whose requests; a key that opens its own alone finds no others' by this."),
]
Reference = Annotated[
    Text | None, StringConstraints(max_length=256), Query(description="Exactly this one.")
]
ReceivedFrom = Annotated[Moment | None, Query(description="At this moment or later.")]
ReceivedTo = Annotated[Moment | None, Query(description="Before this moment.")]
DueBefore = Annotated[
    Moment | None,
    Query(description="Open, with a deadline before this moment."),
]
Overdue = Annotated[
    bool, Query(description="Open, with a deadline that has passed while the clock ran.")
]
Ordered = Annotated[
    Order,
    Query(
        description="`received`: the newest first. `due`: the open ones alone, the nearest "
        "deadline first, those without one last."
    ),
]


async def asked_for(
    status: Statuses = None,
    model: ModelName = None,
    client: ClientName = None,
    regulation: Regulation | None = None,
    reference: Reference = None,
    received_from: ReceivedFrom = None,
    received_to: ReceivedTo = None,
    due_before: DueBefore = None,
    overdue: Overdue = False,
    order: Ordered = Order.RECEIVED,
) -> Filter:
    """Return the filter of a query; what it leaves out does not count."""
    return Filter(
        statuses=tuple(status or ()),
        model=model,
        client=client,
        regulation=regulation,
        reference=reference,
        received_from=received_from,
        received_to=received_to,
        due_before=due_before,
        overdue=overdue,
        order=order,
    )


Asked = Annotated[Filter, Depends(asked_for)]
