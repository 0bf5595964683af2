"""Private keys: each form is read, each wrong one refused, and none is ever shown."""

import base64
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from app import keys
from app.audit.keys_command import main
from app.keys import KeyRefused, Purpose
from app.settings import settings
from lethe.verify.keys import load_keys, thumbprint

LOADERS = {"LOG": keys.log_key, "WEIGHTS": keys.weights_key}
Give = Callable[[str, str], None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Iterator[Give]:
    """Give this process one private key, and no database."""

    def forget() -> None:
        for cached in (settings, *LOADERS.values()):
            cached.cache_clear()

    for name in ("LOG_KEY", "LOG_KEY_FILE", "WEIGHTS_KEY", "WEIGHTS_KEY_FILE"):
        monkeypatch.delenv(f"LETHE_{name}", raising=False)
    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("LETHE_BROKER_URL", "redis://127.0.0.1:1")

    def change(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        forget()

    yield change
    forget()


def pem(private: keys.PrivateKey, *, password: bytes | None = None) -> str:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def one_line(private: keys.PrivateKey) -> str:
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return base64.b64encode(der).decode()


def spellings(private: keys.PrivateKey) -> list[str]:
    """What would give a private key away, however it is written."""
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(private, Ed25519PrivateKey):
        raw = private.private_bytes_raw()
    else:
        raw = private.private_numbers().private_value.to_bytes(32, "big")
    body = [line for line in pem(private).splitlines() if not line.startswith("-----")]
    return [
        *body,
        one_line(private),
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        str(int.from_bytes(raw, "big")),
        repr(raw)[2:-1],
        repr(der)[2:-1],
    ]


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("form", ["pem", "line", "file", "file of one line"])
def test_every_form_of_a_key_is_read(give: Give, tmp_path: Path, name: str, form: str) -> None:
    private = keys.create(Purpose[name])
    content = one_line(private) if "line" in form else pem(private)
    if form.startswith("file"):
        (tmp_path / "key").write_text(content + "\n")
        give(f"LETHE_{name}_KEY_FILE", str(tmp_path / "key"))
    else:
        give(f"LETHE_{name}_KEY", content)
    found = LOADERS[name]()
    assert found.id == thumbprint(private.public_key())
    assert (found.purpose, found.generated) == (Purpose[name], False)


ED25519, P256 = Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())
EXAMPLE_ED25519 = Ed25519PrivateKey.from_private_bytes(
    # RFC 8037, A.1, as a JWK has it.
    base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
)
EXAMPLE_P256 = derive_private_key(
    # RFC 7515, A.3.1.
    int.from_bytes(base64.urlsafe_b64decode("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI="), "big"),
    SECP256R1(),
)
REFUSED = {
    "none": ("LOG", "", "neither"),
    "no key": ("LOG", "hello, this is no key", "holds no unencrypted"),
    "half a key": ("LOG", pem(ED25519)[:-40], "holds no unencrypted"),
    "encrypted": ("LOG", pem(ED25519, password=b"x"), "holds no unencrypted"),
    "public": (
        "LOG",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----",
        "holds no",
    ),
    "other purpose": ("LOG", pem(P256), "must be an Ed25519"),
    "other purpose of weights": ("WEIGHTS", pem(ED25519), "must be a P-256"),
    "other curve": ("WEIGHTS", pem(generate_private_key(SECP384R1())), "must be a P-256"),
    "generated": ("LOG", keys.generate(Purpose.LOG), "generated or is an example"),
    "generated weights": ("WEIGHTS", keys.generate(Purpose.WEIGHTS), "generated or is an example"),
    "example": ("LOG", pem(EXAMPLE_ED25519), "generated or is an example"),
    "example weights": ("WEIGHTS", pem(EXAMPLE_P256), "generated or is an example"),
}


@pytest.mark.parametrize(("name", "content", "words"), REFUSED.values(), ids=REFUSED)
def test_a_key_that_cannot_be_used_is_refused_without_a_word_of_it(
    give: Give, name: str, content: str, words: str
) -> None:
    give(f"LETHE_{name}_KEY", content)
    with pytest.raises(KeyRefused, match=words) as refused:
        LOADERS[name]()
    said = str(refused.value) + repr(refused.value) + repr(refused.value.__cause__)
    assert f"LETHE_{name}_KEY" in said
    quoted = [line for line in content.splitlines() if len(line) > 8 and line in said]
    assert quoted == []


def test_a_key_that_is_given_twice_is_refused(give: Give, tmp_path: Path) -> None:
    give("LETHE_LOG_KEY", pem(ED25519))
    give("LETHE_LOG_KEY_FILE", str(tmp_path))
    with pytest.raises(KeyRefused, match="both set"):
        keys.log_key()


@pytest.mark.parametrize("place", ["missing", "."])
def test_a_file_that_cannot_be_read_is_refused(give: Give, tmp_path: Path, place: str) -> None:
    give("LETHE_LOG_KEY_FILE", str(tmp_path / place))
    with pytest.raises(KeyRefused, match="cannot be read"):
        keys.log_key()


def test_a_key_does_not_show_when_it_is_printed(environment: dict[str, str]) -> None:
    for load in LOADERS.values():
        key = load()
        shown = repr(key) + str(key) + f"{key}" + repr(settings()) + settings().model_dump_json()
        assert [text for text in spellings(key.private) if text in shown] == []
        assert key.id in repr(key)
        # The search finds what it looks for.
        assert [text for text in spellings(key.private) if text in pem(key.private)] != []


COMMANDS = {
    "log": "openssl genpkey -algorithm ed25519 -outform DER | base64 | tr -d '\\n'",
    "weights": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -outform DER"
    " | base64 | tr -d '\\n'",
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("name", LOADERS)
def test_a_key_made_as_the_documentation_says_is_taken(give: Give, name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    command = COMMANDS[name.lower()]
    assert command in page
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    give(f"LETHE_{name}_KEY", made.stdout)
    assert LOADERS[name]().purpose == Purpose[name]


@pytest.mark.parametrize("name", LOADERS)
def test_a_new_key_is_its_owners_alone_and_never_replaces_another(
    give: Give, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "key.pem"
    assert main(["new", name.lower(), "--out", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    give(f"LETHE_{name}_KEY_FILE", str(path))
    made = LOADERS[name]()
    said = capsys.readouterr().out
    key_id, _, public = said.partition("\n")
    assert key_id == made.id == load_keys(public.encode())[0].id
    assert [text for text in spellings(made.private) if text in said] == []
    before = path.read_bytes()
    assert main(["new", name.lower(), "--out", str(path)]) == 1
    assert path.read_bytes() == before


PRINTING = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
from app import keys, logs
from app.settings import settings
logs.set_up()
import structlog
key = keys.log_key()
structlog.get_logger().error("seen", key=key, settings=settings(), private=key.private)
from app.main import create_app
create_app()
try:
    local = keys.log_key()
    raise RuntimeError(f"{local} {settings()!r}")
except RuntimeError:
    structlog.get_logger().exception("failed")
    traceback.print_exc()
from app.audit import heads
print(heads.current())
"""


def test_a_process_that_prints_all_it_has_shows_no_key(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTING],
        env={**environment, "LETHE_LOG_LEVEL": "debug"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert keys.log_key().id in said  # it did print the key's name
    for load in LOADERS.values():
        assert [text for text in spellings(load().private) if text in said] == []
