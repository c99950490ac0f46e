"""Terraform, through python-terraform: streamed, bounded in time, and ended gracefully.

python-terraform builds the command lines and passes variables; this module runs the process (see
docs/decisions/0001-python-terraform.md). Credentials pass through the environment only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from python_terraform import IsFlagged, Terraform

from adapters.aws.denial import find_denial
from adapters.aws.user_agent import user_agent
from adapters.process import Finished, process_alive, run_child
from lab.durations import now, to_rfc3339
from lab.errors import InterruptedWorkError, LabError, PermanentError, TransientError
from lab.files import write_atomic

MIN_VERSION = (1, 11, 0)
PROVIDER = Path("registry.terraform.io/hashicorp/aws")
#: Where a machine may have providers, in addition to Terraform's own search path.
_MIRROR_ROOTS = ("/opt", "/usr/local/share", "/usr/local/lib", "/usr/share", "/usr/lib", "/var/lib")

_TRANSIENT = re.compile(
    r"throttl|too many requests|requestlimitexceeded|slowdown|service ?unavailable|internalerror|"
    r"internal server error|bad gateway|gateway timeout|timed out|\btimeout\b|"
    r"connection re(set|fused)|unexpected eof|no such host|temporary failure|try again|"
    r"acquiring the state lock|conflictexception|operationaborted|dependencyviolation",
    re.IGNORECASE,
)


#: Seconds to wait for the state's lock, per attempt; in between a dead run's lock is broken.
_LOCK_PATIENCE = (10, 60, 60)


#: Warnings of each apply with targets, which is intended here.
_OF_TARGETS = {"Resource targeting is in effect", "Applied changes may be incomplete"}


class TerraformError(LabError):
    """Terraform failed; the message is its own diagnostics."""


class TransientTerraformError(TransientError, TerraformError):
    """Terraform failed on something that passes, such as throttling or a held lock."""


class PermanentTerraformError(PermanentError, TerraformError):
    """Terraform failed on something that will fail again."""


def terraform_version() -> tuple[int, int, int]:
    """The version of the Terraform on PATH; PermanentError if missing or older than needed."""
    hint = f"Install Terraform {'.'.join(map(str, MIN_VERSION))} or newer and put it on PATH."
    if shutil.which("terraform") is None:
        raise PermanentError("Terraform is not on PATH", hint)
    done = run_child(["terraform", "version", "-json"], deadline=60, env=_clean_environment({}))
    try:
        text = str(json.loads(done.stdout)["terraform_version"])
        version = tuple(int(n) for n in text.split("-")[0].split("."))
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(f"Terraform reported no version: {done.stderr}", hint) from error
    if len(version) != 3 or version < MIN_VERSION:
        raise PermanentError(f"Terraform {text} is too old", hint)
    return version


def cli_environment(home: Path) -> dict[str, str]:
    """The environment that makes Terraform quiet, unattended, and able to find its provider.

    Writes ``home/terraform/cli.tfrc``: it names the provider's directory if the machine has it in
    one that Terraform does not search by itself. Otherwise Terraform's registry serves.
    """
    environment = {
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "CHECKPOINT_DISABLE": "1",
        # Terraform and its provider live for seconds, and spent a fifth of them on garbage.
        "GOGC": "400",
    }
    configuration = home.resolve() / "terraform" / "cli.tfrc"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    mirror = _find_mirror()
    text = "disable_checkpoint = true\n"
    if mirror:
        text += (
            "provider_installation {\n"
            f'  filesystem_mirror {{\n    path    = "{mirror}"\n'
            '    include = ["hashicorp/aws"]\n  }\n'
            '  direct {\n    exclude = ["hashicorp/aws"]\n  }\n}\n'
        )
    write_atomic(configuration, text)
    environment["TF_CLI_CONFIG_FILE"] = str(configuration)
    return environment


@dataclass(frozen=True)
class StateLock:
    """A held lock as Terraform reports it. ``who`` is ``user@host``."""

    id: str
    operation: str
    who: str
    created: datetime

    def __str__(self) -> str:
        return f"{self.operation} by {self.who} at {to_rfc3339(self.created)}"

    def is_abandoned(self, data: Path, deadline: timedelta) -> bool:
        """Whether nobody can still hold it.

        True if it was taken on this machine and no Terraform works here on the state of ``data``;
        true for another machine if it is twice as old as ``deadline``, the longest life of a
        Terraform.
        """
        if self.who.rpartition("@")[2] == socket.gethostname():
            return not _terraform_works(data)
        return now() - self.created > 2 * deadline


def parse_state_lock(said: str) -> StateLock | None:
    """The lock that Terraform's message ``said`` names; ``None`` if it is about no lock."""
    if "acquiring the state lock" not in said:
        return None
    found = dict(re.findall(r"^\s*(ID|Operation|Who|Created):\s+(.+?)\s*$", said, re.MULTILINE))
    try:
        created = datetime.strptime(found["Created"][:19], "%Y-%m-%d %H:%M:%S")
        return StateLock(
            id=found["ID"],
            operation=found["Operation"].removeprefix("OperationType").lower(),
            who=found["Who"],
            created=created.replace(tzinfo=UTC),
        )
    except (KeyError, ValueError):
        return None


def _terraform_works(data: Path) -> bool:
    """Whether a Terraform on this machine may work on the state of ``data``.

    This includes one that a person has started, or whose environment cannot be read.
    """
    proc = Path("/proc")
    if not proc.is_dir():
        return True
    for process in proc.glob("[0-9]*"):
        try:
            if (process / "comm").read_text(encoding="utf-8").strip() != "terraform":
                continue
            environment = (process / "environ").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        except OSError:
            return process_alive(int(process.name))
        theirs = [e.partition(b"=")[2] for e in environment if e.startswith(b"TF_DATA_DIR=")]
        if theirs in ([], [os.fsencode(data.resolve())]) and process_alive(int(process.name)):
            return True
    return False


class TerraformRoot(Terraform):  # type: ignore[misc]
    """One root module with one state: ``up``, ``down`` and ``outputs`` of it.

    Calls for different states may run at once; calls for one state wait for its lock.
    """

    def __init__(
        self,
        module: Path,
        data: Path,
        backend: Mapping[str, str],
        *,
        home: Path,
        environment: Mapping[str, str],
        deadline: timedelta,
        log: Callable[[str], None],
    ) -> None:
        """``data`` keeps Terraform's working files; ``environment`` holds cloud and credentials."""
        super().__init__(working_dir=str(module))
        self.module = module
        self._data, self._backend = data, dict(backend)
        self._environment = _clean_environment(
            {
                **cli_environment(home),
                **environment,
                "TF_DATA_DIR": str(data.resolve()),
                "TF_APPEND_USER_AGENT": user_agent(),
            }
        )
        self._deadline, self._log = deadline, log
        self._diagnostics: list[str] = []
        self._outputs: dict[str, Any] = {}
        self._secrets: dict[str, str] = {}
        self._hearing = threading.Lock()

    def up(
        self,
        variables: Mapping[str, Any],
        only: Sequence[str] = (),
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make the cloud equal to the module with ``variables``; return the outputs' values.

        ``only`` names resources: then only these and their dependencies change. ``secrets`` are
        variables too, and reach Terraform through its environment: no file and no argument holds
        them. May be called again, also after an interruption. Raises TerraformError.
        """
        self._prepare()
        self._outputs = {}
        self._secrets = {f"TF_VAR_{name}": value for name, value in (secrets or {}).items()}
        try:
            self._change("apply", variables, only)
        finally:
            self._secrets = {}
        return dict(self._outputs)

    def down(self, variables: Mapping[str, Any]) -> None:
        """Destroy everything in the state. An empty state is success. Raises TerraformError.

        The first try trusts the state: reading every resource again takes a third of the time. If
        that fails because others changed something, a second try reads every resource first.
        """
        self._prepare()
        try:
            self._change("destroy", variables, refresh=False)
        except TerraformError as error:
            if find_denial(error.message) or parse_state_lock(error.message):
                raise
            self._log("the state may differ from the cloud: reading every resource")
            self._change("destroy", variables)

    def _change(
        self,
        verb: str,
        variables: Mapping[str, Any],
        only: Sequence[str] = (),
        *,
        refresh: bool = True,
    ) -> None:
        """Apply or destroy once the state's lock is free; the lock of a dead run is broken."""
        for number, patience in enumerate(_LOCK_PATIENCE, 1):
            try:
                self.cmd(
                    verb,
                    var=dict(variables),
                    target=list(only),
                    refresh=refresh,
                    auto_approve=IsFlagged,
                    lock_timeout=f"{patience}s",
                    json=IsFlagged,
                )
                return
            except TransientTerraformError as error:
                lock = parse_state_lock(error.message)
                if lock is None or number == len(_LOCK_PATIENCE):
                    raise
                if lock.is_abandoned(self._data, self._deadline):
                    self._log(f"breaking the state's lock: {lock} left it behind")
                    self._run(["terraform", "force-unlock", "-force", lock.id], "force-unlock")

    def _prepare(self) -> None:
        """Initialise once per module, lock file and backend: each init hashes the provider."""
        identity = hashlib.sha256(
            json.dumps([str(self.module.resolve()), sorted(self._backend.items())]).encode()
            + (self.module / ".terraform.lock.hcl").read_bytes()
        ).hexdigest()
        stamp = self._data / "gateway-lab.initialised"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == identity:
            return
        self._data.mkdir(parents=True, exist_ok=True)
        self.cmd(
            "init",
            backend_config=self._backend,
            reconfigure=IsFlagged,
            lockfile="readonly",
            json=IsFlagged,
        )
        write_atomic(stamp, identity)

    def cmd(self, cmd: str, *args: str, **options: Any) -> tuple[int, str, str]:
        """Run ``terraform cmd``: lines to the log as they come, TerraformError on failure."""
        try:
            return self._run(self.generate_cmd_string(cmd, *args, input=False, **options), cmd)
        finally:
            self.temp_var_files.clean_up()

    def _run(self, argv: list[str], cmd: str) -> tuple[int, str, str]:
        self._diagnostics = []
        done = run_child(
            argv,
            cwd=self.module,
            env={**self._environment, **self._secrets},
            deadline=self._deadline.total_seconds(),
            on_stdout=self._hear,
            on_stderr=lambda line: self._log(f"terraform: {line}") if line.strip() else None,
        )
        if done.code != 0:
            raise self._error(cmd, done)
        return done.code, done.stdout, done.stderr

    def _hear(self, line: str) -> None:
        for message in _messages(line):
            kind = message.get("type")
            with self._hearing:
                if kind == "diagnostic":
                    found = message["diagnostic"]
                    if found["summary"] in _OF_TARGETS:
                        continue
                    text = ": ".join(t for t in (found["summary"], found.get("detail")) if t)
                    where = found.get("address")
                    text = f"{where}: {text}" if where else text
                    if found["severity"] == "error":
                        self._diagnostics.append(text)
                    self._log(f"terraform {found['severity']}: {text}")
                    continue
                if kind == "outputs":
                    self._outputs = {
                        name: output.get("value") for name, output in message["outputs"].items()
                    }
                    continue
            if kind in {"apply_start", "apply_complete", "apply_errored", "change_summary"}:
                self._log(f"terraform: {message['@message']}")

    def _error(self, cmd: str, done: Finished) -> LabError:
        said = "\n".join(self._diagnostics) or done.stderr.strip() or done.stdout.strip()[-2000:]
        message = f"terraform {cmd} failed: {said}"
        if "execution halted" in said.lower() or "interrupt" in said.lower():
            return InterruptedWorkError(message)
        denial = find_denial(said)
        if denial:
            return PermanentTerraformError(
                f"terraform {cmd} failed: {denial} is not allowed: {said}", denial.hint
            )
        if _TRANSIENT.search(said):
            return TransientTerraformError(
                message, "It may pass: run the command again; it goes on from what exists."
            )
        return PermanentTerraformError(message, "Remove the cause and run the command again.")


def _messages(line: str) -> Iterator[dict[str, Any]]:
    try:
        message = json.loads(line)
    except ValueError:
        return
    if isinstance(message, dict):
        yield message


def _clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without variables that would change Terraform's behaviour, plus ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_", "PREFECT_", "LAB_"))
    }
    return {**kept, "CHECKPOINT_DISABLE": "1", **extra}


def _find_mirror() -> Path | None:
    """A directory that holds the provider as ``registry.terraform.io/hashicorp/aws``, if any."""
    for root in _MIRROR_ROOTS:
        for pattern in ("", "*/", "*/*/"):
            for found in sorted(Path(root).glob(f"{pattern}{PROVIDER}")):
                return found.parents[2]
    return None
