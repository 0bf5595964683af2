"""Messages are signed as Standard Webhooks 1.0 says, by its own example and by its text."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks import signing
from tests.app.receivers import Received, verify


def test_the_published_example_is_signed_alike() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signature = signing.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(
    st.binary(min_size=1, max_size=64), st.integers(0, 2**40), st.dictionaries(st.text(), st.text())
)
def test_a_receiver_that_follows_the_text_agrees(
    secret: bytes, at: int, content: dict[str, str]
) -> None:
    body = json.dumps(content).encode()
    headers = {
        "Webhook-Id": "a-1",
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": signing.sign(secret, "a-1", at, body),
    }
    assert verify(secret, Received("/", headers, body)) == content


def test_secrets_are_long_enough_and_each_is_another() -> None:
    drawn = {signing.new_secret() for _ in range(100)}
    assert len(drawn) == 100
    assert {len(each) for each in drawn} == {32}
    shown = signing.show(b"\xff" * 32)
    assert shown == "whsec_" + base64.b64encode(b"\xff" * 32).decode()
