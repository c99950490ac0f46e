"""prefect.yaml has only keys that Prefect knows: Prefect itself silently ignores unknown keys.

Importing Prefect takes seconds, so everything that needs it is in this module.
"""

from __future__ import annotations

import copy
import platform
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from deployments import register
from lab.fargate import Architecture
from lab.record import Reason
from lab.settings import ROOT, Settings
from workstation import prefect as workstation_prefect
from workstation.targets import target_environment, target_names, template_values

FILE: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = FILE["deployments"]
FLOWS = [
    f"lab-{name}"
    for name in (
        "up",
        "down",
        "extend",
        "list",
        "reap",
        "rebuild",
        "watch",
        "rotate-key",
        "allow",
        "verify",
    )
]
#: Variables that the flows read, in addition to the fields of the settings.
VENDORS = {"AWS_ENDPOINT_URL"}


def unknown_keys(model: type[BaseModel], value: dict[str, Any], at: str = "") -> list[str]:
    """Every key in ``value``, at any depth, that ``model`` does not declare."""
    hints = typing.get_type_hints(model)
    fields = {
        name: hints[key]
        for key, field in model.model_fields.items()
        for name in (key, field.alias)
        if name
    }
    found = []
    for key, inner in value.items():
        where = f"{at}{key}"
        if key not in fields:
            found.append(where)
            continue
        inside = models_in(fields[key])
        if not inside:
            continue
        for number, item in enumerate(inner if isinstance(inner, list) else [inner]):
            if isinstance(item, dict):
                # Of several possible models, the one that knows most of the value's keys.
                tried = (unknown_keys(m, item, f"{where}.{number}.") for m in inside)
                found += min(tried, key=len)
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The possible models of a value with this annotation; lists and unions are opened."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if typing.get_origin(annotation) is dict:
        return []
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def checked(content: dict[str, Any]) -> list[str]:
    return unknown_keys(PrefectYamlModel, {k: v for k, v in content.items() if k != "definitions"})


#: The effect of each flow's runs on labs.
INTENTS = {
    "lab-up": "makes-lab",
    "lab-rebuild": "makes-lab",
    "lab-down": "removes-lab",
    "lab-extend": "changes-lab",
    "lab-rotate-key": "changes-lab",
    "lab-allow": "changes-lab",
    "lab-verify": "reads-only",
    "lab-list": "reads-only",
    "lab-reap": "guard",
    "lab-watch": "guard",
}


def of(name: str) -> pytest.MarkDecorator:
    ids = [f"{d['entrypoint'].rpartition(':')[2]}-{d['name']}" for d in DEPLOYMENTS]
    return pytest.mark.parametrize(name, DEPLOYMENTS, ids=ids)


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    path, _, name = deployment["entrypoint"].partition(":")
    found = import_object(f"{path.removesuffix('.py').replace('/', '.')}.{name}")
    assert isinstance(found, Flow)
    return found


def test_prefect_reads_the_file() -> None:
    """should be valid by Prefect's own models"""
    assert len(PrefectYamlModel.model_validate(FILE).deployments) == len(DEPLOYMENTS)


def test_the_file_has_no_unknown_key() -> None:
    """should have only keys that Prefect declares, at every level"""
    assert checked(FILE) == []


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "deploymets"),
        (("deployments", 0), "scheduled"),
        (("deployments", 0), "job_variables"),
        (("deployments", 1), "enforce_parameters_schema"),
        (("deployments", 0, "work_pool"), "work_queue"),
        (("deployments", 0, "schedules", 0), "crom"),
        (("deployments", 0, "concurrency_limit"), "strategy"),
    ],
)
def test_an_unknown_key_is_found(place: tuple[str | int, ...], key: str) -> None:
    """should find a mistyped key at any place"""
    content = copy.deepcopy(FILE)
    content["deployments"][0]["schedules"] = [{"cron": "0 0 * * *"}]
    content["deployments"][0]["concurrency_limit"] = {"limit": 1}
    assert checked(content) == []
    target: Any = content
    for part in place:
        target = target[part]
    target[key] = []
    # Deployments share anchors, so that one key may be found in several deployments.
    found = checked(content)
    assert found
    assert all(where.endswith(key) for where in found)


def test_every_flow_is_deployed_for_every_target() -> None:
    """should have each flow once per target, under the target's name, and a nightly rebuild"""
    found = [(flow_of(d).name, d["name"]) for d in DEPLOYMENTS]
    wanted = [(f, t) for f in FLOWS for t in ("local", "aws")]
    wanted += [("lab-rebuild", "nightly-local"), ("lab-rebuild", "nightly-aws")]
    assert sorted(found) == sorted(wanted)
    assert target_names() == ["aws", "local"]


def test_no_flow_is_forgotten() -> None:
    """should deploy every flow that has its own file in flows/"""
    files = {f"flows/{p.name}" for p in Path(ROOT, "flows").glob("lab_*.py")}
    assert {d["entrypoint"].partition(":")[0] for d in DEPLOYMENTS} == files


@of("deployment")
def test_default_parameters_fit_the_flow(deployment: dict[str, Any]) -> None:
    """should be parameters of the flow, so that a run needs no other"""
    flow = flow_of(deployment)
    assert deployment["enforce_parameter_schema"] is True
    schema = parameter_schema(flow).model_dump_for_openapi()
    validate(deployment["parameters"], schema, raise_on_error=True)
    flow.validate_parameters(deployment["parameters"])


@of("deployment")
def test_a_flows_form_refuses_unknown_fields(deployment: dict[str, Any]) -> None:
    """should enforce the schema, so that a mistyped lab is refused before a run exists"""
    schema = parameter_schema(flow_of(deployment)).model_dump_for_openapi()
    known = schema["properties"]
    bad: dict[str, Any] = {"labs": "demo"}
    if "lab" in known:
        bad = {"lab": "Demo-"}
    elif known:
        bad = dict.fromkeys(known, "no such thing")
    assert validate(bad, schema) or "labs" in bad


@of("deployment")
def test_a_deployment_has_its_tags(deployment: dict[str, Any]) -> None:
    """should have one tag for its effect on labs, and one for its target"""
    assert deployment["description"]
    target = deployment["name"].rpartition("-")[2]
    intent = INTENTS[flow_of(deployment).name]
    assert deployment["tags"] == [f"{intent}:{target}"]


@of("deployment")
def test_a_failed_up_leads_to_a_down_of_its_target(deployment: dict[str, Any]) -> None:
    """should be triggered only by runs that make labs of the same target"""
    if flow_of(deployment).name != "lab-down":
        assert "triggers" not in deployment
        return
    (trigger,) = deployment["triggers"]
    made = DeploymentEventTrigger.model_validate(trigger)
    assert made.expect == {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    related = trigger["match_related"]["prefect.resource.id"]
    assert related == f"prefect.tag.makes-lab:{deployment['name']}"
    parameters = trigger["parameters"]
    assert parameters["reason"] == Reason.FAILED_UP
    assert set(parameters) <= set(parameter_schema(flow_of(deployment)).properties)


@of("deployment")
def test_a_deployment_uses_the_projects_work_pool(deployment: dict[str, Any]) -> None:
    """should run where the project's worker polls"""
    pool = deployment["work_pool"]["name"]
    assert pool == register.WORK_POOL == workstation_prefect.WORK_POOL


@of("deployment")
def test_the_environment_has_only_known_variables(deployment: dict[str, Any]) -> None:
    """should set no variable that nothing reads"""
    environment = deployment["work_pool"]["job_variables"]["env"]
    known = {f"LAB_{name.upper()}" for name in Settings.model_fields} | VENDORS
    assert set(environment) <= known
    assert environment["LAB_TARGET"] == deployment["name"].removeprefix("nightly-")
    assert all(isinstance(value, str) for value in environment.values())


@pytest.mark.parametrize("target", ["local", "aws"])
def test_a_targets_environment_makes_settings(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """should be a place where a flow can run, with no unfilled template"""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    environment = target_environment(target)
    assert "{{" not in "".join(environment.values())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.target == target
    assert settings.home == tmp_path


def test_the_local_block_is_the_registered_one() -> None:
    """should name the credentials block that registration makes"""
    assert target_environment("local")["LAB_CREDENTIALS_BLOCK"] == register.LOCAL_BLOCK


def test_every_template_has_a_value() -> None:
    """should use only names that the workstation gives"""
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    used = {part.partition("}}")[0].strip() for part in body.split("{{")[1:]}
    # Prefect fills in the other names, from the run that failed.
    ours = {name for name in used if not name.startswith("flow_run.")}
    assert ours == {f"${name}" for name in template_values()}
    assert set(register.TEMPLATE) == set(template_values())


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", "x86_64")],
)
def test_a_local_lab_is_built_for_this_machine(
    machine: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should need no emulation, if a lab can have the machine's architecture"""
    monkeypatch.delenv("LAB_ARCHITECTURE", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert target_environment("local")["LAB_ARCHITECTURE"] == architecture
    assert "LAB_ARCHITECTURE" not in target_environment("aws")


@pytest.mark.parametrize("asked", ["x86_64", "arm64"])
def test_a_requested_architecture_wins(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """should build for the value of LAB_ARCHITECTURE, on any machine"""
    monkeypatch.setenv("LAB_ARCHITECTURE", asked)
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert target_environment("local")["LAB_ARCHITECTURE"] == asked


def test_a_worker_leaves_labs_on_aws_their_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """should set LAB_ARCHITECTURE only for the local target"""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.delenv("LAB_ARCHITECTURE", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "LAB_ARCHITECTURE" not in workstation_prefect.prefect_environment()
    assert Settings().architecture is Architecture.X86_64
