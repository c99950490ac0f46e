"""``docs/security.md`` names a test for each claim, and each of these tests exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from lab.settings import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
#: The tables that name tests for claims, by the first word of their header.
HEADERS = ("Who", "What is wrong")
REFERENCE = re.compile(r"`([\w/.-]+)::(\w+)`")


def rows(header: str) -> list[list[str]]:
    """The cells of each row of the table whose first column is called ``header``."""
    lines = TEXT.splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith(f"| {header} |")]
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table


@cache
def named_in(path: str) -> frozenset[str]:
    """The names of the tests in a file, of Python's or of Terraform's."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".tftest.hcl"):
        return frozenset(re.findall(r'^run "(\w+)"', text, re.MULTILINE))
    return frozenset(
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("header", HEADERS)
def test_each_claim_names_tests_that_exist(header: str) -> None:
    """should have a test in the last cell of each row, and in no other cell"""
    table = rows(header)
    assert len(table) >= 8
    for row in table:
        assert len(row) == len(table[0]), f"a row of another width: {row[0]}"
        shown = row[-1].split("<br/>")
        for reference in shown:
            match = REFERENCE.fullmatch(reference)
            assert match, f"{row[0]}: {reference!r} names no test"
            path, name = match.groups()
            assert (ROOT / path).is_file(), f"{row[0]}: {path} is not there"
            assert name in named_in(path), f"{row[0]}: {path} has no {name}"


def test_no_other_reference_is_stale() -> None:
    """should also be true of the text around the tables"""
    for path, name in REFERENCE.findall(TEXT):
        assert name in named_in(path)
    for path in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).is_file()


def test_every_test_of_the_canary_is_named() -> None:
    """should claim what is tested: a test of secrets that no row names was forgotten"""
    path = "tests/localcloud/test_secrets.py"
    assert named_in(path) == {name for found, name in REFERENCE.findall(TEXT) if found == path}
