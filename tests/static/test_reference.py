"""``docs/reference.md`` says what the code says, and every stage says what it may not do."""

from __future__ import annotations

import re

from deployments.reference import REFERENCE, reference, stage_docs
from lab.report.critical_path import AFTER, SPENT_ON
from lab.settings import ROOT, Settings
from tasks.outcome import STAGES


def stages_by_module() -> set[tuple[str, str]]:
    """Each stage's name with the module that makes tasks of it, or times a part of it."""
    found = set()
    for path in (ROOT / "tasks").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= {(name, path.stem) for name in re.findall(r'(?:@stage|timed)\("([^"]+)"', text)}
    return found


def test_the_reference_matches_the_code() -> None:
    """should be what `make reference` writes"""
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run `make reference`"


def test_every_stage_says_what_it_may_not_do() -> None:
    """should list each existing stage with its module, and no other"""
    described = {(name, module) for name, (module, *_) in stage_docs().items()}
    made = stages_by_module()
    assert described <= made
    assert {name for name, _ in described} == {name for name, _ in made}
    assert {*STAGES, *AFTER, *SPENT_ON} <= {name for name, _ in described}


def test_every_setting_says_what_it_means() -> None:
    """should have a description for the reference"""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_parameter_says_what_it_means() -> None:
    """should have no empty cell: the form in the UI shows the same texts"""
    text = REFERENCE.read_text(encoding="utf-8")
    section = text.partition("## Parameters")[2].partition("## Settings")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if "|  |" in row] == []
