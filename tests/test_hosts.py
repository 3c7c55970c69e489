"""Which hosts and addresses the setting `allow_net` permits."""

from __future__ import annotations

import pytest

from wsthreads.config import Config
from wsthreads.errors import ConfigError
from wsthreads.hosts import AllowedHosts

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
]
LOCAL = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%lo",
    "ff02::1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "fec0::1",
    "4000::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_named_host_may_have_each_address_of_the_internet(address: str) -> None:
    for entry in ("shop.test", "shop.test:443", "*.test"):
        assert AllowedHosts([entry]).refusal("shop.test", 443, address) is None


@pytest.mark.parametrize("address", LOCAL)
def test_private_addresses_are_for_hosts_with_a_port(address: str) -> None:
    for entry in ("shop.test", "*.test", "*.test:443", "shop.test:80"):
        refusal = AllowedHosts([entry]).refusal("shop.test", 443, address)
        assert refusal is not None
        assert "--allow-net shop.test:443" in refusal
    assert AllowedHosts(["shop.test:443"]).refusal("shop.test", 443, address) is None


@pytest.mark.parametrize("address", SPECIAL)
def test_all_other_addresses_are_for_nobody_but_who_names_them(address: str) -> None:
    for entry in ("shop.test", "*.test", "shop.test:443"):
        assert "not an address of the internet" in (AllowedHosts([entry]).refusal("shop.test", 443, address) or "")


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 1),
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("[::1]:8000", "::1", 8000),
        ("::1", "::1", 5),
        ("[::1]", "::1", 5),
        ("169.254.169.254", "169.254.169.254", 80),
        ("0.0.0.0", "0.0.0.0", 80),
        ("[::ffff:127.0.0.1]", "127.0.0.1", 80),
        ("127.0.0.1", "::ffff:7f00:1", 80),
        ("[0:0::1]", "::1", 80),
    ],
)
def test_an_address_that_is_named_may_be_reached(entry: str, host: str, port: int) -> None:
    allowed = AllowedHosts([entry])
    assert allowed.names(host, port)
    assert allowed.refusal(host, port, host) is None
    assert allowed.refusal(host, port, "10.0.0.1") is not None


def test_an_entry_for_an_address_permits_it_under_no_other_name() -> None:
    allowed = AllowedHosts(["127.0.0.1", "shop.test"])
    assert allowed.refusal("shop.test", 80, "127.0.0.1") is not None


@pytest.mark.parametrize(
    ("entry", "names", "does_not"),
    [
        (
            "Shop.Test",
            [("shop.test", 80), ("shop.test.", 443), ("shop.test", 9)],
            [("a.shop.test", 80), ("xshop.test", 80)],
        ),
        ("shop.test:81", [("shop.test", 81)], [("shop.test", 80)]),
        (
            "*.shop.test",
            [("a.shop.test", 80), ("a.b.shop.test", 1)],
            [("shop.test", 80), ("ashop.test", 80), ("shop.test.x", 80)],
        ),
        ("*.shop.test:81", [("a.shop.test", 81)], [("a.shop.test", 82)]),
        ("127.0.0.1", [("127.0.0.1", 80)], [("127.1", 80), ("2130706433", 80), ("0x7f.1", 80), ("localhost", 80)]),
    ],
)
def test_entries_name_hosts(entry: str, names: list[tuple[str, int]], does_not: list[tuple[str, int]]) -> None:
    allowed = AllowedHosts([entry])
    assert all(allowed.names(*each) for each in names)
    assert not any(allowed.names(*each) for each in does_not)


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*.",
        "https://shop.test",
        "shop.test/",
        "shop.test:0",
        "shop.test:65536",
        "shop.test:x",
        "a..b",
        "127.1",
        "0x7f.1",
        "2130706433",
        "*.127.0.0.1",
        "[::1",
        "[shop]",
        "sh*p.test",
        "me@shop.test",
        "bücher.test",
        ".test",
        "::g",
    ],
)
def test_what_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="allow_net takes a host"):
        Config(allow_net=[entry])


def test_none_is_allowed_by_default() -> None:
    assert Config().allow_net == ()
    assert not AllowedHosts(()).names("127.0.0.1", 80)
