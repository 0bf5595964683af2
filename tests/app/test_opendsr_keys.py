"""With what OpenDSR is signed: what fits together is taken, and all else refused at the start."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from fastapi.testclient import TestClient

from app import keys
from app.audit.keys_command import main
from app.keys import KeyRefused, Purpose
from app.opendsr import signing
from embedded.signing_keys import CERTIFICATE_NAME, OPENDSR_KEY_NAME
from embedded.state import claim
from tests.app.controllers import DOMAIN, Reread, certified, certify, set_up

PRIVATE = keys.create(Purpose.OPENDSR)
SELF_SIGNED = certify(PRIVATE, "Lethe", PRIVATE, "Lethe").public_bytes(Encoding.PEM).decode()
NAMELESS = certify(PRIVATE, "Lethe", PRIVATE, "Lethe", None).public_bytes(Encoding.PEM).decode()
_leaf, _end, _of_root = certified(PRIVATE).partition("-----END CERTIFICATE-----\n")
Variables = dict[str, str]


@pytest.fixture
def start(reread: Reread, tmp_path: Path) -> Callable[[Variables, str], None]:
    """Start the API with PRIVATE as the key, this content as the certificate, and these changes."""

    def with_these(variables: Variables, chain: str) -> None:
        (tmp_path / "given.pem").write_text(chain)
        given = {
            "KEY": keys.to_pem(PRIVATE),
            "CERTIFICATE_FILE": str(tmp_path / "given.pem"),
            **variables,
        }
        with set_up(reread, tmp_path, **given):
            from app.main import create_app

            create_app()

    return with_these


REFUSED: dict[str, tuple[Variables, str, str]] = {
    "no domain": ({"DOMAIN": ""}, certified(PRIVATE), "DOMAIN is not set"),
    "no key": ({"KEY": ""}, certified(PRIVATE), "neither LETHE_OPENDSR_KEY nor"),
    "no certificate": ({"CERTIFICATE_FILE": ""}, "", "CERTIFICATE_FILE is not set"),
    "a file that is not there": ({"CERTIFICATE_FILE": "/none/x"}, "", "FILE cannot be read"),
    "no PEM": ({}, "hello", "holds no certificate"),
    "a key in its place": ({}, keys.to_pem(PRIVATE), "holds no certificate"),
    "another key's": ({}, certified(keys.create(Purpose.OPENDSR)), "must begin with"),
    "the authority's first": ({}, _of_root + _leaf + _end, "must begin with"),
    "another domain's": ({}, certified(PRIVATE, "other.example.com"), "does not name"),
    "a wildcard": ({}, certified(PRIVATE, "*.example.com"), "does not name"),
    "no name at all": ({}, NAMELESS, "does not name"),
    "self-signed": ({}, SELF_SIGNED, "forbids a self-signed"),
    "an Ed25519 key": ({"KEY": keys.to_pem(keys.create(Purpose.LOG))}, "", "must be a P-256"),
    "a generated key": ({"KEY": keys.generate(Purpose.OPENDSR)}, "", "was generated"),
}


def test_what_does_not_fit_together_is_refused_at_the_start_without_a_word_of_the_key(
    start: Callable[[Variables, str], None],
) -> None:
    for name, (variables, chain, words) in REFUSED.items():
        with pytest.raises(KeyRefused, match=words) as refused:
            start(variables, chain)
        body = keys.to_pem(PRIVATE).splitlines()[1]
        assert body not in f"{refused.value!r} {refused.value.__cause__!r}", name
    # The control: what all of them begin with is taken.
    start({}, certified(PRIVATE))


def test_an_expired_certificate_is_told_of_and_stops_nothing(
    start: Callable[[Variables, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    start({}, certified(PRIVATE))
    assert "opendsr.certificate_expired" not in capfd.readouterr().err
    start({}, certified(PRIVATE, ends_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert "opendsr.certificate_expired" in capfd.readouterr().err


def test_certificates_alone_are_published_whatever_else_is_in_the_file(
    reread: Reread, tmp_path: Path
) -> None:
    chain = certified(PRIVATE)
    (tmp_path / "all.pem").write_text(keys.to_pem(PRIVATE) + chain)
    given = {"KEY": keys.to_pem(PRIVATE), "CERTIFICATE_FILE": str(tmp_path / "all.pem")}
    with set_up(reread, tmp_path, **given):
        assert signing.certificates().decode() == chain


def test_the_key_does_not_show_when_it_is_printed(reread: Reread, tmp_path: Path) -> None:
    with set_up(reread, tmp_path) as private:
        known = signing.processor()
        body = keys.to_pem(private).splitlines()[1]
        assert known is not None
        assert body not in f"{known!r} {known} {known.key!r} {known.key}"


def test_a_new_key_is_made_for_it_by_command(
    reread: Reread, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.pem"
    assert main(["new", "opendsr", "--out", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made = load_pem_private_key(path.read_bytes(), None)
    chain = tmp_path / "made.pem"
    chain.write_text(certified(made))  # type: ignore[arg-type]
    given = {"KEY": "", "KEY_FILE": str(path), "CERTIFICATE_FILE": str(chain)}
    with set_up(reread, tmp_path, **given):
        known = signing.processor()
        assert known is not None
        assert known.key.id == capsys.readouterr().out.partition("\n")[0]


def test_the_embedded_service_has_a_key_and_certifies_it_itself(
    reread: Reread, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with claim(tmp_path / "state") as claimed:
        folder = claimed.folder
    first = (folder / CERTIFICATE_NAME).read_bytes()
    with claim(folder):
        assert (folder / CERTIFICATE_NAME).read_bytes() == first
    given = {
        "DOMAIN": "localhost:8123",
        "KEY": "",
        "KEY_FILE": str(folder / OPENDSR_KEY_NAME),
        "CERTIFICATE_FILE": str(folder / CERTIFICATE_NAME),
    }
    reread("LETHE_MODE", "embedded")
    with set_up(reread, tmp_path, **given):
        client: TestClient = request.getfixturevalue("client")
        answer = client.get("/opendsr/2.0/discovery")
        assert answer.headers["X-OpenDSR-Processor-Domain"] == "localhost"
        url = answer.json()["processor_certificate"]
        assert url == "http://localhost:8123/opendsr/2.0/certificate"
        assert client.get("/opendsr/2.0/certificate").content == first
    reread("LETHE_MODE", "production")
    with set_up(reread, tmp_path, **given), pytest.raises(KeyRefused, match="was generated"):
        signing.processor()


def test_another_key_in_the_place_of_the_embedded_one_is_certified_anew(tmp_path: Path) -> None:
    with claim(tmp_path):
        before = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE_NAME).read_bytes())
    (tmp_path / OPENDSR_KEY_NAME).write_text(keys.to_pem(PRIVATE))
    with claim(tmp_path):
        after = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE_NAME).read_bytes())
    assert before.public_key() != after.public_key() == PRIVATE.public_key()
    # The control: one that cannot be read is left to the service to refuse.
    (tmp_path / OPENDSR_KEY_NAME).write_text("no key")
    with claim(tmp_path):
        kept = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE_NAME).read_bytes())
    assert kept == after


VERIFYING = """
openssl x509 -in fetched.pem -pubkey -noout > opendsr.pub
base64 -d <<< "$SIGNATURE" > signature
openssl dgst -sha256 -verify opendsr.pub -signature signature body
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_what_a_key_made_as_the_documentation_says_signs_is_verified_by_openssl(
    reread: Reread, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "opendsr.md").read_text()
    making = re.findall(r"```sh\n(.*?)```", page, re.S)[0]
    shell(making, tmp_path)
    private = load_pem_private_key((tmp_path / "opendsr-key.pem").read_bytes(), None)
    asked = x509.load_pem_x509_csr((tmp_path / "opendsr.csr").read_bytes())
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [DOMAIN]
    assert asked.public_key() == private.public_key()
    (tmp_path / "certified.pem").write_text(certified(private))  # type: ignore[arg-type]
    given = {
        "KEY": shell("openssl pkey -in opendsr-key.pem -outform DER | base64 -w 0", tmp_path),
        "CERTIFICATE_FILE": str(tmp_path / "certified.pem"),
    }
    with set_up(reread, tmp_path, **given):
        client: TestClient = request.getfixturevalue("client")
        answer = client.get("/opendsr/2.0/discovery")
        pem = client.get("/opendsr/2.0/certificate").content
    (tmp_path / "fetched.pem").write_bytes(pem)
    (tmp_path / "body").write_bytes(answer.content)
    signature = answer.headers["X-OpenDSR-Signature"]
    assert shell(VERIFYING, tmp_path, SIGNATURE=signature) == "Verified OK"
    (tmp_path / "body").write_bytes(answer.content + b" ")
    assert shell(VERIFYING, tmp_path, SIGNATURE=signature) == "Verification failure"


def shell(program: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return done.stdout.strip()
