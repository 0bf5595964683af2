"""A controller that speaks OpenDSR, and believes nothing that it has not checked."""

import base64
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient

from app import keys
from app.keys import PrivateKey, Purpose
from app.opendsr import signing
from app.scopes import Scope
from tests.app.callers import bearer, give

DOMAIN = "opendsr.example.com"
BASE = "/opendsr/2.0"
MARK = "MARKED-sample-ID"
Reread = Callable[[str, str], None]


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@cache
def authority() -> tuple[PrivateKey, x509.Certificate]:
    """A certificate authority that controllers trust."""
    private = keys.create(Purpose.OPENDSR)
    return private, certify(private, "An authority", private, "An authority", domain=None)


def certify(
    private: PrivateKey,
    subject: str,
    by: PrivateKey,
    issuer: str,
    domain: str | None = DOMAIN,
    ends_at: datetime | None = None,
) -> x509.Certificate:
    today = datetime.now(UTC)
    ends = ends_at or today + timedelta(days=30)
    made = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(today, ends) - timedelta(days=1))
        .not_valid_after(ends)
    )
    if domain is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(domain)])
        made = made.add_extension(names, critical=False)
    return made.sign(by, SHA256())  # type: ignore[arg-type]


def certified(private: PrivateKey, domain: str = DOMAIN, **chosen: Any) -> str:
    """The certificate of a key, by the authority, with the authority's own behind it."""
    root, of_root = authority()
    leaf = certify(private, "Lethe", root, "An authority", domain, **chosen)
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in (leaf, of_root))


def forget() -> None:
    for cached in (keys.opendsr_key, signing.processor, signing.certificates):
        cached.cache_clear()


@contextmanager
def set_up(reread: Reread, folder: Path, **variables: str) -> Iterator[PrivateKey]:
    """Set the service up for OpenDSR, but for what is given in another way."""
    private = keys.create(Purpose.OPENDSR)
    chain = folder / "chain.pem"
    chain.write_text(certified(private))
    chosen = {
        "DOMAIN": DOMAIN,
        "KEY": keys.to_pem(private),
        "CERTIFICATE_FILE": str(chain),
        **variables,
    }
    for variable, value in chosen.items():
        reread(f"LETHE_OPENDSR_{variable}", value)
    forget()
    try:
        yield private
    finally:
        forget()


def asking(*samples: str, **chosen: Any) -> dict[str, Any]:
    """A request as the specification's example has it."""
    return {
        "regulation": "gdpr",
        "subject_request_id": str(uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": "2026-10-02T15:00:00Z",
        "subject_identities": [
            {
                "identity_type": "controller_customer_id",
                "identity_value": sample,
                "identity_format": "raw",
            }
            for sample in samples
        ],
        **chosen,
    }


def without(body: Mapping[str, Any], *members: str) -> dict[str, Any]:
    return {member: value for member, value in body.items() if member not in members}


def changed(body: Mapping[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """The body with another value in one place."""
    made: Any = copy.deepcopy(dict(body))
    place = made
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    found: dict[str, Any] = made
    return found


@dataclass(slots=True)
class Controller:
    """Calls the service, and checks each answer by the certificate that discovery names."""

    client: TestClient
    headers: Mapping[str, str] = field(default_factory=dict)
    key: EllipticCurvePublicKey | None = field(default=None, init=False)

    def other(self, called: str, *scopes: Scope) -> "Controller":
        """Another controller, with a key of its own."""
        return Controller(self.client, bearer(give(called, *(scopes or Scope))))

    def discover(self) -> EllipticCurvePublicKey:
        """Fetch the key by which all else is checked, as 8.8 has it and the guidelines."""
        told = self.client.get(f"{BASE}/discovery", headers={"Authorization": ""}).json()
        url = httpx2.URL(told["processor_certificate"])
        assert url.host == DOMAIN
        pem = self.client.get(url.path, headers={"Authorization": ""}).content
        leaf, *rest = x509.load_pem_x509_certificates(pem)
        leaf.verify_directly_issued_by(authority()[1])
        assert rest == [authority()[1]]
        assert leaf.not_valid_after_utc > datetime.now(UTC)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == [DOMAIN]
        found = leaf.public_key()
        assert isinstance(found, EllipticCurvePublicKey)
        self.key = found
        return found

    def believes(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Tell whether a body is signed by the key of the domain, before anything is read of it."""
        assert headers["X-OpenDSR-Processor-Domain"] == DOMAIN
        return self.has_signed(headers["X-OpenDSR-Signature"], body)

    def has_signed(self, signature: str, body: bytes) -> bool:
        try:
            (self.key or self.discover()).verify(
                base64.b64decode(signature, validate=True), body, ECDSA(SHA256())
            )
        except InvalidSignature:
            return False
        return True

    def request(self, verb: str, path: str, **sent: Any) -> httpx2.Response:
        headers = {**self.headers, **sent.pop("headers", {})}
        answer = self.client.request(verb, BASE + path, headers=headers, **sent)
        assert self.believes(answer.headers, answer.content), (verb, path)
        assert answer.headers["Cache-Control"] == "no-store"
        return answer

    def ask(self, body: Mapping[str, Any] | bytes, status: int = 201) -> dict[str, Any]:
        sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": "application/json"}
        answer = self.request("POST", "/requests", headers=headers, **sent)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def look(self, subject_request_id: str, status: int = 200) -> dict[str, Any]:
        answer = self.request("GET", f"/requests/{subject_request_id}")
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def cancel(self, subject_request_id: str, status: int = 202) -> dict[str, Any]:
        answer = self.request("DELETE", f"/requests/{subject_request_id}")
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def has_receipt(self, answer: Mapping[str, Any]) -> bool:
        """Check the signature within an answer, of which only what may be kept was kept."""
        kept = without(answer, "processor_signature", "encoded_request")
        return self.has_signed(answer["processor_signature"], rfc8785.dumps(kept))
