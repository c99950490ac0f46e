"""The deployer's public address, from several independent sources that must agree.

A source is not trusted: a captive portal answers HTML, a proxy answers a private address, a false
answer opens the firewall to somebody else, a broken source answers without end.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from lab.addresses import host_cidr
from lab.errors import InvalidInputError, PermanentError, TransientError

_GIVE = "Give the address yourself: `allowed_addresses` of the lab, or LAB_DEPLOYER_ADDRESS."
_ASK_IPV4 = (
    "Name sources that answer over IPv4 only in LAB_ADDRESS_SOURCES, or give the address yourself: "
    "`allowed_addresses` of the lab, or LAB_DEPLOYER_ADDRESS."
)
#: No address is as long, even with a prefix and white space around it.
_LONGEST = 64


@dataclass(frozen=True)
class _Answer:
    """The answer of one source: an address, or why there is none."""

    address: str | None = None
    why_not: str = ""
    ipv6: bool = False


def find_address(
    sources: Sequence[str],
    *,
    timeout: float = 5.0,
    log: Callable[[str], None] = lambda _: None,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """The caller's public IPv4 host as ``a.b.c.d/32``.

    At least two sources (or the only one given) must answer with the same public host, and none
    with another. ``timeout`` (seconds) bounds each wait for a source, and its whole answer. Raises
    TransientError when too few answered, PermanentError when two differ or see us over IPv6.
    """
    with (
        httpx.Client(timeout=timeout, transport=transport, follow_redirects=False) as client,
        ThreadPoolExecutor(max_workers=max(1, len(sources))) as pool,
    ):
        answers = list(pool.map(lambda url: _ask(client, url, timeout), sources))
    for source, answer in zip(sources, answers, strict=True):
        if answer.why_not:
            log(f"address source {source}: {answer.why_not}")
    found = Counter(answer.address for answer in answers if answer.address)
    if len(found) > 1:
        differing = "; ".join(
            f"{s} says {a.address}" for s, a in zip(sources, answers, strict=True) if a.address
        )
        raise PermanentError(f"the sources of our public address differ: {differing}", _GIVE)
    needed = min(2, len(sources))
    for address, votes in found.items():
        if votes >= needed:
            return address
    over_ipv6 = sum(answer.ipv6 for answer in answers)
    if found.total() + over_ipv6 >= max(1, needed):
        raise PermanentError(
            f"our public IPv4 address is not known: {over_ipv6} of {len(sources)} sources see us "
            "over IPv6, and the firewall takes IPv4 only",
            _ASK_IPV4,
        )
    raise TransientError(
        f"our public address is not known: {found.total()} of {len(sources)} sources gave "
        f"a usable answer, {needed} are needed",
        _GIVE,
    )


def _ask(client: httpx.Client, url: str, timeout: float) -> _Answer:
    text = ""
    try:
        text = _read(client, url, timeout)
        return _Answer(host_cidr(text))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _Answer(why_not=str(error))
    except UnicodeDecodeError:
        return _Answer(why_not="the answer is not text")
    except InvalidInputError as error:
        return _Answer(why_not=error.message, ipv6=_is_ipv6(text))


def _read(client: httpx.Client, url: str, timeout: float) -> str:
    """The answer as text; InvalidInputError as soon as it is too long to be an address."""
    began = time.monotonic()
    body = b""
    with client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _LONGEST:
                raise InvalidInputError(f"answered {body[:20]!r}… and more than an address is long")
            if time.monotonic() - began > timeout:
                raise httpx.ReadTimeout(f"no whole answer within {timeout:g} seconds")
    return body.decode("ascii").strip()


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_interface(text).version == 6
    except ValueError:
        return False
