"""No address leads a message where only this service can reach."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AddressRefused
from app.webhooks import addresses
from app.webhooks.addresses import Address

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)

# From the registries of special addresses (RFC 6890 and its successors).
SPECIAL = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48"),
    *("100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"),
    *("2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "2001:4860:4860::8888", "2003::1"),
]


@pytest.mark.parametrize("network", SPECIAL)
def test_no_special_network_is_public(network: str) -> None:
    special = ipaddress.ip_network(network)
    for address in (special[0], special[-1], special[special.num_addresses // 2]):
        assert not addresses.is_public(address), address


@pytest.mark.parametrize("address", PUBLIC)
def test_hosts_of_the_internet_are_public(address: str) -> None:
    assert addresses.is_public(ipaddress.ip_address(address))
    addresses.require_receiver(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_clothes_is_never_public(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for disguise in (
        (0xFFFF << 32) | number,  # mapped
        number,  # compatible
        (0x64FF9B << 96) | number,  # NAT64
        (0x2002 << 112) | (number << 80),  # 6to4
        (0x20010000 << 96) | (number ^ 0xFFFFFFFF),  # Teredo
    ):
        assert not addresses.is_public(ipaddress.IPv6Address(disguise))


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"],
)
def test_a_clouds_metadata_are_out_of_reach_whatever_is_allowed(address: str) -> None:
    everything = tuple(ipaddress.ip_network(each) for each in ("0.0.0.0/0", "::/0"))
    with pytest.raises(AddressRefused):
        addresses.require_receiver(ipaddress.ip_address(address), everything)
    addresses.require_receiver(ipaddress.ip_address("10.0.0.1"), everything)


def test_a_private_network_is_allowed_by_its_name_alone() -> None:
    allowed = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd01::/16"))
    for inside in ("10.1.2.3", "fd01::1"):
        addresses.require_receiver(ipaddress.ip_address(inside), allowed)
    for outside in ("10.2.0.1", "fd02::1", "::ffff:10.1.2.3", "fe80::1", "127.0.0.1"):
        with pytest.raises(AddressRefused, match="LETHE_WEBHOOK_PRIVATE_NETWORKS"):
            addresses.require_receiver(ipaddress.ip_address(outside), allowed)
    with pytest.raises(AddressRefused):
        addresses.require_receiver(ipaddress.ip_address("fd01::1%eth0"), allowed)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://a.example", ("https", "a.example", 443, "/")),
        ("https://A.Example:443/x/y?z=1&t=%2F@:", ("https", "a.example", 443, "/x/y?z=1&t=%2F@:")),
        ("https://a.example:65535?q", ("https", "a.example", 65535, "/?q")),
        ("https://xn--bcher-kva.example:1024/", ("https", "xn--bcher-kva.example", 1024, "/")),
        ("https://hooks:8443/", ("https", "hooks", 8443, "/")),
        ("https://1.1.1.1/", ("https", "1.1.1.1", 443, "/")),
        ("https://[2606:4700:4700:0::1111]/", ("https", "2606:4700:4700::1111", 443, "/")),
        ("https://1password.example/", ("https", "1password.example", 443, "/")),
    ],
)
def test_an_address_is_taken_apart(url: str, parts: tuple[str, str, int, str]) -> None:
    assert addresses.parse(url) == Address(*parts)
    assert addresses.host_of(url) == url.split("/")[2].rsplit("?")[0].lower().replace(
        f":{parts[2]}", ""
    )


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://a.example:443/", "a.example"),
        ("https://a.example:8443/", "a.example:8443"),
        ("https://[2606::1]:8443/", "[2606::1]:8443"),
    ],
)
def test_the_header_host_names_the_port_unless_it_is_the_usual(url: str, authority: str) -> None:
    assert addresses.parse(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "a.example",
            "//a.example",
            "ftp://a.example",
            "HTTPS://a.example",
            "https:a.example",
        ),
        *(
            "https://",
            "https:///x",
            "https://:8443/",
            "https://a.example:/",
            "https://a.example:x/",
        ),
        # Who is the host? Not the user's.
        *("https://user@a.example/", "https://user:pass@a.example/", "https://a.example:1@b.c/"),
        *(
            "https://a.example\\@127.0.0.1/",
            "https://a.example#@127.0.0.1/",
            "https://a.example/#x",
        ),
        *(
            "https://a.example /",
            "https://a.example/ x",
            "https://a.example/\r\nX: y",
            " https://a.b",
        ),
        *(
            "https://a.example/\n",
            "https://a.example\t/",
            "https://a.example/é",
            "https://bücher.de",
        ),
        *(
            "https://a..example/",
            "https://.a/",
            "https://a./",
            "https://-a.example/",
            "https://a-.b",
        ),
        *("https://a_b.example/", "https://*.example/", "https://a%2eexample/", "https://[a]/"),
        "https://" + "a" * 64 + ".example/",
        "https://a.example/" + "x" * 2_000,
        # Ports of services that are no web servers.
        *("https://a.example:80/", "https://a.example:22/", "https://a.example:0/"),
        *("https://a.example:1023/", "https://a.example:65536/", "https://a.example:6379000/"),
        # Loopback, however it is spelled.
        *("https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/"),
        *("https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://017700000001/", "https://0/"),
        *("https://127.0.0.1./", "https://0x7F.1/", "https://127.0.0.0x1/", "https://1.2.3.4.5/"),
        *("https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::7f00:1]/"),
        *("https://[0:0:0:0:0:0:0:1]/", "https://[fe80::1%25eth0]/", "https://[fe80::1]/"),
        *(
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00:ec2::254]/",
            "https://0.0.0.0",
        ),
        *(
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://172.16.0.1/",
            "https://100.64.0.1/",
        ),
        *("http://a.example/", "http://1.1.1.1/"),
    ],
)
def test_what_is_not_plainly_an_address_of_the_web_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        addresses.parse(url)
    host = url.split("/")[2] if url.count("/") > 1 else ""
    assert len(host) < 3 or host not in refused.value.detail


def test_plain_http_takes_to_be_allowed() -> None:
    address = addresses.parse("http://127.0.0.1:8080/x", plain_http=True, allowed=LOOPBACK)
    assert address == Address("http", "127.0.0.1", 8080, "/x")
    assert addresses.parse("http://a.example", plain_http=True).port == 80
    with pytest.raises(AddressRefused):
        addresses.parse("http://a.example:443/", plain_http=True)


@given(st.from_regex(r"[0-9a-fx.]{1,12}", fullmatch=True))
def test_no_host_that_a_resolver_takes_for_a_number_passes_for_a_name(host: str) -> None:
    try:
        socket.inet_aton(host)
    except OSError:
        return
    try:
        found = addresses.parse(f"https://{host}/")
    except AddressRefused:
        return
    assert str(ipaddress.IPv4Address(found.host)) == host
