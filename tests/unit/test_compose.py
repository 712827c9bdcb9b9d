"""The compose files against what the commands, the settings and the servers of the tests really take.

No Docker engine is asked: what only an engine can tell is not tested here.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.bin.worker import worker as celery_worker
from flower.options import options as flower_options

from jobrunner.cli import cli
from jobrunner.embedded import broker
from jobrunner.settings import Settings

ROOT = Path(__file__).parents[2]
BASE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
RABBITMQ: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.rabbitmq.yml").read_text())
ENVIRONMENT = re.compile(r"\$\{(\w+)(:\?|:-)([^}]*)\}")


def services(*files: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for file in files:
        yield from file["services"].items()


ALL = list(services(BASE, RABBITMQ))
#: Those that are defined whole, and not only overridden.
WHOLE = [(name, service) for name, service in ALL if "image" in service]
OURS = [(name, service) for name, service in WHOLE if "build" in service]
STEADY = [(name, service) for name, service in WHOLE if service["restart"] != "no"]


def parametrize(found: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    return pytest.mark.parametrize("service", [one for _, one in found], ids=[name for name, _ in found])


# ---- commands ----------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command as click does, without running it; its name, and the values of its parameters."""
    command: click.Command = cli
    context = click.Context(cli, info_name="jobrunner", **cli.context_settings)
    rest = list(arguments)
    while isinstance(command, click.Group):
        name, chosen, rest = command.resolve_command(context, rest)
        assert chosen is not None
        command = chosen
        context = click.Context(chosen, info_name=name, parent=context, **chosen.context_settings)
    found, left, _ = command.make_parser(context).parse_args(rest)
    assert left == []
    values = {name: value for name, value in found.items() if isinstance(value, (str, bool, list, tuple))}  # given
    typed = {
        str(one.name): one.type_cast_value(context, values[one.name]) for one in command.params if one.name in values
    }
    return context.command_path, {"options": (), **typed}


@parametrize(OURS)
def test_every_command_is_one_of_ours_with_options_that_it_takes(service: Mapping[str, Any]) -> None:
    path, values = parse(service["command"])
    if path == "jobrunner worker":
        celery_worker.make_parser(click.Context(celery_worker)).parse_args(list(values["options"]))
    elif path == "jobrunner flower":
        names = [one.removeprefix("--").partition("=")[0] for one in values["options"]]
        assert [name for name in names if name not in flower_options] == []


@pytest.mark.parametrize("page", ["README.md", "docs/docker.md"])
def test_every_command_that_the_documentation_runs_in_a_container_is_one(page: str) -> None:
    lines = re.findall(r"^docker compose run --rm (\S+) (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert lines
    for service, arguments in lines:
        assert BASE["services"][service]["profiles"] == ["cli"]
        parse(arguments.split())


def test_a_command_that_is_none_or_takes_no_such_option_would_be_noticed() -> None:
    for wrong in (["trackr"], ["tracker", "--chek"], ["db", "upgrade", "--now"], ["flower", "--port", "many"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


def test_each_role_is_there_and_two_trackers() -> None:
    commands = {name: parse(service["command"])[0].removeprefix("jobrunner ") for name, service in OURS}
    assert commands == {
        "upgrade": "db upgrade",
        "tracker": "tracker",
        "tracker-standby": "tracker",
        "worker": "worker",
        "flower": "flower",
        "cli": "list",
    }


def test_the_broker_keeps_what_it_was_given_as_the_embedded_one_does(tmp_path: Path) -> None:
    ours, theirs = broker.command(tmp_path)[1:], BASE["services"]["redis"]["command"][1:]
    embedded, composed = (dict(zip(one[::2], one[1::2], strict=True)) for one in (ours, theirs))
    assert composed == {name: embedded[name] for name in composed}
    assert (composed["--appendonly"], composed["--maxmemory-policy"]) == ("yes", "noeviction")


# ---- settings ----------------------------------------------------------------------------------------------


@parametrize(ALL)
def test_every_variable_of_ours_is_a_setting_that_is_read(service: Mapping[str, Any]) -> None:
    known = {f"JOBRUNNER_{one.name.upper()}" for one in dataclasses.fields(Settings)}
    used = {name for name in service.get("environment", {}) if name.startswith("JOBRUNNER_")}
    assert used <= known


def test_only_those_that_run_user_code_name_it_and_workers_hold_no_password_of_the_database() -> None:
    environments = {name: set(service["environment"]) for name, service in OURS}
    assert {name for name, found in environments.items() if "JOBRUNNER_APP" in found} == {"worker", "cli"}
    with_database = {name for name, found in environments.items() if "PGPASSWORD" in found}
    assert with_database == {"upgrade", "tracker", "tracker-standby", "cli"}


def test_with_rabbitmq_everybody_who_had_the_broker_gets_the_other_one_and_waits_for_it() -> None:
    override = RABBITMQ["services"]
    users = {name for name, one in BASE["services"].items() if "JOBRUNNER_BROKER" in one.get("environment", {})}
    assert users == set(override) - {"rabbitmq"}
    for name in users:
        assert override[name]["environment"]["JOBRUNNER_BROKER"].startswith("amqp://")
        assert "JOBRUNNER_RESULT_BACKEND" not in override[name]["environment"]
        assert override[name]["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}


@parametrize(ALL)
def test_no_secret_is_written_down(service: Mapping[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        secrets = re.findall(r"//[^/:@]+:(.+)@", value)
        if re.search(r"PASS|SECRET|TOKEN|KEY", name):
            secrets.append(value)
        for secret in secrets:
            found = ENVIRONMENT.fullmatch(secret)
            assert found, f"{name} holds a secret"
            assert found[2] == ":?", f"{name} has a default"
            assert ".env.example" in found[3], f"{name} does not say what to do"


def test_the_example_of_the_environment_names_what_must_be_set_and_sets_nothing() -> None:
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "docker-compose.rabbitmq.yml"))
    required = {name for name, kind, _ in ENVIRONMENT.findall(text) if kind == ":?"}
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given == dict.fromkeys(required, "")
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


# ---- running -----------------------------------------------------------------------------------------------


@parametrize(STEADY)
def test_what_runs_on_has_a_health_check_and_comes_back(service: Mapping[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    kind, *check = service["healthcheck"]["test"]
    assert kind in {"CMD", "CMD-SHELL"}
    if check[0] == "jobrunner":
        assert parse(check[1:])[0] == "jobrunner tracker"


def test_what_runs_once_is_not_started_again() -> None:
    assert {name for name, service in WHOLE if service not in [one for _, one in STEADY]} == {"upgrade", "cli"}


@parametrize(ALL)
def test_every_port_is_published_on_loopback_only(service: Mapping[str, Any]) -> None:
    assert [port for port in service.get("ports", []) if not str(port).startswith("127.0.0.1:")] == []


def test_flower_listens_where_its_port_and_its_health_check_are() -> None:
    service = BASE["services"]["flower"]
    _, values = parse(service["command"])
    assert (values["address"], values["port"]) == (("0.0.0.0",), (5555,))  # noqa: S104  of a container
    assert service["ports"] == ["127.0.0.1:5555:5555"]
    assert "127.0.0.1:5555/healthcheck" in service["healthcheck"]["test"][-1]


@parametrize(ALL)
def test_everybody_waits_for_those_they_need(service: Mapping[str, Any]) -> None:
    both = dict(services(BASE, RABBITMQ))
    for name, how in service.get("depends_on", {}).items():
        once = both[name].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


@parametrize(WHOLE)
def test_images_are_pinned_to_a_major_version_or_built_here(service: Mapping[str, Any]) -> None:
    name, _, tag = service["image"].partition(":")
    assert (name, tag) == ("jobrunner", "local") if "build" in service else re.fullmatch(r"\d+(-[a-z]+)?", tag)


@parametrize(WHOLE)
def test_every_volume_is_declared_and_named(service: Mapping[str, Any]) -> None:
    declared = {**BASE["volumes"], **RABBITMQ["volumes"]}
    assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(declared)


# ---- the image ---------------------------------------------------------------------------------------------


def test_the_image_is_slim_and_runs_as_somebody_else_than_root() -> None:
    steps = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isupper()]
    assert steps[0] == ["FROM", "python:3.13-slim"]
    names = [name for name, _ in steps]
    assert dict(steps)["USER"] == "jobrunner"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert dict(steps)["ENTRYPOINT"] == '["jobrunner"]'


def test_the_image_installs_extras_that_exist_and_copies_what_is_sent_to_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = re.search(r'"\.\[([\w,]+)\]"', dockerfile)
    assert extras
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for name in line.split()}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == sent
    assert [name for name in copied if not (ROOT / name).exists()] == []
