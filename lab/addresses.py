"""The addresses that a lab's firewall may allow: single public IPv4 hosts only. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from lab.errors import InvalidInputError

#: Reserved for documentation: no host on the Internet has them, so a rule for one of them opens
#: nothing. The local cloud, which has no public address, uses one.
_DOCUMENTATION = tuple(
    ipaddress.IPv4Network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
)
#: How many hosts a lab's firewall may let in.
MAX_HOSTS = 20
_HINT = "Give one public IPv4 host address, such as '8.8.4.4' or '8.8.4.4/32'."


def host_cidr(text: str) -> str:
    """``text`` as ``a.b.c.d/32``.

    Raises InvalidInputError unless it is exactly one public IPv4 host (with or without ``/32``).
    """
    value = text.strip()
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise InvalidInputError(f"address {text!r} is not an IPv4 host: {error}", _HINT) from error
    if not isinstance(network, ipaddress.IPv4Network):
        raise InvalidInputError(f"address {text!r} is IPv6; the firewall takes IPv4 only", _HINT)
    if network.prefixlen != 32:
        raise InvalidInputError(
            f"address {text!r} covers {network.num_addresses} hosts; exactly one (/32) is allowed",
            _HINT,
        )
    host = network.network_address
    if not host.is_global and not any(host in net for net in _DOCUMENTATION):
        raise InvalidInputError(
            f"address {text!r} is not public (private, shared, loopback, link-local or reserved)",
            _HINT,
        )
    if host.is_multicast:
        raise InvalidInputError(f"address {text!r} is a multicast address, not a host", _HINT)
    return str(network)


def check_change(add: Collection[str], remove: Collection[str]) -> None:
    """Raise InvalidInputError if no address is named, or one is in both lists."""
    if not add and not remove:
        raise InvalidInputError(
            "neither add nor remove names an address",
            'Give at least one public IPv4 host, such as add=["8.8.4.4"].',
        )
    both = sorted({*add} & {*remove})
    if both:
        raise InvalidInputError(
            f"{', '.join(both)} is to be added and removed", "Name each address once."
        )


def check_hosts(cidrs: Collection[str]) -> None:
    """Raise InvalidInputError unless a lab's firewall may allow this number of hosts."""
    if not 1 <= len(cidrs) <= MAX_HOSTS:
        raise InvalidInputError(
            f"the firewall would be open to {len(cidrs) or 'no'} hosts: 1 to {MAX_HOSTS} are "
            "allowed",
            "Add or remove other addresses; lab-down destroys the whole lab.",
        )
