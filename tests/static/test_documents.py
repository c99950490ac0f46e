"""Links in documents are valid, and what the documents calculate is what the code calculates."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lab.settings import ROOT
from tests.static.scans import project_files

DOCUMENTS = project_files("*.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def prose(document: Path) -> str:
    """The document without its code."""
    return FENCED.sub("", document.read_text(encoding="utf-8"))


@cache
def anchors(document: Path) -> frozenset[str]:
    """What can follow the ``#``, as GitHub makes it from headings."""
    found: dict[str, int] = {}
    made = set()
    for heading in HEADING.findall(prose(document)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        made.add(f"{slug}-{count}" if count else slug)
    return frozenset(made)


def links(document: Path) -> list[str]:
    """The targets of the document's links within the project."""
    return [link for link in LINK.findall(prose(document)) if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_are_valid(name: str) -> None:
    """should name files and folders that exist, and headings in them"""
    document = ROOT / name
    wrong = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.is_relative_to(ROOT) or not target.exists():
            wrong.append(f"{link}: not there")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading")
    assert wrong == []


def test_the_readme_is_short() -> None:
    """should leave details to the documents that it links to"""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1500


def test_a_course_costs_what_the_page_says() -> None:
    """should show what its program prints from the price table"""
    page = (ROOT / "docs" / "teach.md").read_text(encoding="utf-8")
    (found,) = re.finditer(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    program, shown = found.groups()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == shown
