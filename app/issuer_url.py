"""Where the keys of an issuer of tokens may come from."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def may_be_asked(url: str, *, plain_http: bool) -> bool:
    """Tell whether keys may come from a URL: over TLS, or plainly from this very machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (plain_http and parts.scheme == "http" and _is_here(host))


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
