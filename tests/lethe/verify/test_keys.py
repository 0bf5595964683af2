"""Keys as auditors get them: JWK Sets with their dates, or bare PEM; and nothing that is none."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lethe.verify import NotAKey, VerifyingKey, load_keys
from lethe.verify.keys import to_jwk, to_pem

# RFC 8037, A.2 and A.3.
EXAMPLE = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
AT = datetime(2026, 11, 21, 10, 0, 0, 700_000, tzinfo=UTC)


def public() -> Ed25519PublicKey:
    key = load_keys(json.dumps(EXAMPLE).encode())[0].public
    assert isinstance(key, Ed25519PublicKey)
    return key


def test_a_keys_id_is_the_thumbprint_of_the_standard() -> None:
    assert load_keys(json.dumps(EXAMPLE).encode())[0].id == THUMBPRINT


def test_a_set_brings_purpose_and_dates_along_and_cuts_no_second_off_a_life() -> None:
    keys = [
        VerifyingKey(public(), "log", AT, AT + timedelta(hours=1)),
        VerifyingKey(generate_private_key(SECP256R1()).public_key(), "weights", AT, None),
    ]
    read = load_keys(json.dumps({"keys": [to_jwk(key) for key in keys]}).encode())
    assert [(key.id, key.purpose) for key in read] == [(key.id, key.purpose) for key in keys]
    whole = AT.replace(microsecond=0)
    assert read[0].introduced_at == whole
    assert read[0].retired_at == whole + timedelta(hours=1, seconds=1)
    assert read[1].retired_at is None


def test_pem_says_nothing_of_a_keys_life() -> None:
    assert load_keys(to_pem(public()).encode()) == [VerifyingKey(public())]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b"[]",
        b'{"keys":[]}',
        b'{"keys":"keys"}',
        b'{"keys":{"kty":"OKP"}}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        json.dumps(EXAMPLE | {"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}).encode(),
        json.dumps(EXAMPLE | {"kid": "another"}).encode(),
        json.dumps(EXAMPLE | {"purpose": 1}).encode(),
        json.dumps(EXAMPLE | {"iat": True}).encode(),
        json.dumps(EXAMPLE | {"exp": "tomorrow"}).encode(),
        json.dumps(EXAMPLE | {"exp": 1e9}).encode(),
        json.dumps(EXAMPLE | {"exp": 10**20}).encode(),
        json.dumps(EXAMPLE | {"x": EXAMPLE["x"] + "="}).encode(),
        json.dumps(EXAMPLE | {"x": "AAAA"}).encode(),
        json.dumps(EXAMPLE | {"crv": "Ed448"}).encode(),
    ],
    ids=range(20),
)
def test_what_is_no_public_key_is_refused_and_not_quoted(content: bytes) -> None:
    with pytest.raises(NotAKey) as refused:
        load_keys(content)
    assert "nWGxne" not in str(refused.value)
