"""Finds static secrets in bytes: AWS keys, private keys, and known values. Pure.

It names the kind of each secret that it finds, and never shows the value. Code that only mentions
keys is no finding: a name, a marker or AWS's own example is not a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Longer than any key that is searched for, so that the end of a piece cuts none in two.
OVERLAP = 1024
#: AWS's documentation marks its made-up keys with this word.
_EXAMPLE = b"EXAMPLE"
#: How far from its mark a secret may begin and end.
_AROUND = 256
#: Shorter values than this would be found by chance.
_SHORTEST = 12


@dataclass(frozen=True)
class _Kind:
    """A kind of secret: the marks that hint at one, and the form of one."""

    name: str
    marks: tuple[bytes, ...]
    form: re.Pattern[bytes]


_KINDS = (
    _Kind(
        "an AWS access key ID",
        (b"AKIA", b"ASIA"),
        re.compile(rb"(?<![A-Za-z0-9/+])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9/+=])"),
    ),
    _Kind(
        "an AWS secret access key",
        (b"ecret_access_key", b"ECRET_ACCESS_KEY", b"ecretAccessKey"),
        re.compile(
            rb"secret_?access_?key[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
            re.IGNORECASE,
        ),
    ),
    _Kind(
        "a private key",
        (b"PRIVATE KEY-----",),
        # In JSON the line ends are escaped.
        re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:\s|\\[nr])*[A-Za-z0-9+/]{40}"),
    ),
)


def find_secrets(text: bytes, known: Mapping[str, str]) -> list[str]:
    """The kinds of secrets in ``text``, each once; ``known`` has further values by name."""
    found = [kind.name for kind in _KINDS if _holds(text, kind)]
    for name, value in known.items():
        if len(value) >= _SHORTEST and value.encode() in text:
            found.append(name)
    return found


def find_in_pieces(pieces: Iterable[bytes], known: Mapping[str, str]) -> list[str]:
    """Like :func:`find_secrets`, for a text that comes in pieces and need not fit into memory."""
    found: dict[str, None] = {}
    for text in _overlapping(pieces):
        found.update(dict.fromkeys(find_secrets(text, known)))
    return list(found)


def _holds(text: bytes, kind: _Kind) -> bool:
    # A search for a mark is many times faster than one for a form, and most texts have no mark.
    return any(
        _EXAMPLE not in match[0]
        for mark in kind.marks
        for at in _places(text, mark)
        for match in kind.form.finditer(text, max(0, at - _AROUND), at + _AROUND)
    )


def _places(text: bytes, mark: bytes) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + 1)


def _overlapping(pieces: Iterable[bytes]) -> Iterator[bytes]:
    tail = b""
    for piece in pieces:
        text = tail + piece
        yield text
        tail = text[-OVERLAP:]
