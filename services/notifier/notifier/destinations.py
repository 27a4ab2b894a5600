"""Which URLs the notifier may call for somebody: public ones over TLS, and what the operator's networks allow besides.

An address is judged each time before a connection to it is opened, and that very address is connected to: a name that
leads elsewhere later leads nowhere.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of (host, port), as text. Raises OSError."""

MAX_URL_LENGTH = 2000
VARIABLE = "ARAGORA_WEBHOOK_ALLOWED_NETWORKS"
_RESOLVING_THREADS = 512
"""The system's resolver blocks a thread for up to half a minute: a name nobody answers for delays no other."""

_NOT_PUBLIC_4 = tuple(map(IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "168.63.129.16/32",
)))  # fmt: skip
"""IANA's registry of special-purpose IPv4 addresses (https://www.iana.org/assignments/iana-ipv4-special-registry,
2025-10), multicast (RFC 5771), and what Azure gives to the machine's host
(https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16)."""

_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(IPv6Network, (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)))  # fmt: skip
"""Within global unicast (RFC 4291): IANA's registry of special-purpose IPv6 addresses
(https://www.iana.org/assignments/iana-ipv6-special-registry, 2025-10), among them Teredo and 6to4, in which any IPv4
address may hide. NAT64, unique local and link-local addresses are outside of it."""

_AUTHORITY_END = re.compile(r"[/?#]")
_NUMBER = re.compile(r"(\d+|0x[0-9a-f]*)", re.IGNORECASE)


class ForbiddenUrl(ValueError):
    """The notifier does not call this URL. The message says why and what to do; nothing secret of the URL is in it."""


def check_url(url: str, networks: Iterable[Network]) -> None:
    """Whether a URL may be called as far as it can be told without looking its host up.

    `http` is for hosts in the allowed networks only; of a name, that shows when it is looked up.

    Raises:
        ForbiddenUrl: it may not.
    """
    parsed = _parsed(url)
    if parsed.scheme not in ("https", "http"):
        raise ForbiddenUrl("begin the URL with https://")
    if "@" in _AUTHORITY_END.split(url.partition("//")[2], maxsplit=1)[0]:
        raise ForbiddenUrl("leave the user name and password out of the URL; messages are signed instead")
    if "#" in url:
        raise ForbiddenUrl("leave the fragment (#…) out of the URL; no server would get it")
    host = parsed.raw_host.decode()
    if not host or "%" in host:
        raise ForbiddenUrl("the URL needs the name of a host, such as https://example.com/hook")
    if host.endswith("."):
        raise ForbiddenUrl("write the host without a dot at its end")
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise ForbiddenUrl("the port is a number from 1 to 65535")
    allowed = tuple(networks)
    address = _literal(host)
    if address is not None:
        _vet(address, allowed, encrypted=parsed.scheme == "https")
    elif parsed.scheme == "http" and not allowed:
        raise ForbiddenUrl("begin the URL with https://; messages tell of your organization")


async def check_destination(url: str, networks: Iterable[Network], resolver: Resolver | None = None) -> None:
    """Whether a URL may be called as things are: `check_url`, and every address of its host.

    Raises:
        ForbiddenUrl: it may not.
        OSError: the host's name is not known, or nobody answers for it. It may be tomorrow.
    """
    allowed = tuple(networks)
    check_url(url, allowed)
    parsed = _parsed(url)
    encrypted = parsed.scheme == "https"
    port = parsed.port or (443 if encrypted else 80)
    await resolve(parsed.raw_host.decode(), port, allowed, encrypted=encrypted, resolver=resolver)


async def resolve(
    host: str, port: int, networks: Iterable[Network], *, encrypted: bool = True, resolver: Resolver | None = None
) -> list[str]:
    """The addresses of a host, all of which may be called. `resolver` defaults to the system's.

    Raises:
        ForbiddenUrl: one of them may not be.
        OSError: the name is not known, or nobody answers for it.
    """
    allowed = tuple(networks)
    found = await (resolver or look_up)(host, port)
    if not found:
        raise OSError("the name of the host has no address")
    for each in found:
        _vet(ip_address(each), allowed, encrypted=encrypted)
    return list(dict.fromkeys(found))


def is_public(address: Address) -> bool:
    """Whether an address is one that anybody on the internet could call."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _NOT_PUBLIC_4)
    if address not in _GLOBAL_UNICAST_6 or address.scope_id is not None:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC_6)


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system finds them. Raises OSError."""
    address = _quick(host)
    if address is not None:
        return [address]
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, _system_addresses, host, port)


def _system_addresses(host: str, port: int) -> list[str]:
    try:
        return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError("this is not the name of a host") from error


_threads = ThreadPoolExecutor(_RESOLVING_THREADS, thread_name_prefix="look-up")


def _parsed(url: str) -> httpx.URL:
    if len(url) > MAX_URL_LENGTH:
        raise ForbiddenUrl(f"the URL is longer than {MAX_URL_LENGTH} characters; use a shorter one")
    if any(character.isspace() or not character.isprintable() or character == "\\" for character in url):
        raise ForbiddenUrl("the URL holds a space, a backslash or a control character; write it percent-encoded")
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        pass
    # The parser's own message would repeat what it found.
    raise ForbiddenUrl("this is not a URL; write it like https://example.com/hook")


def _literal(host: str) -> Address | None:
    address = _quick(host)
    if address is None and _NUMBER.fullmatch(host.rpartition(".")[2]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to many a resolver.
        raise ForbiddenUrl("write an IPv4 address as four decimal numbers, such as 203.0.113.7")
    return None if address is None else ip_address(address)


def _quick(host: str) -> str | None:
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _vet(address: Address, networks: Sequence[Network], *, encrypted: bool) -> None:
    """Raises `ForbiddenUrl`; which address it was is not said: the name may be one of the operator's own network."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in networks):
        return
    if not is_public(address):
        raise ForbiddenUrl(f"the host is not on the public internet; the operator may allow its network in {VARIABLE}")
    if not encrypted:
        raise ForbiddenUrl("begin the URL with https://; messages tell of your organization")
