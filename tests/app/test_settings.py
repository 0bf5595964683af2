"""Settings refuse what is not safe or not understood, and print no secret."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from app.settings import Settings

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
