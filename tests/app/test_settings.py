"""Settings refuse what is not safe or not understood, and print no secret."""

import hashlib
from datetime import timedelta

import pytest
from pydantic import ValidationError

from app.settings import Settings

KEY = "an operator's key, not of the tests alone"
DIGEST = hashlib.sha256(KEY.encode())
GOOD = {
    "database_url": "postgresql://lethe:pass-word-1@127.0.0.1/lethe",
    "broker_url": "redis://:pass-word-2@127.0.0.1/0",
    "api_key": "a" * 40,
    "id_key": "b" * 40,
}


@pytest.mark.parametrize("name", ["api_key", "id_key"])
@pytest.mark.parametrize(
    "key", ["weak-key-1", "change-me-" * 4, "example-key-" * 3, "Password-" * 5, " "]
)
def test_a_weak_secret_is_refused_and_not_printed(name: str, key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{**GOOD, name: key})
    assert name in str(refused.value)
    assert key.strip() == "" or key not in str(refused.value) + repr(refused.value)


def test_the_two_keys_must_differ() -> None:
    with pytest.raises(ValidationError, match="must differ"):
        Settings(**{**GOOD, "id_key": GOOD["api_key"]})
    with pytest.raises(ValidationError, match="must differ"):
        Settings(**given(api_key_digest=f"sha256:{DIGEST.hexdigest()}", id_key=KEY))


def given(**key: str) -> dict[str, str]:
    """Settings with the operator's key in this form."""
    return {**{name: GOOD[name] for name in GOOD if name != "api_key"}, **key}


def test_a_key_and_its_digest_are_the_same_to_the_service() -> None:
    as_key = Settings(**given(api_key=KEY, api_key_digest=""))
    as_digest = Settings(**given(api_key="", api_key_digest=f"sha256:{DIGEST.hexdigest()}"))
    assert as_key.root_key_digest() == as_digest.root_key_digest() == DIGEST.digest()
    assert Settings(**given()).root_key_digest() is None
    for settings in (as_key, as_digest):
        shown = repr(settings) + str(settings.model_dump())
        assert not [text for text in (DIGEST.hexdigest(), repr(DIGEST.digest())) if text in shown]


def test_the_settings_do_not_keep_the_operators_key() -> None:
    held = [
        secret.get_secret_value()
        for secret in vars(Settings(**given(api_key=KEY))).values()
        if hasattr(secret, "get_secret_value")
    ]
    assert GOOD["id_key"] in held
    assert DIGEST.digest() in held
    assert not [value for value in held if value in (KEY, KEY.encode())]


@pytest.mark.parametrize("digest", [f"sha256:{DIGEST.hexdigest()}", f"sha256:{'0' * 64}"])
def test_a_key_and_a_digest_together_are_refused_and_not_quoted(digest: str) -> None:
    with pytest.raises(ValidationError, match="both set; take out the first") as refused:
        Settings(**given(api_key=KEY, api_key_digest=digest))
    assert KEY not in str(refused.value) + repr(refused.value)
    assert digest not in str(refused.value) + repr(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "lethe_" + "k" * 43,
        DIGEST.hexdigest(),
        f"sha256:{DIGEST.hexdigest().upper()}",
        f"sha256:{DIGEST.hexdigest()[:-1]}",
        f"sha256:{DIGEST.hexdigest()}\n",
        f"sha256:{DIGEST.hexdigest()}0",
        f"sha512:{DIGEST.hexdigest()}",
        " ",
    ],
)
def test_what_is_no_digest_is_refused_with_the_way_to_make_one_and_not_quoted(text: str) -> None:
    with pytest.raises(ValidationError, match="openssl dgst -sha256 -r") as refused:
        Settings(**given(api_key_digest=text))
    assert "api_key_digest" in str(refused.value)
    assert text.strip() == "" or text.strip() not in str(refused.value) + repr(refused.value)


def test_the_digest_of_a_key_that_was_not_there_is_refused() -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    with pytest.raises(ValidationError, match="digest of an empty text"):
        Settings(**given(api_key_digest=f"sha256:{nothing}"))


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "mysql://u:pass-word-3@127.0.0.1/x"),
        ("database_url", "sqlite:///pass-word-3"),
        ("broker_url", "amqp://u:pass-word-3@127.0.0.1"),
    ],
)
def test_another_dialect_or_protocol_is_refused_without_its_password(name: str, url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{**GOOD, name: url})
    assert "pass-word-3" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_reaches_the_same_driver(scheme: str) -> None:
    settings = Settings(**{**GOOD, "database_url": f"{scheme}://u@127.0.0.1/x"})
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://u@127.0.0.1/x"


@pytest.mark.parametrize(("text", "seconds"), [("0.5", 0.5), ("90", 90), ("PT2M", 120)])
def test_durations_are_seconds_or_iso_8601(text: str, seconds: float) -> None:
    settings = Settings(**GOOD, plan_interval=text)  # type: ignore[arg-type]
    assert settings.plan_interval == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0", "-1", "soon", ""])
def test_an_interval_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(**GOOD, plan_interval=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["P7D", "P36525D"])
def test_the_log_of_deliveries_is_kept_for_a_week_or_longer(text: str) -> None:
    settings = Settings(**GOOD, delivery_log_kept=text)  # type: ignore[arg-type]
    assert settings.delivery_log_kept == timedelta(days=int(text[1:-1]))


@pytest.mark.parametrize("text", ["0", "90", "P6DT23H59M59S", "-P90D", "P36526D"])
def test_a_log_of_deliveries_that_is_too_short_to_replay_from_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"7 days \(P7D\) on, since .* replay it") as refused:
        Settings(**GOOD, delivery_log_kept=text)  # type: ignore[arg-type]
    assert "delivery_log_kept" in str(refused.value)


@pytest.mark.parametrize("text", ["", "-1", "soon", "90 years"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="delivery_log_kept"):
        Settings(**GOOD, delivery_log_kept=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["http://a/1?x=1 https://b", "http://a/1?x=1,https://b", " "])
def test_witnesses_are_separated_by_spaces_or_commas(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(f"LETHE_{name.upper()}", value)
    monkeypatch.setenv("LETHE_WITNESS_URLS", text)
    urls = [url.get_secret_value() for url in Settings().witness_urls]
    assert urls == ([] if text == " " else ["http://a/1?x=1", "https://b"])


@pytest.mark.parametrize(
    "url", ["ftp://a/pass-word-4", "pass-word-4", "http://", "http://a:pass-word-4", "http://a:0"]
)
def test_a_witness_without_a_web_address_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**GOOD, witness_urls=url)  # type: ignore[arg-type]
    assert "witness_urls" in str(refused.value)
    assert "pass-word-4" not in str(refused.value) + repr(refused.value)


@pytest.mark.parametrize("name", ["log_key", "log_key_file", "weights_key", "witness_file"])
def test_an_empty_text_is_no_key_and_no_file(name: str) -> None:
    assert getattr(Settings(**{**GOOD, name: ""}), name) is None


def test_settings_show_no_secret_and_do_not_change() -> None:
    url = "https://user:pass-word-5@a/pass-word-6?pass-word-7"
    settings = Settings(**GOOD, witness_urls=url, log_key="pass-word-8")  # type: ignore[arg-type]
    shown = repr(settings) + str(settings) + str(settings.model_dump())
    assert not [word for word in ("pass-word", "a" * 40, "b" * 40) if word in shown]
    with pytest.raises(ValidationError):
        settings.mode = "embedded"  # type: ignore[misc]
