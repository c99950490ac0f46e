"""The shared lab after its birth, a rotation of its key and a watch, and its secrets to search for.

For the tests that show where they are not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lab import names
from tests.canary import Canary, Process, Watch, private_key, text_secret
from tests.shared_lab import LAB, SharedLab
from workstation.targets import state_home

KEY, KEY_BEFORE, PEM = "the key", "the key before", "the private key"
#: What the local cloud's Secrets Manager keeps: the one place allowed on this machine's disk.
SECRETS = state_home() / "localcloud" / "services" / "secretsmanager.json"
#: The same file while it is being written.
ALLOWED = (SECRETS, SECRETS.with_name(f"{SECRETS.name}.tmp"))


@dataclass
class Lived:
    """The lab, and what was seen of it meanwhile."""

    lab: SharedLab
    canary: Canary
    processes: list[Process]
    #: Terraform's files of variables, by name.
    variables: dict[str, bytes]
    #: What each command said in the terminal. Not for a failing test to show.
    said: dict[str, str] = field(repr=False)
    #: Before the lab had any secret, in seconds of the epoch.
    began: float

    @property
    def since(self) -> str:
        return datetime.fromtimestamp(self.began, UTC).isoformat()

    def env(self) -> tuple[int, str]:
        """Exit code and words of ``make env``, apart: a failing test shows what it compares."""
        argv = [sys.executable, "-m", "workstation", "env", "--lab", LAB]
        ended = self.lab.stack.command(argv)
        return ended.code, ended.said


def live_and_watch(lab: SharedLab) -> Lived:
    """Let the lab come up, get another key and be watched; all of it seen."""
    if lab.birth is None and lab.models:
        # It came up while nobody looked.
        assert lab.down().code == 0
    if not lab.models:
        lab.ensure_up()
    assert lab.birth is not None
    rotation = lab.rotation()
    with Watch() as watch:
        watched = lab.stack.guard("lab-watch/local")
    listed = lab.stack.command([sys.executable, "-m", "workstation", "labs"])
    secrets, key = lab.stack.secrets, names.key_secret(LAB)
    before, pem = secrets.read(key, "AWSPREVIOUS"), secrets.read(names.tls_secret(LAB))
    assert before
    assert pem
    watches = [lab.birth.watch, rotation.watch, watch]
    return Lived(
        lab=lab,
        canary=Canary(
            [
                text_secret(KEY, secrets.require(key)),
                text_secret(KEY_BEFORE, before),
                private_key(PEM, pem),
            ]
        ),
        processes=[process for one in watches for process in one.processes],
        variables={name: content for one in watches for name, content in one.files.items()},
        said={
            "demo.py": lab.birth.said,
            "lab-rotate-key": rotation.said,
            "lab-watch": watched,
            "make labs": listed.said,
        },
        began=lab.birth.began,
    )
