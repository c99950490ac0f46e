"""The report of an up: stages, models, endpoint, end. One model, written to ``report.json``.

Pure, except that it reads and writes that file.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lab.files import write_atomic
from lab.image.contents import SbomFile
from lab.image.plan import PinnedImage
from lab.models.lifecycle import ModelNote
from lab.posture import Posture
from lab.report.cost import CostReport
from lab.report.critical_path import StageTime


class Verdict(StrEnum):
    """How a model answered: ``ok``, or the class of its failure."""

    OK = "ok"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BAD_ANSWER = "bad_answer"
    ERROR = "error"


class ModelResult(BaseModel):
    """What validation found about one model. Times in milliseconds, ``None`` where not reached."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    alias: str
    model_id: str
    verdict: Verdict
    error: str | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    streamed: bool = False


class ImageScan(BaseModel):
    """What the image's releases were compared with, and the notes about them.

    ``audited_by`` names the public source that was asked, or says why none was; ``sbom`` is None
    where the wheels of an image that was built elsewhere are not available here.
    """

    model_config = ConfigDict(frozen=True)

    advisories_of: date
    audited_by: str = "nobody yet"
    notes: list[str] = Field(default_factory=list)
    sbom: SbomFile | None = None


class LabReport(BaseModel):
    """What ``lab-up`` reports, also when it failed (then ``error`` names the stage and cause)."""

    lab: str
    target: str
    endpoint: str | None = None
    #: The authority of the gateway's certificate, PEM.
    ca: str | None = None
    image: PinnedImage | None = None
    image_built: bool = False
    base_image: str | None = None
    scan: ImageScan | None = None
    created_at: datetime
    expires_at: datetime
    stages: list[StageTime] = Field(default_factory=list)
    models: list[ModelResult] = Field(default_factory=list)
    model_notes: list[ModelNote] = Field(default_factory=list)
    posture: Posture | None = None
    cost: CostReport | None = None
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the lab is up, every model answered, and every check of its posture passed."""
        return (
            self.error is None
            and (self.posture is None or not self.posture.missed)
            and bool(self.models)
            and all(m.verdict is Verdict.OK for m in self.models)
        )


def write_report(report: LabReport, folder: Path) -> Path:
    """Write ``report.json`` into ``folder``, atomically."""
    path = folder / "report.json"
    write_atomic(path, report.model_dump_json(indent=2) + "\n")
    return path


def read_report(folder: Path) -> LabReport | None:
    """The report in ``folder``, or ``None`` where there is none."""
    path = folder / "report.json"
    return LabReport.model_validate(json.loads(path.read_text())) if path.exists() else None
