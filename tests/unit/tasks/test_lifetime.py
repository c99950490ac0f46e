"""What an up keeps of the lab that it finds, and what a teardown leaves in Prefect: nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.variables import Variable

from lab.certificate import Trust, make_certificate
from lab.endpoint import Endpoint
from lab.fargate import Architecture
from lab.image.plan import PushedImage
from lab.live import LiveLab
from lab.models.catalog import InferenceProfile, Model
from lab.names import variable
from lab.plan import PreflightResult
from lab.record import LabRecord, Reason, ServedModel
from lab.settings import Settings
from lab.spec import LabSpec
from tasks import lifetime, records, teardown, watch
from tests.unit.tasks.sites import FakeSite, MemoryBucket

MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
HOME = "9.9.9.9/32"
CHECKED = PreflightResult(models=[], cidrs=[HOME], deployer=HOME, architecture=Architecture.X86_64)
SPEC = LabSpec(lab="demo")
HAS = make_certificate("gateway-lab-demo.internal", MADE, MADE)


class End:
    """The end as the cloud knows it, in the order in which it was written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, datetime]] = []

    def move_stop(self, at: datetime) -> bool:
        self.written.append(("stop", at))
        return False

    def write_tag(self, at: datetime) -> None:
        self.written.append(("tag", at))


class Lab(MemoryBucket):
    """A lab whose bucket is in memory; it has an end, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.end = End()
        self.site = FakeSite(bucket=self, end=self.end)

    def write_json(self, key: str, record: dict[str, Any]) -> None:
        super().write_json(key, record)
        self.end.written.append(("record", datetime.fromisoformat(record["expires_at"])))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()

    def run(record: LabRecord, _: Settings) -> None:
        made.end.written.append(("run", record.expires_at))

    monkeypatch.setattr(lifetime, "replace_scheduled_end", run)
    monkeypatch.setattr(lifetime, "now", lambda: MADE)
    return made


def schedule(lab: Lab) -> LabRecord:
    end = MADE + timedelta(hours=1)
    made: LabRecord = lifetime.schedule_end.fn(SPEC, lab.site, CHECKED, end)
    assert lab.record("demo") == made
    return made


def test_a_first_up_records_the_deployers_host(lab: Lab) -> None:
    """should record which rule may follow the deployer, and begin with the first key"""
    made = schedule(lab)
    assert (made.cidrs, made.deployer, made.deployer_given) == ([HOME], HOME, False)
    assert made.key_version == 1


def test_an_end_is_written_everywhere_in_one_order(lab: Lab) -> None:
    """should move the cloud's own stop first and Prefect's run last, all to the same end"""
    end = schedule(lab).expires_at
    grace = lab.site.settings.stop_grace
    assert lab.end.written == [("stop", end + grace), ("record", end), ("tag", end), ("run", end)]


class Clock:
    """Time that passes only by waiting."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("early", "reason", "destroyed", "waited"),
    [
        (timedelta(seconds=1), Reason.END, True, timedelta(seconds=1)),
        (teardown.EARLY, Reason.END, True, teardown.EARLY),
        (timedelta(), Reason.END, True, timedelta()),
        (timedelta(seconds=-1), Reason.END, True, timedelta()),
        # The end has been moved: such a run must not wait for another time.
        (teardown.EARLY + timedelta(seconds=1), Reason.END, False, timedelta()),
        (timedelta(seconds=1), Reason.ASKED, True, timedelta()),
        (timedelta(seconds=1), Reason.FAILED_UP, False, timedelta()),
    ],
)
def test_a_run_that_begins_before_the_end_waits_for_it(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    early: timedelta,
    reason: Reason,
    destroyed: bool,
    waited: timedelta,
) -> None:
    """should destroy the lab at its end, neither before nor, by the reaper, minutes later"""
    end = schedule(lab).expires_at
    clock = Clock(end - early)
    monkeypatch.setattr(teardown, "now", clock.now)
    monkeypatch.setattr(teardown.time, "sleep", clock.sleep)
    assert teardown.reason_holds.fn("demo", lab.site, reason, None) is destroyed
    assert clock.at == end - early + waited


def test_a_second_up_keeps_the_trusted_authorities(lab: Lab) -> None:
    """should keep the lab callable while it comes up again, even after a certificate's end"""
    trust = Trust(ca="CA", version=3, not_after=MADE)
    known = LabRecord(lab="demo", created_at=MADE, expires_at=MADE, trust=trust)
    lab.keep(known)
    assert schedule(lab).trust == trust


def test_an_up_records_the_models_of_each_alias(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should record the models by Bedrock's names, as the task role's policy has them"""
    profile = InferenceProfile(id="us.v.two", regions=["us-east-1", "us-west-2"])
    models = [
        Model(alias="one", model_id="v.one", provider="V"),
        Model(alias="two", model_id="v.two", provider="V", inference_profile=profile),
    ]
    checked = CHECKED.model_copy(update={"models": models})
    monkeypatch.setattr(f"{__name__}.CHECKED", checked)
    assert schedule(lab).served == {
        "one": ServedModel(model_id="v.one"),
        "two": ServedModel(
            model_id="v.two",
            inference_profile_id="us.v.two",
            regions=["us-east-1", "us-west-2"],
        ),
    }


def test_the_running_image_is_recorded(lab: Lab) -> None:
    """should be readable by every later run, until the next image is rolled out"""
    schedule(lab)
    image = PushedImage(repository="localhost:4566/gateway-lab", tag="0123", digest="sha256:ab")
    records.note_image("demo", lab.site, image)
    written = json.loads(lab.objects["labs/demo/lab.json"][0])
    assert written["image"] == "localhost:4566/gateway-lab:0123@sha256:ab"
    assert schedule(lab).image == image


def test_a_second_up_keeps_the_number_of_the_key(lab: Lab) -> None:
    """should not make Terraform create another key, which no application knows"""
    known = LabRecord(lab="demo", created_at=MADE, expires_at=MADE, key_version=4)
    lab.keep(known)
    assert schedule(lab).key_version == 4


class Variables:
    """The part of Prefect's variables that the project uses; a missing one is no error."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {"other": 1}

    def get(self, name: str, default: Any = None) -> Any:
        return self.known.get(name, default)

    def set(self, name: str, value: Any, overwrite: bool) -> None:
        assert overwrite
        self.known[name] = value

    def unset(self, name: str) -> bool:
        return self.known.pop(name, None) is not None


@pytest.mark.parametrize("watched", [True, False])
def test_a_lab_that_is_gone_leaves_no_variable(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watched: bool
) -> None:
    """should remove all that the watch has set, and accept that it has set none"""
    variables = Variables()

    class Nothing:
        def __init__(self, _: object) -> None: ...

        def look(self, _: str) -> tuple[list[str], list[Any]]:
            return [], []

    for name in ("get", "set", "unset"):
        monkeypatch.setattr(Variable, name, getattr(variables, name))
    monkeypatch.setattr(teardown, "Sweeper", Nothing)
    monkeypatch.setattr(teardown, "publish_teardown", lambda *_: None)
    monkeypatch.setattr(teardown, "cancel_scheduled_ends", lambda *_: 0)
    if watched:
        live = LiveLab.model_construct(
            lab="team-a",
            endpoint=Endpoint.of("team-a", "8.8.4.4", "CA"),
            ready=True,
            deployer_allowed=True,
        )
        watch._report_changes(live)
        assert variable("team-a", "endpoint") in variables.known
    site = FakeSite(Settings(home=tmp_path), bucket=lab)
    teardown.check_nothing_left.fn("team-a", site)
    assert variables.known == {"other": 1}
