"""The compose file, checked without an engine."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from app.settings import Settings
from embedded.commands import API_KEY, API_KEY_DIGEST, ID_KEY, LOG_KEY, WEIGHTS_KEY, Program
from tests.deployment.composed import PROGRAMS, ROOT, SECRETS, compose, stop_grace_seconds


def test_compose_accepts_the_file_once_all_secrets_are_given() -> None:
    result = compose("--quiet")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("secret", [name for name in SECRETS if name != API_KEY_DIGEST])
@pytest.mark.parametrize("value", [None, ""])
def test_compose_refuses_to_start_without_a_secret(secret: str, value: str | None) -> None:
    given = {name: text for name, text in SECRETS.items() if name != secret}
    result = compose("--quiet", environment=given if value is None else {**given, secret: value})
    assert result.returncode != 0
    assert secret in result.stderr


def read_by_the_api(environment: Mapping[str, str]) -> Settings:
    """What the API makes of the operator's key that Compose hands on."""
    result = compose("--format", "json", environment=environment)
    api = json.loads(result.stdout)["services"]["api"]["environment"]
    urls = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    return Settings(**urls, api_key=api[API_KEY], api_key_digest=api[API_KEY_DIGEST])


@pytest.mark.parametrize("value", [None, ""])
def test_compose_starts_without_a_key_of_the_operator(value: str | None) -> None:
    given = {name: text for name, text in SECRETS.items() if name != API_KEY_DIGEST}
    names = (API_KEY, API_KEY_DIGEST)
    settings = read_by_the_api(given if value is None else {**given, **dict.fromkeys(names, value)})
    assert settings.root_key_digest() is None


@pytest.mark.parametrize("name", [API_KEY, API_KEY_DIGEST])
def test_compose_gives_the_api_the_operators_key_in_either_form(name: str) -> None:
    key = "k" * 64
    digest = hashlib.sha256(key.encode())
    given = {each: text for each, text in SECRETS.items() if each != API_KEY_DIGEST}
    value = key if name == API_KEY else f"sha256:{digest.hexdigest()}"
    assert read_by_the_api({**given, name: value}).root_key_digest() == digest.digest()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_the_documented_start_makes_secrets_that_hold_and_keeps_no_key(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    block = re.search(r"```sh\n(.*?)^docker compose up", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    shown = subprocess.run(
        ["sh", "-eu", "-c", block[1]], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    [key] = re.findall(r"\b[0-9a-f]{64}\b", shown)
    written = (tmp_path / ".env").read_text()
    given = dict(line.split("=", 1) for line in written.splitlines())
    assert set(given) == set(SECRETS)
    assert key not in written
    assert read_by_the_api(given).root_key_digest() == hashlib.sha256(key.encode()).digest()
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", PROGRAMS)
def test_compose_runs_the_commands_of_the_embedded_service(
    name: str, services: dict[str, dict]
) -> None:
    filled = [part.format(host="0.0.0.0", port=8000) for part in PROGRAMS[name].command]  # noqa: S104
    assert services[name]["command"] == filled


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_service_gets_at_least_what_the_embedded_one_gets(
    name: str, services: dict[str, dict]
) -> None:
    program: Program = PROGRAMS[name]
    assert program.environment.items() <= services[name]["environment"].items()
    assert stop_grace_seconds(services[name]) >= program.grace_seconds


def test_each_key_goes_to_the_services_that_need_it_and_to_no_other(
    services: dict[str, dict],
) -> None:
    everything = {name: json.dumps(service) for name, service in services.items()}
    for key in (API_KEY_DIGEST, ID_KEY, LOG_KEY, WEIGHTS_KEY):
        needing = {name for name, program in PROGRAMS.items() if key in program.secrets}
        assert {name for name, text in everything.items() if SECRETS[key] in text} == needing
        assert {name for name, text in everything.items() if key in text} == needing
    # The database's own password gives all that a key of the service could; the broker has none.
    assert SECRETS["POSTGRES_PASSWORD"] not in everything["broker"]
    assert SECRETS["BROKER_PASSWORD"] not in everything["postgres"]


def test_no_secret_stands_in_an_argument_or_goes_into_a_build(services: dict[str, dict]) -> None:
    for service in services.values():
        shown = json.dumps([service.get("command"), service.get("build"), service["image"]])
        assert not any(secret in shown for secret in SECRETS.values())


def test_the_secrets_of_this_test_are_ones_that_the_settings_accept() -> None:
    urls = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    private = {"log_key": SECRETS[LOG_KEY], "weights_key": SECRETS[WEIGHTS_KEY]}
    keys = {"api_key_digest": SECRETS[API_KEY_DIGEST], "id_key": SECRETS[ID_KEY]}
    assert Settings(**urls, **private, **keys)


def test_only_the_api_is_published_and_only_on_this_machine(services: dict[str, dict]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {name: [port["host_ip"] for port in each] for name, each in ports.items()} == {
        "api": ["127.0.0.1"]
    }


def test_every_service_runs_with_the_least_rights(services: dict[str, dict]) -> None:
    for service in services.values():
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_every_setting_can_be_set_through_compose(services: dict[str, dict]) -> None:
    reachable = {
        name.removeprefix("LETHE_").lower()
        for service in services.values()
        for name in service["environment"]
        if name.startswith("LETHE_")
    }
    # The embedded mode is for one command on one machine, and so are crashes on purpose. A key in a
    # file of the host would have another owner than the container's user.
    elsewhere = {"mode", "crash_folder", "log_key_file", "weights_key_file", "opendsr_key_file"}
    assert reachable == set(Settings.model_fields) - elsewhere


def test_whoever_signs_has_the_same_witness_file_on_a_volume_of_its_own(
    services: dict[str, dict], instructions: list[tuple[str, str, str]]
) -> None:
    signing = [name for name, program in PROGRAMS.items() if LOG_KEY in program.secrets]
    assert sorted(signing) == ["api", "scheduler"]
    for name in signing:
        path = PurePosixPath(services[name]["environment"]["LETHE_WITNESS_FILE"])
        mounted = {each["target"]: each["source"] for each in services[name]["volumes"]}
        assert mounted[str(path.parent)] == "witness"
        # Made in the image for the service's user, which a new volume takes over.
        made = [rest for _, kind, rest in instructions if kind == "RUN" and "install --dir" in rest]
        assert any(str(path.parent) in rest.split() for rest in made)


def test_docs_list_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    rows = re.findall(r"^\| `LETHE_(\w+)` \|[^|]+\| ([^|]+?) \|$", text, flags=re.MULTILINE)
    documented = {name.lower(): default.strip("`") for name, default in rows}
    assert len(rows) == len(documented)
    assert set(documented) == set(Settings.model_fields)
    needed = {"database_url": "postgresql://x/y", "broker_url": "redis://x"}
    for name, field in Settings.model_fields.items():
        if field.is_required():
            assert documented[name] == "required"
        elif field.default in (None, ()):
            assert documented[name] == "not set"
        else:
            assert getattr(Settings(**needed, **{name: documented[name]}), name) == field.default
