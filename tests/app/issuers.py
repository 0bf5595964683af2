"""An issuer of tokens, behind a real server on this machine; it signs by hand (RFC 7515)."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "https://lethe.example.com"
DISCOVERY = "/.well-known/openid-configuration"
_HASHES = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(slots=True)
class Issuer:
    """What it serves may be changed while it runs."""

    url: str = ""
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    """Answers are given when it is set, as it is at first."""
    is_up: bool = True

    def publish(self, *keys: Mapping[str, Any]) -> None:
        """Serve a set of keys, and the way to it."""
        self.serve("/keys", {"keys": keys})
        self.serve(DISCOVERY, {"issuer": self.url, "jwks_uri": self.url + "/keys"})

    def serve(self, path: str, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.pages[path] = (status, headers, body)


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Serve until the block ends."""
    issuer = Issuer()
    issuer.hold.set()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            issuer.hold.wait(20)
            status, headers, body = issuer.pages.get(self.path, (404, {}, b""))
            if not issuer.is_up:
                status, headers, body = 503, {}, b""
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away, as some of these do

    server = Quiet(("127.0.0.1", 0), Answering)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield issuer
    finally:
        issuer.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


@cache
def private(algorithm: str, which: int = 0, bits: int = 2048) -> Any:
    """A key for an algorithm; several are told apart by a number."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, bits)


def jwk(key: Any, id_: str = "one", **more: Any) -> dict[str, Any]:
    """A public key as RFC 7517, 7518 and 8037 write it."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        found = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        size, point = (public.curve.key_size + 7) // 8, public.public_numbers()
        found = {"kty": "EC", "crv": _NAMES[public.curve.name]}
        found |= {"x": b64(point.x.to_bytes(size, "big")), "y": b64(point.y.to_bytes(size, "big"))}
    else:
        numbers = public.public_numbers()
        size = (public.key_size + 7) // 8
        found = {"kty": "RSA", "e": "AQAB", "n": b64(numbers.n.to_bytes(size, "big"))}
    return {**found, "kid": id_, **more}


def claims(issuer: Issuer, **changed: Any) -> dict[str, Any]:
    """What a good token says; a claim that is None is left out."""
    now = int(time.time())
    found = {
        "iss": issuer.url,
        "aud": AUDIENCE,
        "iat": now - 1,
        "exp": now + 300,
        "client_id": "shop",
        "scope": "erasure:read openid",
        **changed,
    }
    return {name: value for name, value in found.items() if value is not None}


def token(
    key: Any, payload: object, algorithm: str = "ES256", header: Mapping[str, Any] | None = None
) -> str:
    """A signed token; a member of the header that is None is left out."""
    full = {"alg": algorithm, "kid": "one", "typ": "at+jwt", **(header or {})}
    parts = [
        json.dumps({name: value for name, value in full.items() if value is not None}).encode(),
        json.dumps(payload).encode(),
    ]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(sign(key, signed.encode(), algorithm))}"


def sign(key: Any, content: bytes, algorithm: str) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(content)
    digest = _HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(content, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return bytes(key.sign(content, pss, digest))
    return bytes(key.sign(content, padding.PKCS1v15(), digest))


def forged(key: Any, issuer: Issuer) -> dict[str, str]:
    """What somebody would send who has the public key alone."""
    said = claims(issuer)
    stranger = private("ES256", 1)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, payload, signature = token(key, said).split(".")
    more = b64(json.dumps({**said, "scope": "ops"}).encode())
    found = {
        "another's signature": token(stranger, said),
        "a key that it brings along": token(stranger, said, header={"jwk": jwk(stranger)}),
        "changed claims": f"{head}.{more}.{signature}",
        "no signature": f"{head}.{payload}.",
        "not signed": f"{b64(json.dumps({'alg': 'none', 'kid': 'one'}).encode())}.{payload}.",
    }
    for name, secret in (("pem", pem), ("jwk", json.dumps(jwk(key)).encode())):
        start = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'one'}).encode())}.{payload}"
        mac = hmac.new(secret, start.encode(), hashlib.sha256).digest()
        found[f"a public key as a secret, {name}"] = f"{start}.{b64(mac)}"
    return found


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
