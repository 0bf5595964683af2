"""A message goes to the address that was checked, and nowhere else, however names and servers try.

The servers are real ones on loopback, which is a private network and has to be allowed by name.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks import sending
from app.webhooks.addresses import Address
from app.webhooks.sending import NotSent
from tests.app.receivers import Names, Receiver, listening, talking

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
ONE = (ipaddress.ip_network("127.0.0.1/32"),)
NAME = "hooks.example"
BODY = b'{"a":1}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "1"}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    service = Names()
    service.install(monkeypatch)
    return service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as started:
        yield started


def at(
    port: int, host: str = "127.0.0.1", scheme: str = "http", target: str = "/hook?t=1"
) -> Address:
    return Address(scheme, host, port, target)


def test_a_message_arrives_as_it_was_given(names: Names, receiver: Receiver) -> None:
    names.answers[NAME] = [["127.0.0.1"]]
    answer = sending.post(at(receiver.port, NAME), HEADERS, BODY, LOOPBACK)
    assert (answer.status, answer.retry_after) == (204, None)
    [got] = receiver.received
    assert (got.path, got.body) == ("/hook?t=1", BODY)
    assert got.headers == {
        **HEADERS,
        "Host": f"{NAME}:{receiver.port}",
        "Content-Length": str(len(BODY)),
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", NAME, "2130706433", "0x7f.1", "127.1"])
def test_loopback_is_out_of_reach_by_any_name(
    names: Names, receiver: Receiver, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answers |= {NAME: [["127.0.0.1"]], "localhost": [["127.0.0.1"]]}
    with pytest.raises(NotSent, match=r"^address refused$"):
        sending.post(at(receiver.port, host), HEADERS, BODY)
    assert receiver.received == []
    assert sending.post(at(receiver.port, host), HEADERS, BODY, LOOPBACK).status == 204


def test_ipv6_loopback_is_out_of_reach(names: Names) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    for host in ("::1", "::ffff:127.0.0.1", "::"):
        with pytest.raises(NotSent, match=r"^address refused$"):
            sending.post(at(8080, host), HEADERS, BODY, LOOPBACK)


def test_one_address_that_is_not_public_spoils_all(names: Names, receiver: Receiver) -> None:
    names.answers[NAME] = [["127.0.0.1", "169.254.169.254"]]
    with pytest.raises(NotSent, match=r"^address refused$"):
        sending.post(at(receiver.port, NAME), HEADERS, BODY, LOOPBACK)
    names.answers[NAME] = [["127.0.0.1", "127.0.0.2"]]
    with pytest.raises(NotSent, match=r"^address refused$"):
        sending.post(at(receiver.port, NAME), HEADERS, BODY, ONE)
    assert receiver.received == []


@pytest.mark.parametrize(
    "ip",
    [
        *("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"),
        # 127.0.0.1 and 169.254.169.254, mapped and behind NAT64.
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::7f00:1", "2002:7f00:1::", "fe80::1", "::", "10.0.0.1", "0.0.0.0"),  # noqa: S104
    ],
)
def test_a_name_leads_to_no_address_in_disguise(names: Names, receiver: Receiver, ip: str) -> None:
    names.answers[NAME] = [[ip], ["127.0.0.1"]]
    with pytest.raises(NotSent, match=r"^address refused$"):
        sending.post(at(receiver.port, NAME), HEADERS, BODY, LOOPBACK)
    assert receiver.received == []
    assert sending.post(at(receiver.port, NAME), HEADERS, BODY, LOOPBACK).status == 204


def test_a_name_that_changes_its_answer_is_asked_once(names: Names, receiver: Receiver) -> None:
    with listening(host="127.0.0.2", port=receiver.port) as elsewhere:
        names.answers[NAME] = [["127.0.0.1"], ["127.0.0.2"]]
        assert sending.post(at(receiver.port, NAME), HEADERS, BODY, ONE).status == 204
        assert names.asked == [NAME]
        assert (len(receiver.received), elsewhere.received) == (1, [])
        # The second answer is really there for whoever asks again.
        with pytest.raises(NotSent, match=r"^address refused$"):
            sending.post(at(receiver.port, NAME), HEADERS, BODY, ONE)
        assert elsewhere.received == []


def test_a_redirect_is_an_answer_and_not_followed(receiver: Receiver) -> None:
    where = {"Location": f"http://127.0.0.1:{receiver.port}/secret"}
    for status in (301, 302, 303, 307, 308):
        with listening(Receiver(status=status, headers=where)) as redirecting:
            assert sending.post(at(redirecting.port), HEADERS, BODY, LOOPBACK).status == status
    assert receiver.received == []


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        assert sending.post(at(receiver.port), HEADERS, BODY, LOOPBACK).status == 204
        assert (len(receiver.received), proxy.received) == (1, [])


def test_the_next_address_is_tried_when_one_does_not_answer(
    names: Names, receiver: Receiver
) -> None:
    names.answers[NAME] = [["127.0.0.3", "127.0.0.1"]]
    assert sending.post(at(receiver.port, NAME), HEADERS, BODY, LOOPBACK).status == 204


def test_what_is_in_the_way_is_named_by_its_kind(names: Names) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match=r"^no connection$"):
        sending.post(at(port), HEADERS, BODY, LOOPBACK)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "MARKED")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(NotSent, match=r"^unknown host$"):
            sending.post(at(port, NAME), HEADERS, BODY, LOOPBACK)
    with (
        talking(lambda them: them.sendall(b"SSH-2.0-x\r\n\r\n")) as port,
        pytest.raises(NotSent, match=r"^no HTTP$"),
    ):
        sending.post(at(port), HEADERS, BODY, LOOPBACK)


def silent(them: socket.socket) -> None:
    while them.recv(65536):
        pass


def dribble(them: socket.socket) -> None:
    them.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        them.sendall(b"x")
        time.sleep(0.01)  # what the test is about: each byte comes in time


@pytest.mark.parametrize("slowly", [silent, dribble])
def test_nobody_holds_a_sender_longer_than_the_whole_takes(
    slowly: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WHOLE_SECONDS", 0.3)
    with talking(slowly) as port:  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(NotSent, match=r"^timed out$"):
            sending.post(at(port), HEADERS, BODY, LOOPBACK)
        assert 0.25 < time.monotonic() - started < 5


def test_time_that_the_name_service_takes_counts(
    receiver: Receiver, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WHOLE_SECONDS", -1.0)
    with pytest.raises(NotSent, match=r"^timed out$"):
        sending.post(at(receiver.port), HEADERS, BODY, LOOPBACK)
    assert receiver.received == []


def test_the_answers_body_is_not_read() -> None:
    sent = []

    def pour(them: socket.socket) -> None:
        them.recv(65536)
        them.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            sent.append(them.send(b"10000\r\n" + b"x" * 65536 + b"\r\n"))

    with talking(pour) as port:
        assert sending.post(at(port), HEADERS, BODY, LOOPBACK).status == 200
    assert sum(sent) < 50_000_000  # what lay in buffers when the connection was closed


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("120", timedelta(minutes=2)),
        ("999999999", timedelta(hours=12)),
        ("-5", None),
        ("soon", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("9" * 50, None),
    ],
)
def test_a_wish_to_be_left_alone_is_heard_within_reason(
    said: str, understood: timedelta | None
) -> None:
    with listening(Receiver(status=503, headers={"Retry-After": said})) as busy:
        answer = sending.post(at(busy.port), HEADERS, BODY, LOOPBACK)
    assert (answer.status, answer.retry_after) == (503, understood)


def certificate(folder: Path, name: str) -> Path:
    """Write a key and a certificate for the name that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_tls(path: Path, asked: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.sni_callback = lambda _, name, __: asked.append(name)
    return context


def test_tls_is_for_the_name_and_with_the_address_that_was_checked(
    names: Names, tmp_path: Path
) -> None:
    path, asked = certificate(tmp_path, NAME), []
    believed = ssl.create_default_context(cafile=path)
    names.answers |= {NAME: [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
    with listening(tls=server_tls(path, asked)) as secure:
        answer = sending.post(at(secure.port, NAME, "https"), HEADERS, BODY, LOOPBACK, believed)
        assert (answer.status, asked) == (204, [NAME])
        assert secure.received[0].headers["Host"] == f"{NAME}:{secure.port}"
        for host, tls in (("other.example", believed), ("127.0.0.1", believed), (NAME, None)):
            with pytest.raises(NotSent, match=r"^no secure connection$"):
                sending.post(at(secure.port, host, "https"), HEADERS, BODY, LOOPBACK, tls)
        assert len(secure.received) == 1


def test_what_speaks_no_tls_gets_nothing(receiver: Receiver) -> None:
    with pytest.raises(NotSent, match=r"^no secure connection$"):
        sending.post(at(receiver.port, "127.0.0.1", "https"), HEADERS, BODY, LOOPBACK)
    assert receiver.received == []
