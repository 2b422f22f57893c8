"""Where tools may go: domains that are allowed or blocked, and addresses that are not public.

Pure rules; ``actors/tools/web/client.py`` applies them to every address before it connects.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from yarl import URL

from actors.tools.arguments import short_text, shown

MAX_URL_CHARACTERS = 8192
"""The longest address; servers refuse longer ones."""

MAX_HOST_CHARACTERS = 300
"""The longest host with a port; a name has 253. To encode a foreign one takes quadratic time."""

ANY_DOMAIN = "*"
"""In a list of allowed domains: every domain, as long as its address is public."""

_HOST = re.compile(r"[^/?#]*//([^/?#]*)")
_SKIPPED = str.maketrans("", "", "\t\r\n")
"""Characters that parsers of addresses leave out wherever they stand."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotPublicError(OSError):
    """A host name led to an address of this machine or of a private network."""

    def __init__(self) -> None:
        """The same text for every address, so that several of one host are one error."""
        super().__init__("it is a private, loopback or link-local address")


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRules:
    """Which pages an agent may fetch.

    Attributes:
        allowed: domains, with their subdomains; ``*`` allows all whose address is public. A domain
            that is listed itself may also be on a private network.
        blocked: never, with their subdomains; goes before ``allowed``.
    """

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    def check(self, url: URL) -> None:
        """Refuse an address by its text alone.

        Raises:
            ValueError: not an http or https address.
            PermissionError: the domain is blocked, or not allowed.
        """
        host = checked_host(url)
        if within(host, self.blocked):
            raise PermissionError(f"{host} is blocked (tools.web.blocked_domains)")
        if not within(host, self.allowed) and ANY_DOMAIN not in self.allowed:
            listed = ", ".join(self.allowed) or "none"
            raise PermissionError(
                f"{host} may not be read; allowed domains: {listed} (tools.pages.allowed_domains)"
            )

    def is_trusted(self, url: URL) -> bool:
        """Whether the host is listed by name, so that its address may be a private one."""
        return checked_host(url) in {domain.lower().strip(".") for domain in self.allowed}


def parse_url(text: object) -> URL:
    """The address ``text``.

    Raises:
        TypeError: it is not text.
        ValueError: it is not an http or https address, or too long for one.
    """
    url = _parsed(short_text(text, "an address", MAX_URL_CHARACTERS))
    checked_host(url)
    return url.with_fragment(None)


def redirected(url: URL, location: str) -> URL:
    """Where a redirect of ``url`` points, which may be told in part.

    Raises:
        ValueError: not to an http or https address.
    """
    target = url.join(_parsed(short_text(location, "a redirect", MAX_URL_CHARACTERS)))
    checked_host(target)
    return target.with_fragment(None)


def host_of(text: str) -> str:
    """The host of an address that a server told, in lower case; empty where it cannot be read."""
    try:
        return (_parsed(text[:MAX_URL_CHARACTERS]).raw_host or "").lower().rstrip(".")
    except ValueError:
        return ""


def checked_host(url: URL) -> str:
    """The host of an http or https address without credentials, in lower case.

    Raises:
        ValueError: it is none.
    """
    if url.scheme not in ("http", "https") or not url.raw_host:
        got = shown(str(url))
        raise ValueError(f"expected an address like https://example.org/page, got {got}")
    if url.user is not None or url.password is not None:
        raise ValueError(f"an address with a user name or password is refused: {url.host}")
    return url.raw_host.lower().rstrip(".")


def within(host: str, domains: Iterable[str]) -> bool:
    """Whether ``host`` is one of ``domains`` or a subdomain of one."""
    for domain in domains:
        name = domain.lower().strip(".")
        if host == name or host.endswith(f".{name}"):
            return True
    return False


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also where it wraps an IPv4 one."""
    parsed = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def public_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of ``getaddrinfo``; a factory for ``aiohttp.TCPConnector``.

    Every connection goes through it, whatever name, number or redirect led there.

    Raises:
        NotPublicError: the address is not one of the public internet.
    """
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise NotPublicError
    return socket.socket(family=family, type=kind, proto=protocol)


def _parsed(text: str) -> URL:
    """An address or a part of one, by its text; its host is short before anything reads it."""
    text = text.translate(_SKIPPED).strip()
    host = _HOST.match(text)
    if host and len(host[1]) > MAX_HOST_CHARACTERS:
        raise ValueError(
            f"{shown(text)} is not an address: its host has more than {MAX_HOST_CHARACTERS} "
            "characters"
        )
    try:
        return URL(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not an address: {str(error)[:200]}") from None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one: mapped, 6to4, Teredo or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address
