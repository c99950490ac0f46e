"""A flow's story without Prefect's server and without a cloud: every stage is a recorder.

A recorder replaces the *function* of a stage. Everything around it is real: the flows, the
other functions that they import, the timing of stages, Prefect's futures and states, and Prefect's
own code that resolves inputs. So a stage never runs if one of its inputs, or of its ``wait_for``,
failed.

A submitted recorder runs at once. The order of the calls is therefore the order in which the flow
begins them, and says little about two stages that run at the same time. So each call also knows
which calls had *surely* ended before it, however fast or slow each stage is: those that the flow
had waited for, and those that Prefect waits for because of the call's inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec
from uuid import uuid4

import pytest
from prefect import Task, unmapped
from prefect.exceptions import UpstreamTaskError
from prefect.futures import PrefectConcurrentFuture, PrefectFutureList
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.states import Completed, Failed, Pending, State
from prefect.utilities.collections import visit_collection
from prefect.utilities.engine import resolve_to_final_result

from adapters.aws.lease import Holder, LabHeldError, LeaseLostError
from adapters.aws.session import Cloud
from flows import lab_reap
from lab import names
from lab.certificate import Trust
from lab.durations import now
from lab.endpoint import Endpoint
from lab.fargate import Architecture
from lab.image.plan import ImagePlan
from lab.models.catalog import Model
from lab.models.lifecycle import ModelAction, ModelNote
from lab.models.render import ValidationCase
from lab.plan import PreflightResult
from lab.posture import Check, CheckName, Posture
from lab.record import LabRecord
from lab.report.model import ImageScan, LabReport, ModelResult, Verdict
from lab.settings import Settings
from lab.spec import LabSpec
from tasks import hold, image, outcome, prove
from tasks import stage as stages
from tasks.draft import note_in_report, note_record
from tasks.image import Audited, Scanned
from tasks.provision import Provisioned
from tasks.rollout import RolledOut
from tests.unit.tasks.sites import FakeSite, MemoryBucket

MODELS = [Model(alias=alias, model_id=f"some.{alias}", provider="Some") for alias in ("one", "two")]
CHECKED = PreflightResult(
    models=MODELS,
    model_notes=[
        ModelNote(alias="one", action=ModelAction.WARNED, model_id="some.one", why="it ends")
    ],
    cidrs=["8.8.4.4/32"],
    architecture=Architecture.X86_64,
)
PLAN = ImagePlan(
    repository="registry/gateway-lab",
    tag="0123abcd",
    base_reference="base:1",
    base_source="debian",
    config="models: []",
)
DIGEST = "sha256:01"
SCANNED = Scanned(scan=ImageScan(advisories_of=date(2030, 1, 2)), sbom_text=None)
AUDITED = Audited(by="OSV")
PROVISIONED = Provisioned(
    task_definition_arn="arn:aws:ecs:us-east-1:111122223333:task-definition/gateway-lab-demo:7",
    trust=Trust(ca="CA", version=1, not_after=now() + timedelta(days=3)),
    fingerprint="of this up",
)
LIVE = RolledOut(endpoint=Endpoint.of("demo", "8.8.8.8", "CA"), image_digest=DIGEST)
POSTURE = Posture(checks=[Check(name=CheckName.KEY, wanted="401", found="401", passed=True)])
MISSED = Posture(checks=[Check(name=CheckName.KEY, wanted="401", found="200", passed=False)])
INVENTORY = ["cluster gateway-lab-demo"]
CLOUD = create_autospec(Cloud, instance=True)


@dataclass(eq=False, frozen=True)
class Call:
    """A stage that began: its function's name, its arguments, and the calls that ended before."""

    name: str
    arguments: dict[str, Any]
    after: frozenset[Call]

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]


class Story:
    """The calls of a flow. Every call succeeds, unless the test says how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.said: list[str] = []
        self.reports: list[LabReport] = []
        self.bucket = Bucket(self)
        self.site = FakeSite(Settings.model_construct(), bucket=self.bucket, cloud=CLOUD)
        #: The run that holds a lab, by the lab's name.
        self.holders: dict[str, Holder] = {}
        self._outcomes = {name: [outcome] for name, outcome in self._defaults().items()}
        self._ended: frozenset[Call] = frozenset()
        self._lose: Callable[[], None] = lambda: None
        self._lost = False
        self._replace(monkeypatch)

    # --- what the test says beforehand ---------------------------------------------------------

    def will(self, name: str, *outcomes: Any) -> None:
        """Let the calls of ``name`` end with ``outcomes`` in turn; the last one stays.

        An exception is raised; a function is called with the arguments; all else is returned.
        """
        assert name in self._outcomes, f"no flow calls {name}"
        self._outcomes[name] = list(outcomes)

    def hold(self, lab: str, doing: str) -> None:
        """Let another run hold ``lab``, until somebody waits for it."""
        self.holders[lab] = Holder(doing=doing, run="another", host="there", since="just now")

    def lose_lease(self) -> None:
        """Let the run lose its lab: what the lease does when it cannot be renewed any more."""
        self._lost = True
        self._lose()

    # --- what the test finds afterwards ----------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def all_of(self, name: str) -> list[Call]:
        assert name in self._outcomes, f"no flow calls {name}"
        return [call for call in self.calls if call.name == name]

    def only(self, name: str) -> Call:
        (call,) = self.all_of(name)
        return call

    def happened(self, *named: str) -> list[str]:
        """The names in ``named`` that were called."""
        return [name for name in named if self.all_of(name)]

    def is_ordered(self, first: str, second: str) -> bool:
        """Whether no call of ``second`` can begin before each of ``first`` has ended."""
        firsts, seconds = self.all_of(first), self.all_of(second)
        assert firsts, f"{first} was not called"
        assert seconds, f"{second} was not called"
        return all(one.after.issuperset(firsts) for one in seconds)

    def assert_order(self, *named: str) -> None:
        """Each of ``named`` can only begin once the one before it has ended."""
        for first, second in pairwise(named):
            assert self.is_ordered(first, second), f"{second} does not wait for {first}"

    @property
    def report(self) -> LabReport:
        """The report, which was published once."""
        (report,) = self.reports
        return report

    # --- how it is recorded ------------------------------------------------------------------

    def record(self, name: str, **arguments: Any) -> Any:
        """Record a call, and end it as the test or the defaults say."""
        call = Call(name, arguments, self._ended)
        self.calls.append(call)
        assert name in self._outcomes, f"{name} is new: say in recorder.py how it ends"
        outcomes = self._outcomes[name]
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome(**arguments) if callable(outcome) else outcome
        finally:
            self._ended |= {call}

    def learn(self, ended: frozenset[Call]) -> None:
        """The code that runs now has waited for these calls."""
        self._ended |= ended

    def _replace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def call(task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
            return _recorder(task)(self, _resolve(_bind(task, *args, **kwargs)))

        def submit(
            task: Task[..., Any],
            *args: Any,
            wait_for: Any = None,
            return_state: bool = False,
            **kwargs: Any,
        ) -> Ended:
            assert not return_state
            return self._submit(task, _bind(task, *args, **kwargs), wait_for)

        def submit_each(task: Task[..., Any], *args: Any, **kwargs: Any) -> PrefectFutureList[Any]:
            given = _bind(task, *args, **kwargs)
            same = {k: v.value for k, v in given.items() if isinstance(v, unmapped)}
            lists = {k: v for k, v in given.items() if k not in same}
            rows = zip(*lists.values(), strict=True)
            every = [same | dict(zip(lists, row, strict=True)) for row in rows]
            return PrefectFutureList(self._submit(task, one, None) for one in every)

        # On Prefect's class, so that no name in a module has to be replaced for a stage.
        monkeypatch.setattr(Task, "__call__", call)
        monkeypatch.setattr(Task, "submit", submit)
        monkeypatch.setattr(Task, "map", submit_each)
        # These ask Prefect's server.
        logger = SimpleNamespace(info=self.said.append)
        monkeypatch.setattr(stages, "get_run_logger", lambda: logger)
        monkeypatch.setattr(stages, "create_progress_artifact", lambda *_, **__: uuid4())
        monkeypatch.setattr(stages, "update_progress_artifact", lambda *_, **__: None)
        # These are no stages, and are called by a name in one module.
        monkeypatch.setattr(hold, "hold_lease", self._hold_lease)
        monkeypatch.setattr(outcome, "publish_report", self._publish_report)
        monkeypatch.setattr(
            prove,
            "save_apply_fingerprint",
            lambda lab, site, made, inventory: self.record(
                "save_apply_fingerprint", lab=lab, made=made, inventory=inventory
            ),
        )
        monkeypatch.setattr(
            lab_reap,
            "name_run",
            lambda doomed, *, dry_run: self.record("name_run", doomed=doomed, dry_run=dry_run),
        )
        # The one step of the real push that leaves this machine.
        monkeypatch.setattr(image, "_push", lambda *_: DIGEST)

    def _submit(self, task: Task[..., Any], given: dict[str, Any], wait_for: Any) -> Ended:
        """Run the recorder of ``task`` as Prefect's engine runs a task, but without retries."""
        known = self._ended
        try:
            given = _resolve(given)
            _resolve(wait_for)
            state = Completed(data=_record(_recorder(task)(self, given)))
        except UpstreamTaskError as error:
            state = Pending(name="NotReady", message=str(error))
        except Exception as error:
            state = Failed(data=_record(error), message=str(error))
        future = Ended(self, state, self._ended)
        # The flow itself has not waited for it yet.
        self._ended = known
        return future

    @contextmanager
    def _hold_lease(
        self,
        store: object,
        lab: str,
        holder: Holder,
        *,
        patience: Callable[[Holder], float],
        on_lost: Callable[[], None],
        log: Callable[[str], None],
    ) -> Iterator[None]:
        other = self.holders.get(lab)
        if other is not None:
            if not patience(other):
                raise LabHeldError(lab, other)
            del self.holders[lab]
            self.record("wait_for_holder", lab=lab, seconds=patience(other))
        self.record("hold_lease", lab=lab, doing=holder.doing)
        self._lose = on_lost
        try:
            yield
        finally:
            self.record("release_lease", lab=lab)
        if self._lost:
            raise LeaseLostError(f"the lease of lab {lab} could not be kept")

    def _publish_report(self, report: LabReport, settings: Settings) -> None:
        self.reports.append(report.model_copy(deep=True))
        self.record("publish_report", report=report, settings=settings)

    # --- how a call ends by default ----------------------------------------------------------

    def _defaults(self) -> dict[str, Any]:
        return {
            "find_site": self._find_site,
            "preflight": _preflight,
            "schedule_end": _schedule_end,
            "plan_image": PLAN,
            "provision_foundation": None,
            "scan_image": SCANNED,
            "audit_image": AUDITED,
            "build_image": True,
            # The real one: it notes in the report what was pushed.
            "push_image": inspect.unwrap(image.push_image.fn),
            "provision_lab": PROVISIONED,
            "roll_out": _roll_out,
            "check_model_list": None,
            "validate_model": answer,
            "verify_lab": POSTURE,
            "take_inventory": INVENTORY,
            "destroy_lab": None,
            "check_nothing_left": None,
            "reason_holds": True,
            "purge_foundation": None,
            "survey": [],
            "list_labs": [],
            "watch_lab": None,
            "follow_deployer": True,
            "change_allowed": [],
            "move_end": None,
            "make_new_key": PROVISIONED,
            "check_keys": None,
            # These are no stages.
            "wait_for_holder": None,
            "hold_lease": None,
            "release_lease": None,
            "write_json": None,
            "publish_report": None,
            "save_apply_fingerprint": None,
            "name_run": None,
        }

    def _find_site(self, settings: Settings) -> FakeSite:
        self.site.settings = settings
        return self.site


class Ended(PrefectConcurrentFuture[Any]):
    """Prefect's future of a stage that has ended. To wait for it is to wait for ``ended``."""

    def __init__(self, story: Story, state: State[Any], ended: frozenset[Call]) -> None:
        done: Future[Any] = Future()
        done.set_result(state)
        super().__init__(uuid4(), done)
        self._story, self._calls = story, ended

    def wait(self, timeout: float | None = None) -> None:
        self._story.learn(self._calls)
        super().wait(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        self.wait(timeout)
        return super().result(timeout, raise_on_failure)

    @property
    def state(self) -> State[Any]:
        assert self._final_state, "the state of a stage that nobody has waited for"
        return self._final_state


class Bucket(MemoryBucket):
    """The state bucket in memory. A record that is written is part of the story."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story
        self.there = True

    def ensure(self) -> bool:
        return False

    def exists(self) -> bool:
        return self.there

    def write_json(self, key: str, record: dict[str, Any]) -> None:
        self._story.record("write_json", key=key)
        super().write_json(key, record)

    def keep(self, record: LabRecord) -> None:
        """Remember ``record`` from before the flow."""
        super().write_json(names.lab_record_key(record.lab), record.model_dump(mode="json"))


@cache
def _recorder(task: Task[..., Any]) -> Callable[[Story, dict[str, Any]], Any]:
    """Called in place of the function of ``task``: a stage of the same name."""
    name = task.fn.__name__
    made = stages.stage(task.name, run_name=name)(lambda story, given: story.record(name, **given))
    return made.fn


def _bind(task: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments by name; TypeError where the real function does not take them."""
    bound = inspect.signature(task.fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _record(result: Any) -> ResultRecord[Any]:
    """A result, or an error, in the form in which Prefect's states keep it in memory."""
    return ResultRecord(result=result, metadata=ResultRecordMetadata())


def _resolve(given: Any) -> Any:
    """``given`` with results in place of futures, as Prefect's engine resolves them."""
    return visit_collection(
        given,
        visit_fn=resolve_to_final_result,
        return_data=True,
        max_depth=-1,
        remove_annotations=True,
        context={},
    )


def answer(lab: str, site: object, endpoint: Endpoint, case: ValidationCase) -> ModelResult:
    """The result of a model that works."""
    return ModelResult(alias=case.alias, model_id=case.model_id, verdict=Verdict.OK)


def refusal(lab: str, site: object, endpoint: Endpoint, case: ValidationCase) -> ModelResult:
    """The result of a model that the account may not call."""
    return ModelResult(
        alias=case.alias, model_id=case.model_id, verdict=Verdict.REFUSED, error="no access"
    )


def record_of(lab: str, **changes: Any) -> LabRecord:
    """The record of a lab that ends in an hour."""
    values = {"created_at": now(), "expires_at": now() + timedelta(hours=1)}
    return LabRecord(lab=lab, **(values | changes))


def _preflight(spec: LabSpec, site: object) -> PreflightResult:
    note_in_report(model_notes=CHECKED.model_notes)
    return CHECKED


def _schedule_end(spec: LabSpec, site: object, checked: object, expires_at: Any) -> LabRecord:
    record = record_of(spec.lab, expires_at=expires_at, on_failure=spec.on_failure)
    note_record(record)
    return record


def _roll_out(lab: str, site: object, made: Provisioned, image: object = None) -> RolledOut:
    note_in_report(endpoint=LIVE.endpoint.url, ca=LIVE.endpoint.ca)
    return LIVE
