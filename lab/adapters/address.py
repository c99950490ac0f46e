"""The deployer's public address, asked of several independent sources that must agree.

A source is not trusted: a captive portal answers HTML, a proxy answers a private address, a lying
one opens the firewall to somebody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from lab.addresses import host_cidr
from lab.errors import InvalidInputError, PermanentError, TransientError

_GIVE = "Give the address yourself: `allowed_addresses` of the lab, or LAB_DEPLOYER_ADDRESS."


def find_address(
    sources: Sequence[str],
    *,
    timeout: float = 5.0,
    log: Callable[[str], None] = lambda _: None,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """The caller's public IPv4 host as ``a.b.c.d/32``.

    At least two sources (or the only one given) must answer with the same public host and none
    with another. Raises TransientError when too few answered, PermanentError when two differ.
    """
    with (
        httpx.Client(timeout=timeout, transport=transport, follow_redirects=False) as client,
        ThreadPoolExecutor(max_workers=max(1, len(sources))) as pool,
    ):
        answers = list(pool.map(lambda url: _ask(client, url, log), sources))
    found = Counter(answer for answer in answers if answer)
    if len(found) > 1:
        told = "; ".join(f"{s} says {a}" for s, a in zip(sources, answers, strict=True) if a)
        raise PermanentError(f"the sources of our public address differ: {told}", _GIVE)
    needed = min(2, len(sources))
    for address, votes in found.items():
        if votes >= needed:
            return address
    raise TransientError(
        f"our public address is not known: {sum(found.values())} of {len(sources)} sources gave "
        f"a usable answer, {needed} are needed",
        _GIVE,
    )


def _ask(client: httpx.Client, url: str, log: Callable[[str], None]) -> str | None:
    try:
        response = client.get(url)
        response.raise_for_status()
        return host_cidr(response.text[:200].strip())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log(f"address source {url}: {error}")
    except InvalidInputError as error:
        log(f"address source {url}: {error.message}")
    return None
