"""Only single public IPv4 hosts may be in the firewall."""

from __future__ import annotations

import pytest

from lab.addresses import check_change, check_hosts, host_cidr
from lab.errors import InvalidInputError


@pytest.mark.parametrize("text", ["8.8.4.4", "8.8.4.4/32", " 8.8.4.4\n"])
def test_one_host_is_a_slash_32(text: str) -> None:
    """should spell a host in the form that the firewall needs"""
    assert host_cidr(text) == "8.8.4.4/32"


@pytest.mark.parametrize("text", ["192.0.2.1", "198.51.100.7", "203.0.113.10"])
def test_documentation_addresses_are_accepted(text: str) -> None:
    """should accept the placeholder addresses that the local cloud uses"""
    assert host_cidr(text) == f"{text}/32"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0/0", "4294967296 hosts"),
        ("8.8.4.0/24", "256 hosts"),
        ("203.0.113.0/24", "256 hosts"),
        ("10.1.2.3", "not public"),
        ("172.31.255.255", "not public"),
        ("192.168.0.1/32", "not public"),
        ("100.64.0.1", "not public"),
        ("127.0.0.1", "not public"),
        ("169.254.169.254", "not public"),
        ("240.0.0.1", "not public"),
        ("255.255.255.255", "not public"),
        ("239.1.1.1", ""),
        ("224.0.0.251", "multicast"),
        ("::1", "IPv6"),
        ("2606:4700::1111/128", "IPv6"),
        ("::ffff:8.8.4.4", "IPv6"),
        ("8.8.4.4/33", "not an IPv4 host"),
        ("8.8.4.4/255.255.255.0", "not an IPv4 host"),
        ("134744072", "not an IPv4 host"),
        ("<html>", "not an IPv4 host"),
    ],
)
def test_refuses_networks_and_private_addresses(text: str, why: str) -> None:
    """should name the address, say why, and show an allowed one"""
    with pytest.raises(InvalidInputError) as caught:
        host_cidr(text)
    assert repr(text) in caught.value.message
    assert why in caught.value.message
    assert "8.8.4.4/32" in caught.value.hint


@pytest.mark.parametrize(
    ("add", "remove", "why"),
    [
        ([], [], "neither add nor remove names an address"),
        (["8.8.4.4/32", "1.1.1.1/32"], ["8.8.4.4/32"], "8.8.4.4/32 is to be added and removed"),
    ],
)
def test_refuses_a_change_of_nothing(add: list[str], remove: list[str], why: str) -> None:
    """should say so before it asks or changes anything"""
    with pytest.raises(InvalidInputError) as caught:
        check_change(add, remove)
    assert why in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("count", "message"), [(0, "open to no hosts"), (21, "open to 21 hosts: 1 to 20")]
)
def test_a_firewall_has_one_to_twenty_hosts(count: int, message: str) -> None:
    """should refuse none, which shuts everybody out, and more than Terraform accepts"""
    hosts = [f"8.8.4.{n}/32" for n in range(21)]
    check_hosts(hosts[:1])
    check_hosts(hosts[:20])
    with pytest.raises(InvalidInputError) as caught:
        check_hosts(hosts[:count])
    assert message in caught.value.message
