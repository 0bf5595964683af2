"""What shows a controller who answered: a domain, a key, and the certificate that joins the two."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import rfc8785
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from app import keys
from app.keys import KeyRefused, SigningKey
from app.settings import settings

API_VERSION = "2.0"
PREFIX = f"/opendsr/{API_VERSION}"
DOMAIN_HEADER = "X-OpenDSR-Processor-Domain"
SIGNATURE_HEADER = "X-OpenDSR-Signature"
# Members that the signature within an answer does not cover: itself, and what a controller is
# forbidden to keep. So what it does keep can still be checked.
NOT_COVERED = ("processor_signature", "encoded_request")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class Processor:
    """The service as controllers see it."""

    origin: str
    """Scheme, domain, and the port if it is not the scheme's own."""
    key: SigningKey

    @property
    def domain(self) -> str:
        """The name in the certificate."""
        return domain_of(self.origin)

    def sign(self, body: bytes) -> str:
        """Return the signature of a body: ECDSA with P-256 and SHA-256, DER in base64."""
        private = self.key.private
        if not isinstance(private, EllipticCurvePrivateKey):
            raise TypeError("the key of OpenDSR signs with ECDSA")
        return base64.b64encode(private.sign(body, ECDSA(SHA256()))).decode()

    def sign_members(self, members: Mapping[str, Any]) -> str:
        """Return the signature that an answer bears within: of the members that may be kept.

        It is over their canonical JSON (RFC 8785).
        """
        covered = {name: value for name, value in members.items() if name not in NOT_COVERED}
        return self.sign(rfc8785.dumps(covered))

    def headers(self, body: bytes) -> dict[str, str]:
        """Return the headers that go with a body, exactly as it is sent."""
        return {DOMAIN_HEADER: self.domain, SIGNATURE_HEADER: self.sign(body)}


def domain_of(origin: str) -> str:
    """Return the domain of an origin: the key under which OpenDSR files what is its own."""
    return origin.partition("://")[2].partition(":")[0]


@cache
def processor() -> Processor | None:
    """Return this service as controllers see it; None where it is not set up for them.

    Raises:
        KeyRefused: it is set up in part, or with a key that cannot be used.

    """
    chosen = settings()
    if chosen.opendsr_domain is None:
        if chosen.opendsr_key or chosen.opendsr_key_file or chosen.opendsr_certificate_file:
            raise KeyRefused("LETHE_OPENDSR_DOMAIN is not set; docs/opendsr.md says how")
        return None
    # The one-command service speaks no TLS.
    scheme = "http" if chosen.mode == "embedded" else "https"
    return Processor(f"{scheme}://{chosen.opendsr_domain}", keys.opendsr_key())


@cache
def certificates() -> bytes:
    """Return the certificate of the key with those that vouch for it, as PEM; none: empty.

    Raises:
        KeyRefused: there is none, or a controller would not believe it.

    """
    known = processor()
    if known is None:
        return b""
    path = settings().opendsr_certificate_file
    if path is None:
        raise KeyRefused("LETHE_OPENDSR_CERTIFICATE_FILE is not set; docs/opendsr.md says how")
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise KeyRefused(
            f"LETHE_OPENDSR_CERTIFICATE_FILE cannot be read: {error.strerror}"
        ) from None
    except ValueError:
        # Without the parser's words: the file might hold a key.
        raise KeyRefused("LETHE_OPENDSR_CERTIFICATE_FILE holds no certificate as PEM") from None
    _check(known, chain)
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def _check(known: Processor, chain: Sequence[x509.Certificate]) -> None:
    own = chain[0]
    if own.public_key() != known.key.private.public_key():
        raise KeyRefused(
            "LETHE_OPENDSR_CERTIFICATE_FILE must begin with the certificate of LETHE_OPENDSR_KEY"
        )
    if known.domain not in _names(own):
        raise KeyRefused(
            "the certificate of LETHE_OPENDSR_CERTIFICATE_FILE does not name LETHE_OPENDSR_DOMAIN"
        )
    if settings().mode != "embedded" and _is_self_signed(own):
        raise KeyRefused(
            "OpenDSR forbids a self-signed certificate; have LETHE_OPENDSR_KEY certified by an "
            "authority that controllers trust"
        )
    if own.not_valid_after_utc <= datetime.now(UTC):
        # Not refused: whoever restarts the service after that day needs all the rest of it.
        log.error("opendsr.certificate_expired", domain=known.domain)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    # No wildcards: the domain is to be one for OpenDSR alone.
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
