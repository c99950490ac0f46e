"""An up that somebody ends with Ctrl-C, and the next one."""

from __future__ import annotations

import signal
import subprocess
import sys

from lab import names
from lab.settings import ROOT
from tests.observe import scheduled_ends, terraform_applies, wait_until
from tests.stack import Stack

#: Not those of the shared lab: its image has still to be built when it gets its secrets.
MODELS = ["bedrock-titan", "bedrock-cohere"]


def test_an_interrupted_up_is_cancelled_and_can_be_run_again(stack: Stack) -> None:
    """should end Terraform gracefully on Ctrl-C, keep no lock, and converge on the next up."""
    lab = "halfway"
    stack.made.add(lab)
    command = ["demo.py", "--lab", lab, "--ttl", "20m", "--models", ",".join(MODELS)]
    demo = subprocess.Popen(
        # A terminal's command hears Ctrl-C, though the tests themselves may run in the background.
        ["env", "--default-signal=INT", sys.executable, *command],
        cwd=ROOT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: terraform_applies(lab), 120, f"Terraform to work on {lab}", every=0.2)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=90)
    finally:
        demo.kill()
    assert demo.returncode == 130, said
    assert "Cancelled" in said
    wait_until(lambda: not terraform_applies(lab), 60, f"Terraform to leave {lab}")
    keys = [
        o["Key"]
        for o in stack.session()
        .client("s3")
        .list_objects_v2(Bucket=stack.bucket.name, Prefix=names.lab_prefix(lab))
        .get("Contents", [])
    ]
    assert not [key for key in keys if key.endswith(".tflock")]
    assert scheduled_ends(lab), "an interrupted up must still have its end"
    ended = stack.up(lab, models=MODELS)
    assert ended.code == 0, ended.said
    assert stack.down(lab).code == 0
