"""How a message shows its receiver who sent it: for each way, the headers of one attempt."""

from collections.abc import Callable, Mapping

from app.tables import Signer
from app.webhooks import signing
from app.webhooks.outbox import Message

Sign = Callable[[Message, int], Mapping[str, str]]


class CannotSign(Exception):
    """A key is missing, or the way is unknown; the words name the kind of the trouble alone."""


def add(signer: Signer, sign: Sign) -> None:
    """Teach this process a way of signing; whoever sends messages has to import who does so.

    Args:
        signer: the way that `outbox.enqueue_all` was given.
        sign: returns the headers of an attempt at a message, made at that second since 1970,
            and raises CannotSign where it has no key; the attempt then counts as failed.

    """
    _ways[signer] = sign


def headers(message: Message, at: int) -> Mapping[str, str]:
    """Return the headers that sign one attempt, made at that second since 1970.

    Raises:
        CannotSign: nobody taught this process to sign in the message's way, or a key is missing.

    """
    sign = _ways.get(message.signer)
    if sign is None:
        raise CannotSign("not signing")
    return sign(message, at)


def _standard_webhooks(message: Message, at: int) -> Mapping[str, str]:
    if not message.secrets:
        raise CannotSign("no secret")
    id_ = str(message.id)
    # After a rotation by the former secret, too: a receiver takes the one that it knows.
    signatures = [signing.sign(secret, id_, at, message.body) for secret in message.secrets]
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
    }


_ways: dict[Signer, Sign] = {Signer.STANDARD_WEBHOOKS: _standard_webhooks}
