"""The record of the last apply: it shows, without Terraform, whether Terraform has anything to do.

An apply that changes nothing takes as long as its provider takes to start and to ask about each
resource. The record is stored next to the state, and counts only while everything that went into
the apply is the same: code, values, the state itself, and the resources that exist. Pure, except
that it reads the module's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Applied(BaseModel):
    """One successful apply. ``state`` is the ETag of the state that it left."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str
    state: str
    outputs: dict[str, Any] = Field(default_factory=dict)
    #: All resources of the lab after the apply, as the sweep names them.
    inventory: list[str] = Field(default_factory=list)

    def still_holds(self, fingerprint: str, state: str | None) -> bool:
        """Whether code and values are the same, and the state is the one that this apply left."""
        return (self.fingerprint, self.state) == (fingerprint, state)


def fingerprint(module: Path, variables: Mapping[str, Any]) -> str:
    """A hash of a root module's files, its providers' lock and its variables.

    ``variables`` must hold no secret: the hash is stored next to the state.
    """
    whole = hashlib.sha256()
    files = sorted((*module.glob("*.tf"), module / ".terraform.lock.hcl"))
    for part in (
        *(piece for path in files for piece in (path.name.encode(), path.read_bytes())),
        json.dumps(variables, sort_keys=True).encode(),
    ):
        # Each part follows its length, so that no two sets of inputs give the same bytes.
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
