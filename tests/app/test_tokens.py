"""Tokens: believed when everything about them is in order, and not otherwise."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import issuer as keys
from app.issuer import IssuerKeys
from app.scopes import Client, Identity, Scope
from app.tokens import LEEWAY, LONGEST_TOKEN, Tokens, Trust
from tests.app.callers import bearer
from tests.app.issuers import AUDIENCE, Issuer, b64, claims, forged, issuing, jwk, private, token

KEY = private("ES256")
REQUESTS = "/v1/deletion-requests"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        started.publish(jwk(KEY))
        yield started


def tokens_of(issuer: Issuer, **named: Any) -> Tokens:
    trusted = keys.Issuer(issuer.url, issuer.url + "/keys", plain_http=True)
    return Tokens(Trust(trusted, AUDIENCE, **named), IssuerKeys(trusted))


def identify(issuer: Issuer, text: str, **named: Any) -> Identity | None:
    return asyncio.run(tokens_of(issuer, **named).identify(text))


def test_a_good_token_names_a_client_in_a_namespace_of_its_own(issuer: Issuer) -> None:
    said = claims(issuer)
    found = identify(issuer, token(KEY, said))
    assert found is not None
    assert found.client == Client("oidc:shop", frozenset({Scope.READ}))
    assert found.expires_at == datetime.fromtimestamp(said["exp"], UTC) + LEEWAY


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    "algorithm",
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
)
def test_each_asymmetric_algorithm_is_understood(
    issuer: Issuer, algorithm: str, stated: bool
) -> None:
    key = private(algorithm if algorithm[0] == "E" else "RSA")
    public = jwk(key, "other", **({"alg": algorithm, "use": "sig"} if stated else {}))
    text = token(key, claims(issuer), algorithm, {"kid": "other"})
    with issuing() as own:
        own.publish(public)
        own.url, named = issuer.url, own.url
        trusted = keys.Issuer(issuer.url, named + "/keys", plain_http=True)
        checked = Tokens(Trust(trusted, AUDIENCE), IssuerKeys(trusted))
        assert asyncio.run(checked.identify(text)) is not None
        head, payload, signature = text.split(".")
        spoiled = f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
        assert asyncio.run(checked.identify(spoiled)) is None


def test_no_forgery_is_believed(issuer: Issuer) -> None:
    for name, text in forged(KEY, issuer).items():
        assert identify(issuer, text) is None, name
    assert identify(issuer, token(KEY, claims(issuer))) is not None


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"kid": 1},
        {"kid": "two"},
        {"alg": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "ES256K"},
        {"alg": ["ES256"]},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 1},
        {"jwk": jwk(KEY)},
        {"jku": "https://issuer.example.com/keys"},
        {"x5u": "https://issuer.example.com/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["b64"], "b64": True},
        {"crit": ["exp"], "exp": 0},
        {"crit": []},
    ],
)
def test_a_header_that_is_not_in_order_is_refused_though_it_is_signed(
    issuer: Issuer, header: dict[str, Any]
) -> None:
    issuer.asked.clear()
    assert identify(issuer, token(KEY, claims(issuer), header=header)) is None
    # The issuer is asked about a key that it could have, and about nothing else.
    assert bool(issuer.asked) is (header in ({"kid": "two"}, {"alg": "ES384"}))


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_the_type_of_an_access_token_is_accepted(issuer: Issuer, kind: str | None) -> None:
    assert identify(issuer, token(KEY, claims(issuer), header={"typ": kind})) is not None


SECONDS = int(LEEWAY.total_seconds())


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://issuer.example.com"},
        {"iss": None},
        {"iss": ["x"]},
        {"aud": "https://other.example.com"},
        {"aud": []},
        {"aud": None},
        {"exp": -SECONDS - 5},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 10**18},
        {"exp": float("inf")},
        {"iat": SECONDS + 60},
        {"iat": None},
        {"nbf": SECONDS + 60},
        {"sub": 7},
        {"client_id": ""},
        {"client_id": 7},
        {"client_id": "a\0b"},
        {"client_id": "a\nb"},
        {"client_id": "\ud800"},
        {"client_id": "a" * 256},
        {"client_id": None},
    ],
)
def test_a_claim_that_is_not_in_order_is_refused_though_it_is_signed(
    issuer: Issuer, change: dict[str, Any]
) -> None:
    now = int(time.time())
    timed = {
        name: now + value if name in ("exp", "iat", "nbf") and type(value) is int else value
        for name, value in change.items()
    }
    assert identify(issuer, token(KEY, claims(issuer, **timed))) is None


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    now, little = int(time.time()), SECONDS - 10
    for change in ({"exp": now - little}, {"iat": now + little}, {"nbf": now + little}):
        assert identify(issuer, token(KEY, claims(issuer, **change))) is not None, change


@pytest.mark.parametrize("payload", [[], "text", 7, None])
def test_a_payload_that_is_no_object_is_refused(issuer: Issuer, payload: object) -> None:
    assert identify(issuer, token(KEY, payload)) is None


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a.b.c", "ä.ö.ü", "e30.e30.e30", "[" * 5000 + ".a.b"], ids=repr
)
def test_what_is_no_token_is_refused_and_asks_nobody(issuer: Issuer, text: str) -> None:
    issuer.asked.clear()
    assert identify(issuer, text) is None
    assert issuer.asked == []


def test_a_token_is_as_long_as_a_header_may_be(issuer: Issuer) -> None:
    padded = [token(KEY, claims(issuer, more="a" * size)) for size in (8_000, LONGEST_TOKEN)]
    assert [identify(issuer, text) is not None for text in padded] == [True, False]


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ("", set()),
        (None, set()),
        ("openid profile", set()),
        ("erasure:submit erasure:read", {Scope.SUBMIT, Scope.READ}),
        (["ops", "unknown", 7], {Scope.OPS}),
        ("ops,audit:read", set()),
        ({"ops": True}, set()),
        (7, set()),
    ],
)
def test_scopes_are_text_or_a_list_and_unknown_ones_open_nothing(
    issuer: Issuer, given: object, scopes: set[Scope]
) -> None:
    for claim in ("scope", "scp"):
        said = claims(issuer, **{"scope": None, claim: given})
        found = identify(issuer, token(KEY, said), scope_claim=claim)
        assert found is not None
        assert found.client.scopes == scopes


@pytest.mark.parametrize(
    ("claim", "said", "name"),
    [
        (None, {"client_id": "a", "azp": "b", "sub": "c"}, "oidc:a"),
        (None, {"client_id": None, "azp": "b", "sub": "c"}, "oidc:b"),
        (None, {"client_id": None, "sub": "c"}, "oidc:c"),
        ("sub", {"client_id": "a", "sub": "c"}, "oidc:c"),
        ("appid", {"client_id": "a", "appid": "operator"}, "oidc:operator"),
    ],
)
def test_the_client_is_named_by_the_claim_that_the_operator_chose(
    issuer: Issuer, claim: str | None, said: dict[str, Any], name: str
) -> None:
    found = identify(issuer, token(KEY, claims(issuer, **said)), client_claim=claim)
    assert found is not None
    assert found.client.name == name


def test_a_chosen_claim_has_no_stand_in(issuer: Issuer) -> None:
    assert identify(issuer, token(KEY, claims(issuer)), client_claim="appid") is None


def test_a_short_key_of_the_issuer_is_refused(issuer: Issuer) -> None:
    for bits, good in ((1024, False), (2048, True)):
        key = private("RSA", 0, bits)
        with issuing() as own:
            own.publish(jwk(key))
            text = token(key, claims(own), "RS256")
            assert (identify(own, text) is not None) is good


def test_a_key_is_used_for_what_it_is_stated_for(issuer: Issuer) -> None:
    rsa = private("RSA")
    assert [
        len(keys.usable([each]))
        for each in (
            jwk(KEY),
            jwk(KEY, use="sig", key_ops=["verify"], alg="ES256"),
            jwk(KEY, use="enc"),
            jwk(KEY, key_ops=["sign"]),
            jwk(KEY, alg="ES384"),
            jwk(KEY, alg="HS256"),
            jwk(KEY, alg=["ES256"]),
            jwk(KEY, d="AQAB"),
            {**jwk(KEY), "kid": None},
            {**jwk(KEY), "crv": "secp256k1"},
            {**jwk(KEY), "x": "AA"},
            {"kty": "oct", "k": b64(b"a" * 32), "kid": "one"},
            {"kty": "oct", "k": b64(b"a" * 32), "kid": "one", "alg": "ES256"},
            "text",
        )
    ] == [1, 1, *[0] * 12]
    (only,) = keys.usable([jwk(rsa, alg="RS256")])
    assert only.algorithms == {"RS256"}


def test_a_token_opens_the_api_for_what_its_scopes_say(
    issuer: Issuer, environment: dict[str, str], reread: Callable[[str, str], None]
) -> None:
    from app.main import create_app

    for name, value in (
        ("LETHE_MODE", "embedded"),
        ("LETHE_OIDC_ISSUER", issuer.url),
        ("LETHE_OIDC_AUDIENCE", AUDIENCE),
    ):
        reread(name, value)
    good = token(KEY, claims(issuer))
    bare = token(KEY, claims(issuer, scope="openid"))
    writer = token(KEY, claims(issuer, scope="erasure:submit"))
    other = token(KEY, claims(issuer, client_id="other"))
    with TestClient(create_app()) as client:
        assert client.get(REQUESTS, headers=bearer(good)).status_code == 200
        assert client.get("/v1/audit/head", headers=bearer(good)).status_code == 403
        for path in (REQUESTS, "/v1/models", "/v1/audit/head", "/v1/access-keys"):
            assert client.get(path, headers=bearer(bare)).status_code == 403
        body = {"sample_ids": ["a"]}
        place = client.post(REQUESTS, json=body, headers=bearer(writer)).headers["Location"]
        assert client.get(place, headers=bearer(good)).status_code == 200
        assert client.get(place, headers=bearer(other)).status_code == 404
        bad = [client.get(REQUESTS, headers=bearer(text)) for text in forged(KEY, issuer).values()]
        bad.append(client.get(REQUESTS))
        assert {(each.status_code, each.content) for each in bad} == {(401, bad[0].content)}


def test_a_token_is_not_believed_longer_than_it_says(issuer: Issuer) -> None:
    found = identify(issuer, token(KEY, claims(issuer, exp=int(time.time()) + 1)))
    assert found is not None
    assert found.expires_at is not None
    assert found.expires_at - datetime.now(UTC) <= LEEWAY + timedelta(seconds=1)
