"""Where messages may go: web addresses without room for two readings, in networks that are public.

Who may name an address could otherwise make this service talk to what only it can reach: itself,
its neighbours, a cloud's metadata (server-side request forgery).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import AddressRefused

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST = 2_000
DEFAULT_PORTS = {"https": 443, "http": 80}
# Lower ones belong to services that are no web servers.
FIRST_FREE_PORT = 1024

# Narrower than the standards, so that no two parsers can read two hosts into one address: ASCII
# alone, no user information, no fragment.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:[/?][A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?)"
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# What resolvers take for a part of an IPv4 address: 127, 0177, 0x7f.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Public by the registries, and yet no place for a message: tunnels, whose other end an address
# within the address names, and what is for protocols alone.
_NO_RECEIVERS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("192.0.0.0/24", "192.88.99.0/24"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
# Whatever networks an operator allows, nobody asks a cloud for its machines' secrets.
_METADATA = tuple(
    ipaddress.ip_address(address)
    for address in (
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd20:ce::254"),
    )
)


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a web address that is well formed."""

    scheme: str
    host: str
    """A name or an IP address, in lower case and without brackets."""
    port: int
    target: str
    """Path and query; neither belongs into a log."""

    @property
    def authority(self) -> str:
        """What the header Host says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str, *, plain_http: bool = False, allowed: Sequence[IpNetwork] = ()) -> Address:
    """Take an address apart. A name in it is looked up only when something is sent.

    Args:
        url: the address, `https://…`.
        plain_http: whether `http://…` will do.
        allowed: networks, besides public ones, that a literal IP address may lie in.

    Raises:
        AddressRefused: saying which rule the address breaks, without quoting it.

    """
    parts = _URL.fullmatch(url) if len(url) <= LONGEST else None
    if parts is None:
        raise AddressRefused(
            "Write it as https://host:port/path: ASCII alone (xn--… for other letters), at most "
            f"{LONGEST} characters, without user name, password and #fragment."
        )
    scheme, host = parts["scheme"], parts["host"].lower()
    if scheme == "http" and not plain_http:
        raise AddressRefused("Use https.")
    port = int(parts["port"]) if parts["port"] else DEFAULT_PORTS[scheme]
    if port != DEFAULT_PORTS[scheme] and not FIRST_FREE_PORT <= port < 2**16:
        raise AddressRefused(f"Use port {DEFAULT_PORTS[scheme]}, or one from {FIRST_FREE_PORT} on.")
    target = parts["target"] or "/"
    literal = _literal(host)
    if literal is not None:
        require_receiver(literal, allowed)
        host = str(literal)
    return Address(scheme, host, port, target if target.startswith("/") else "/" + target)


def host_of(url: str) -> str:
    """Return the host of an address that was well formed once, whatever is allowed by now."""
    parts = _URL.fullmatch(url)
    return "" if parts is None else parts["host"].lower()


def require_receiver(address: IpAddress, allowed: Sequence[IpNetwork] = ()) -> None:
    """Check that a message may be sent to an IP address.

    Raises:
        AddressRefused: it is not public, and in none of the allowed networks.

    """
    if address in _METADATA or getattr(address, "scope_id", None) is not None:
        raise AddressRefused("Its host is no receiver of messages.")
    if not is_public(address) and not any(address in network for network in allowed):
        raise AddressRefused(
            "Its host is in a private network; the operator can allow that one by "
            "LETHE_WEBHOOK_PRIVATE_NETWORKS."
        )


def is_public(address: IpAddress) -> bool:
    """Tell whether an IP address is one host's in the public internet."""
    if any(address in network for network in _NO_RECEIVERS):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    # Each for itself: what a version of Python's library counts as global has changed.
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )


def _literal(host: str) -> IpAddress | None:
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise AddressRefused("The brackets do not hold an IPv6 address.") from None
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressRefused("Write an IPv4 address as four decimal numbers.") from None
    if not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise AddressRefused("The host is not a name.")
    return None
