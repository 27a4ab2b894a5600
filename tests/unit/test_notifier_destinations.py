"""Which URLs the notifier may call. No name is looked up by the system here."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from notifier.destinations import ForbiddenUrl, Resolver, check_destination, check_url, is_public, look_up, resolve

PRIVATE = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
NOT_PUBLIC = (
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1", "169.254.169.254",  # noqa: S104
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::1", "2001:10::1", "2001:20::1",
    "2001:db8::1", "2002:7f00:1::1", "2002:c0a8:101::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fec0::1", "ff02::1", "fe80::1%1",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700:4700::1111",
    "2a00:1450::1",
)  # fmt: skip


def answering(*addresses: str) -> Resolver:
    """A resolver that finds these."""

    async def found(host: str, port: int) -> Sequence[str]:
        assert host
        assert port
        return addresses

    return found


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_what_is_not_public_is_refused_however_it_is_found(address: str):
    assert not is_public(ip_address(address))
    with pytest.raises(ForbiddenUrl, match="ARAGORA_WEBHOOK_ALLOWED_NETWORKS"):
        await resolve("hooks.example.com", 443, (), resolver=answering(address))
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(ForbiddenUrl):
        check_url(f"https://{shown}/hook", ())


@pytest.mark.parametrize("address", PUBLIC)
async def test_what_is_public_may_be_called(address: str):
    assert await resolve(address, 443, ()) == [address]
    check_url(f"https://[{address}]/" if ":" in address else f"https://{address}/", ())


async def test_one_private_address_among_public_ones_is_one_too_many():
    resolver = answering("1.1.1.1", "10.0.0.1")
    with pytest.raises(ForbiddenUrl):
        await resolve("hooks.example.com", 443, (), resolver=resolver)
    assert await resolve("hooks.example.com", 443, PRIVATE, resolver=resolver) == ["1.1.1.1", "10.0.0.1"]


async def test_allowed_networks_may_be_called_also_without_tls_and_nothing_else_may():
    inside, outside = answering("::ffff:10.0.0.1", "fd00::1"), answering("1.1.1.1")
    await check_destination("http://hooks.internal:8080/", PRIVATE, inside)
    await check_destination("https://hooks.internal/", PRIVATE, inside)
    with pytest.raises(ForbiddenUrl, match="https://"):
        await check_destination("http://hooks.example.com/", PRIVATE, outside)
    await check_destination("https://hooks.example.com/", PRIVATE, outside)


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "//example.com/", "https://", "https:///hook", "ftp://example.com/", "file:///etc/passwd",
        "gopher://example.com/", "javascript:alert(1)", "http://example.com/", "http://1.1.1.1/",
        "https://user:hunter2@example.com/", "https://hunter2@example.com/", "https://@example.com/",
        "https://example.com/#hunter2", "https://example.com/#", "https://example.com:0/", "https://example.com:65536/",
        "https://example.com:http/", "https://example.com:-1/", "https://exa mple.com/", "https://example.com/a b",
        "https://example.com/\r\nHost: evil", "https://example.com/\x00", "https://example.com\\@10.0.0.1/",
        "https://example.com/\u200b", "https://127.0.0.1./", "https://example.com./", "https://2130706433/",
        "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/", "https://127.0.0.0x1/",
        "https://1.1.1.1.1/", "https://999.1.1.1/", "https://[fe80::1%25eth0]/", "https://[::1/", "https://[v1.x]/",
        "https://\uff11\uff12\uff17.0.0.1/", "https://ex%61mple.com/", "https://" + "a" * 2000 + ".com/",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_url_that_may_not_be_called_says_what_to_do_and_repeats_no_secret(url: str):
    with pytest.raises(ForbiddenUrl) as refused:
        check_url(url, ())
    assert len(str(refused.value)) > 20
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com", "https://example.com:8443/hook?token=1", "HTTPS://EXAMPLE.COM/", "https://bücher.example/",
        "https://example.com/%20?q=%00", "https://xn--bcher-kva.example/", "https://a_b.example.com/",
    ],
)  # fmt: skip
def test_other_urls_may(url: str):
    check_url(url, ())


async def test_the_systems_resolver_reads_odd_numbers_and_they_are_judged_by_what_they_mean():
    assert list(await look_up("2130706433", 443)) == ["127.0.0.1"]
    with pytest.raises(ForbiddenUrl):
        await resolve("2130706433", 443, ())


async def test_a_name_without_an_address_is_no_forbidden_one():
    with pytest.raises(OSError, match="no address"):
        await resolve("hooks.example.com", 443, (), resolver=answering())
