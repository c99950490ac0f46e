"""Secrets are found wherever they are, named by kind, and not confused with texts about them."""

from __future__ import annotations

import json

import pytest

from lab import leaks
from lab.leaks import find_in_pieces, find_secrets
from tests.unit.adapters.gateway.tls import certificate

# In pieces, so that no scanner finds a key in this file.
KEY_ID = "AKIA" + "Q5K7YV2M3TW4XZZR"
SECRET = "k9Zq3" * 8  # pragma: allowlist secret: made up
PEM = certificate().pem
GATEWAY_KEY = "sk-0123456789abcdefghij"  # pragma: allowlist secret: made up


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"key = {KEY_ID}\n", "an AWS access key ID"),
        (f'{{"AccessKeyId": "ASIA{KEY_ID[4:]}"}}', "an AWS access key ID"),
        (f"aws_secret_access_key = {SECRET}", "an AWS secret access key"),
        (f'AWS_SECRET_ACCESS_KEY="{SECRET}"', "an AWS secret access key"),
        (f'{{"SecretAccessKey": "{SECRET}"}}', "an AWS secret access key"),
        (PEM, "a private key"),
        (json.dumps({"secret_string": PEM}), "a private key"),
        (f"Bearer {GATEWAY_KEY}", "the gateway's key"),
    ],
)
def test_a_secret_is_found_and_only_named(text: str, kind: str) -> None:
    """should name its kind, whatever is around it, and not show its value"""
    assert find_secrets(text.encode(), {"the gateway's key": GATEWAY_KEY}) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7" + "EXAMPLE",
        f"aws_secret_access_key = {'k9Zq3' * 6}EXAMPLEKEY",
        "def client(aws_secret_access_key: str | None = None) -> None: ...",
        "-----BEGIN PRIVATE KEY-----",
        'begin = "-----BEGIN RSA PRIVATE KEY-----\\n" + body',
        "-----BEGIN PRIVATE KEY----- and then a great deal of words that are no key at all, really",
        "-----BEGIN CERTIFICATE-----\n" + "A" * 64,
        f"0{KEY_ID}0",
        "",
    ],
)
def test_text_about_secrets_is_no_finding(text: str) -> None:
    """should not take names, markers, AWS's own examples or random text for a key"""
    assert find_secrets(text.encode(), {}) == []


def test_a_secret_near_an_example_is_found() -> None:
    """should not be hidden by the text near it"""
    text = f"AKIAIOSFODNN7{'EXAMPLE'} {KEY_ID}"
    assert find_secrets(text.encode(), {}) == ["an AWS access key ID"]


def test_a_known_value_that_is_too_short_is_not_searched() -> None:
    """should find nothing by chance"""
    assert find_secrets(b"local", {"a key": "local"}) == []


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_a_secret_is_found_across_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """should find a secret that is cut in two by the end of a piece, once"""
    monkeypatch.setattr(leaks, "OVERLAP", 300)
    text = b"x" * 500 + PEM.encode() + b"y" * 500
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    assert find_in_pieces(pieces, {}) == ["a private key"]
