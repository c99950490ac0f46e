"""A new key: made once, rolled out, tried; and never shown, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.certificate import Trust
from lab.endpoint import Endpoint
from lab.errors import LabError, PermanentError, TransientError
from lab.record import LabRecord
from tasks import provision, rotate
from tasks.provision import Provisioned
from tests.unit.tasks.sites import FakeSite, MemoryBucket

MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TRUST = Trust(ca="CA", version=1, not_after=MADE + 99 * MINUTE)
WHERE = Endpoint.of("demo", "1.2.3.4", "CA")
RECORD = LabRecord(
    lab="demo",
    created_at=MADE,
    expires_at=MADE + 60 * MINUTE,
    cidrs=["8.8.4.4/32"],
    key_version=2,
    trust=TRUST,
)
OLD, NEW = "sk-the-old-key-0815", "sk-the-new-key-4711"
SERVES = "arn:aws:ecs:us-east-1:1:task-definition/gateway-lab-demo:7"


class Lab(MemoryBucket):
    """A lab with a task, a secret, and a Terraform that writes keys as the real one does."""

    def __init__(self, *records: LabRecord) -> None:
        super().__init__(*records)
        self.task_began: datetime | None = MADE
        self.written = MADE - MINUTE
        self.version = 2
        self.applied: list[tuple[int, list[str]]] = []
        self.before_state: Callable[[], None] = lambda: None
        self.before: str | None = OLD
        self.said: list[str] = []
        self.secret_is_gone = False
        self.site = FakeSite(bucket=self, secrets=Manager(self), service=self)

    def describe(self) -> dict[str, str] | None:
        return {"taskDefinition": SERVES} if self.task_began else None

    def running_task(self) -> object | None:
        return self.task_began

    def serves_from_before(self, moment: datetime) -> bool:
        return self.task_began is not None and self.task_began < moment

    def up(self, variables: dict[str, Any], only: list[str]) -> dict[str, Any]:
        version = variables["key_version"]
        self.applied.append((version, only))
        if version != self.version:
            self.written += 10 * MINUTE
            self.before_state()
            self.version = version
        return {}


class Manager:
    """Secrets Manager, with the key of ``lab`` and the previous one."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def require(self, secret: str) -> str:
        assert secret == "gateway-lab-demo/gateway-key"  # pragma: allowlist secret: made up
        if self._lab.secret_is_gone:
            raise PermanentError("the secret is gone", "Bring it up again with lab-up.")
        return NEW

    def read(self, _: str, version: str) -> str | None:
        assert version == "AWSPREVIOUS"
        return self._lab.before

    def written_at(self, secret: str) -> datetime:
        assert secret == "gateway-lab-demo/gateway-key"
        return self._lab.written


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Lab:
    made = Lab(RECORD)
    made.said = logged
    monkeypatch.setattr(provision, "lab_root", lambda *_: made)
    return made


def make(lab: Lab) -> Provisioned:
    return rotate.make_new_key.fn("demo", lab.site)


def test_a_raised_version_makes_a_key(lab: Lab) -> None:
    """should apply only the secret's value, and keep the number for every later apply"""
    made = make(lab)
    assert lab.applied == [(3, ["aws_secretsmanager_secret_version.this"])]
    assert lab.record("demo") == RECORD.with_new_key()
    # The serving revision is rolled out again, not a newer one that may never have served.
    assert made.task_definition_arn == SERVES
    assert made.trust == TRUST


def test_a_key_that_no_task_uses_is_not_made_again(lab: Lab) -> None:
    """should continue with it after a failed rollout: everybody who read it has the right one"""
    make(lab)
    make(lab)
    assert [version for version, _ in lab.applied] == [3, 3]
    assert lab.version == 3


def test_each_rotation_makes_another_key(lab: Lab) -> None:
    """should not take a key that is rolled out for one that waits"""
    make(lab)
    lab.task_began = lab.written + MINUTE
    make(lab)
    assert [version for version, _ in lab.applied] == [3, 4]


def test_a_version_that_was_never_applied_is_skipped(lab: Lab) -> None:
    """should make a key after a run that died between record and apply"""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    lab.up = die  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        make(lab)
    assert lab.record("demo").key_version == 3
    del lab.up  # type: ignore[method-assign]
    make(lab)
    assert lab.version == lab.record("demo").key_version == 4


def test_an_apply_that_died_before_its_state_is_repeated(lab: Lab) -> None:
    """should leave Terraform's number equal to the record's, or the next up makes a key"""

    def die() -> None:
        raise TransientError("throttled")

    lab.before_state = die
    with pytest.raises(TransientError):
        make(lab)
    lab.before_state = lambda: None
    make(lab)
    assert lab.version == lab.record("demo").key_version == lab.applied[-1][0] == 3


@pytest.mark.parametrize("missing", ["record", "task", "certificate"])
def test_a_lab_that_does_not_serve_gets_no_key(lab: Lab, missing: str) -> None:
    """should say so before anything is changed"""
    if missing == "record":
        lab.objects.clear()
    elif missing == "certificate":
        bare = RECORD.model_copy(update={"trust": None})
        lab.keep(bare)
    else:
        lab.task_began = None
    with pytest.raises(PermanentError) as caught:
        make(lab)
    assert "lab-up" in caught.value.hint
    assert lab.applied == []
    assert not lab.objects or lab.record("demo").key_version == RECORD.key_version


def test_a_lab_whose_secret_is_gone_gets_no_key(lab: Lab) -> None:
    """should make no secret that the serving revision does not know, and name the remedy"""

    lab.secret_is_gone = True
    with pytest.raises(PermanentError, match="gone"):
        make(lab)
    assert lab.applied == []
    assert lab.record("demo").key_version == RECORD.key_version


class Gateway:
    """Opens for the given keys, and answers 401 to every other."""

    def __init__(self, *opens: str) -> None:
        self.opens = opens

    @contextmanager
    def client(self, endpoint: Endpoint, key: str) -> Iterator[str]:
        assert endpoint == WHERE
        yield key

    def models(self, key: str) -> list[str]:
        if key not in self.opens:
            raise PermanentError("401")
        return ["one", "two"]

    def refuses(self, key: str) -> bool:
        return key not in self.opens


def check(lab: Lab, monkeypatch: pytest.MonkeyPatch, *opens: str) -> None:
    gateway = Gateway(*opens)
    monkeypatch.setattr(rotate, "open_client", gateway.client)
    monkeypatch.setattr(rotate, "list_models", gateway.models)
    monkeypatch.setattr(rotate, "refuses_key", gateway.refuses)
    rotate.check_keys.fn("demo", lab.site, WHERE)


def test_the_new_key_opens_and_the_old_one_does_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should log which key opens, and show neither key"""
    check(lab, monkeypatch, NEW)
    assert any("one, two" in line for line in lab.said)
    assert "the key before it is refused" in lab.said
    assert not [line for line in lab.said if OLD in line or NEW in line]


@pytest.mark.parametrize("opens", [(NEW, OLD), (OLD,), ()])
def test_a_wrong_lock_fails(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, opens: tuple[str, ...]
) -> None:
    """should fail if the old key still opens, or the new one does not"""
    with pytest.raises(PermanentError):
        check(lab, monkeypatch, *opens)


def test_an_unknown_old_key_cannot_be_tried(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should say so if the secret has no earlier value"""
    lab.before = None
    check(lab, monkeypatch, NEW)
    assert any("cannot be tried" in line for line in lab.said)


@pytest.mark.parametrize(
    "failure", [PermanentError("the new task failed", "Read its log."), TransientError("throttled")]
)
def test_a_failed_rollout_says_which_key_opens(failure: LabError) -> None:
    """should say why it failed, how the lab is left, and that the same command continues"""
    with pytest.raises(PermanentError) as caught, rotate.explain_partial_rotation("demo"):
        raise failure
    assert caught.value.message.startswith(failure.message)
    assert "takes only the old one" in caught.value.message
    assert "Run lab-rotate-key again, or lab-up" in caught.value.hint
    assert failure.hint in caught.value.hint
