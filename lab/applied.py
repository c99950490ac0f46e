"""What Terraform was last applied with: whether it has anything to do can then be told without it.

An apply that changes nothing takes as long as its provider takes to start and to ask about each
resource. The record of an apply lies beside the state, and counts only while everything that went
into it is the same: code, values, the state itself, and what of the lab exists. Pure but for the
module's files, which it reads.
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
    #: Everything of the lab that there was afterwards, as the sweep names it.
    inventory: list[str] = Field(default_factory=list)

    def still_holds(self, fingerprint: str, state: str | None) -> bool:
        """Whether the same code and values meet the state that this apply left."""
        return (self.fingerprint, self.state) == (fingerprint, state)


def fingerprint(module: Path, variables: Mapping[str, Any]) -> str:
    """A hash of a root module's files, its providers' lock and its variables.

    No secret is to be among ``variables``: the hash is written beside the state.
    """
    whole = hashlib.sha256()
    files = sorted((*module.glob("*.tf"), module / ".terraform.lock.hcl"))
    for part in (
        *(piece for path in files for piece in (path.name.encode(), path.read_bytes())),
        json.dumps(variables, sort_keys=True).encode(),
    ):
        # Lengths in front: no two sets of inputs run together into the same bytes.
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
