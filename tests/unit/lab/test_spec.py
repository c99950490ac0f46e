"""A LabSpec that exists is valid for AWS; every other one is reported and refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from lab.errors import InvalidInputError
from lab.fargate import TASK_SIZES, Capacity
from lab.spec import Hosts, LabSpec, OnFailure, OnRetired, read_spec

HOSTS: TypeAdapter[list[str]] = TypeAdapter(Hosts)


def refusal(**values: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_spec({"lab": "demo", **values})
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("name", ["ab", "demo", "team-a-1", "a1", "a" * 20, "a-b-c-d-e-f-g-h-i-j"])
def test_accepts_names_that_aws_accepts(name: str) -> None:
    """should accept every name within the bounds, the longest among them"""
    assert read_spec({"lab": name}).lab == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a" * 21,
        "Demo",
        "DEMO",
        "demo_1",
        "demo.1",
        "de mo",
        "demo-",
        "-demo",
        "de--mo",
        "1demo",
        "démo",
        "demo\n",
        " demo",
        "demo/x",
        "demo٣",
        "${demo}",
    ],
)
def test_refuses_names_that_aws_would_refuse(name: str) -> None:
    """should name the refused lab name, and say which names are allowed"""
    said = refusal(lab=name)
    assert said.startswith("lab: ")
    assert repr(name) in said
    assert "2 to 20 lower-case letters, digits and single dashes" in said


@pytest.mark.parametrize("name", [None, 7, ["demo"]])
def test_refuses_names_that_are_no_text(name: object) -> None:
    """should name the field and the value if the name is not a text"""
    said = refusal(lab=name)
    assert said.startswith("lab: ")
    assert repr(name) in said


def test_a_lab_has_a_name() -> None:
    """should say that the name is missing"""
    with pytest.raises(InvalidInputError, match="lab: Field required"):
        read_spec({})


@pytest.mark.parametrize(
    ("ttl", "length"),
    [
        ("1m", timedelta(minutes=1)),
        ("60s", timedelta(minutes=1)),
        ("45m", timedelta(minutes=45)),
        ("1h30m", timedelta(minutes=90)),
        ("1d", timedelta(hours=24)),
        ("24h", timedelta(hours=24)),
    ],
)
def test_accepts_a_ttl_within_bounds(ttl: str, length: timedelta) -> None:
    """should accept a ttl at and between both bounds"""
    assert read_spec({"lab": "demo", "ttl": ttl}).lifetime == length


@pytest.mark.parametrize("ttl", ["0", "0m", "0s", "59s", "24h1s", "25h", "2d", "9999999d"])
def test_refuses_a_ttl_out_of_bounds(ttl: str) -> None:
    """should name the ttl, for zero and beyond the cap"""
    said = refusal(ttl=ttl)
    assert "ttl" in said
    assert repr(ttl) in said
    if ttl != "0":
        assert "1m to 1d" in said


@pytest.mark.parametrize(
    "ttl",
    [
        "-1h",
        "-45m",
        "",
        "soon",
        "1.5h",
        "1h 30m",
        "30m1h",
        "1w",
        "45",
        "45m\n",
        "\uff14m",
        "PT1H",
        "9" * 30 + "d",
    ],
)
def test_refuses_a_ttl_that_is_no_duration(ttl: str) -> None:
    """should name the ttl and show how one is written"""
    said = refusal(ttl=ttl)
    assert repr(ttl) in said
    assert "'45m', '1h30m' or '2d'" in said


@pytest.mark.parametrize("address", ["8.8.4.4", "8.8.4.4/32", "203.0.113.10"])
def test_accepts_one_public_host(address: str) -> None:
    """should accept one public host, with or without its prefix length"""
    spec = read_spec({"lab": "demo", "allowed_addresses": [address]})
    assert spec.allowed_addresses == [address]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0/0", "exactly one"),
        ("8.8.4.0/24", "covers 256 hosts"),
        ("8.8.4.4/31", "covers 2 hosts"),
        ("8.8.4.4/24", "not an IPv4 host"),
        ("10.0.0.1", "not public"),
        ("192.168.1.5/32", "not public"),
        ("172.16.0.1", "not public"),
        ("100.64.0.1", "not public"),
        ("127.0.0.1", "not public"),
        ("169.254.170.2", "not public"),
        ("0.0.0.0", "not public"),
        ("224.0.0.1", "multicast"),
        ("2001:4860:4860::8888", "IPv6"),
        ("::/0", "IPv6"),
        ("8.8.4", "not an IPv4 host"),
        ("8.8.4.256", "not an IPv4 host"),
        ("08.8.4.4", "not an IPv4 host"),
        ("example.com", "not an IPv4 host"),
        ("", "not an IPv4 host"),
    ],
)
def test_refuses_all_but_one_public_host(address: str, why: str) -> None:
    """should name the address and why it may not be in the firewall"""
    said = refusal(allowed_addresses=["8.8.4.4", address])
    assert repr(address) in said
    assert why in said


def test_refuses_too_many_addresses() -> None:
    """should limit the number of hosts"""
    assert "at most 20" in refusal(allowed_addresses=["8.8.4.4"] * 21)


def test_refuses_no_models() -> None:
    """should not bring a lab up without models"""
    assert "models is empty: name at least one alias" in refusal(models=[])


def test_refuses_duplicate_aliases() -> None:
    """should name each duplicate alias, and no other"""
    said = refusal(models=["a", "b", "a", "c", "c"])
    assert "models names a, c more than once" in said


def test_no_models_named_means_the_enabled_ones() -> None:
    """should leave the choice to the catalogue"""
    assert read_spec({"lab": "demo"}).models is None


@pytest.mark.parametrize(
    ("cpu", "memory", "named"),
    [
        (128, 512, "cpu 128"),
        (0, 2048, "cpu 0"),
        (-256, 512, "cpu -256"),
        (1, 2048, "cpu 1 "),
        (256, 4096, "memory 4096 MiB does not go with cpu 256"),
        (1024, 1024, "memory 1024 MiB does not go with cpu 1024"),
        (4096, 4096, "memory 4096 MiB does not go with cpu 4096"),
        (512, 1500, "memory 1500 MiB does not go with cpu 512"),
    ],
)
def test_refuses_sizes_that_fargate_lacks(cpu: int, memory: int, named: str) -> None:
    """should name the size and list those that Fargate has"""
    said = refusal(cpu=cpu, memory=memory)
    assert named in said
    assert "allowed: " in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("capacity", "SPOT"),
        ("on_failure", "leave"),
        ("on_retired", "ignore"),
        ("owner", ""),
        ("owner", "a b"),
        ("owner", "x" * 65),
        ("cpu", "lots"),
        ("lifetime", "1h"),
    ],
)
def test_refuses_invalid_values_and_unknown_fields(field: str, value: str) -> None:
    """should name the field and the value, also for an unknown field"""
    said = refusal(**{field: value})
    assert said.startswith(f"{field}: ")
    assert repr(value) in said


def test_reports_every_fault_at_once() -> None:
    """should not make people correct one value per try"""
    said = refusal(lab="Demo", ttl="soon", models=[])
    assert all(word in said for word in ("'Demo'", "'soon'", "models is empty"))


def test_defaults_are_the_cheap_and_safe_ones() -> None:
    """should default to spare capacity, an end within hours and nothing destroyed on failure"""
    spec = LabSpec(lab="demo")
    assert spec.capacity is Capacity.SPOT
    assert spec.lifetime == timedelta(hours=2)
    assert spec.on_failure is OnFailure.KEEP
    assert spec.on_retired is OnRetired.FAIL


def test_a_spec_does_not_change() -> None:
    """should stay as it was checked"""
    with pytest.raises(ValueError, match="frozen"):
        LabSpec(lab="demo").lab = "Other"  # type: ignore[misc]


def test_schema_describes_every_field() -> None:
    """should give the form in Prefect's UI a text and a bound for each field"""
    schema = LabSpec.model_json_schema()
    assert set(schema["properties"]) == set(LabSpec.model_fields)
    for name, field in schema["properties"].items():
        assert field.get("description"), f"{name} has no description"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["lab"]
    assert schema["properties"]["lab"]["maxLength"] == 20
    assert schema["properties"]["lab"]["pattern"]
    assert schema["properties"]["ttl"]["pattern"]
    assert schema["properties"]["cpu"]["enum"] == sorted(TASK_SIZES)
    assert schema["properties"]["memory"]["minimum"] == 512


def test_hosts_of_a_flow_are_compared_by_meaning() -> None:
    """should be each host once, as the firewall spells it"""
    assert HOSTS.validate_python(["8.8.4.4", "1.1.1.1/32", " 8.8.4.4/32"]) == [
        "1.1.1.1/32",
        "8.8.4.4/32",
    ]


@pytest.mark.parametrize(
    ("hosts", "why"),
    [
        (["8.8.4.4", "10.0.0.1"], "'10.0.0.1' is not public"),
        (["0.0.0.0/0"], "exactly one"),
        (["example.com"], "not an IPv4 host"),
        ([f"8.8.4.{n}" for n in range(21)], "at most 20"),
    ],
)
def test_hosts_of_a_flow_have_the_rules_of_a_lab(hosts: list[str], why: str) -> None:
    """should accept nothing that lab-up would refuse"""
    with pytest.raises(ValidationError, match=why):
        HOSTS.validate_python(hosts)
