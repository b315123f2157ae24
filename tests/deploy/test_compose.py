"""deploy/compose: a valid file whose services find each other and what they need, and show no secret."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml
from compose_file import COMPOSE, DEPLOY, example_variables, raw_compose, services, variables_in
from dagster._cli import cli as dagster_cli
from label_studio import free_port
from object_server import S3Server

from rlhf_dagster.labeling.label_studio.server import SETTINGS, VERSION

PACKAGE = Path(__file__).parents[2] / "rlhf_dagster"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY")
FILES = ["compose.yaml", "compose.gpu.yaml", "compose.ray.yaml"]
OPEN_THE_INSTANCE, LOAD_THE_LOOPS = {"code", "daemon", "web"}, {"code", "daemon"}
READ_BY_LIBRARIES = {
    # By boto3 and obstore.
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"),
    "AWS_ALLOW_HTTP",  # by obstore
    "PGPASSWORD",  # by libpq
}


def schema() -> dict[str, Any]:
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(vendored.read_text(encoding="utf-8"))


def problems(document: dict[str, Any]) -> list[str]:
    checker = jsonschema.validators.validator_for(schema())
    return [error.message for error in checker(schema()).iter_errors(document)]


def filled() -> dict[str, dict[str, Any]]:
    return services({name: value or "given" for name, value in example_variables().items()})


def test_a_service_of_ours_that_is_killed_is_started_again() -> None:
    """Compose starts again what has ended, not what is unhealthy: what it starts must be the one that works."""
    found = filled()
    assert {found[name]["restart"] for name in OPEN_THE_INSTANCE} == {"unless-stopped"}
    program, *words = found["code"]["command"]
    command: Any = dagster_cli
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert (program, command.name) == ("dagster", "grpc")
    assert command.make_context("grpc", list(words)).params["module_name"] == "team_rlhf.definitions"


@pytest.mark.long
def test_the_code_server_has_no_child_without_which_it_would_go_on(tmp_path: Path) -> None:
    code, port = filled()["code"], str(free_port())
    loops = tmp_path / "loops.py"
    loops.write_text("import dagster as dg\n\ndefs = dg.Definitions(assets=[])\n", encoding="utf-8")
    here = {
        "dagster": "-mdagster",
        "0.0.0.0": "127.0.0.1",
        "4000": port,
        "-m": "-f",
        "team_rlhf.definitions": str(loops),
    }
    command = [sys.executable, *(here.get(word, word) for word in code["command"])]
    health = [sys.executable, *(here.get(word, word) for word in code["healthcheck"]["test"][1:])]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        while subprocess.run(health, check=False, capture_output=True).returncode:
            assert server.poll() is None
        assert psutil.Process(server.pid).children() == []
        server.kill()
    assert subprocess.run(health, check=False, capture_output=True).returncode


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_valid(name: str) -> None:
    document = raw_compose(name)
    assert problems(document) == []
    service = next(iter(document["services"].values()))
    service["enviroment"] = {}
    assert any("enviroment" in problem for problem in problems(document))


def test_what_it_names_is_there() -> None:
    document = raw_compose()
    for name, service in document["services"].items():
        assert set(service["networks"]) <= document["networks"].keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (COMPOSE / source).is_file(), (name, source)
        for other, wanted in service.get("depends_on", {}).items():
            checked = "healthcheck" in document["services"][other]
            assert checked or wanted["condition"] != "service_healthy", (name, other)
        if build := service.get("build"):
            assert (COMPOSE / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    gpus = raw_compose("compose.gpu.yaml")["services"].keys()
    assert gpus <= document["services"].keys()


def test_every_address_inside_is_that_of_a_service() -> None:
    """Databases, buckets, the code server and Label Studio are named by their service, with the port that it serves."""
    found = filled()
    given = {name: value for service in found.values() for name, value in service.get("environment", {}).items()}
    workspace = yaml.safe_load((COMPOSE / "workspace.yaml").read_text(encoding="utf-8"))
    (code,) = (entry["grpc_server"] for entry in workspace["load_from"])
    assert (code["host"], str(code["port"])) == (
        "code",
        found["code"]["command"][found["code"]["command"].index("-p") + 1],
    )
    assert code["location_name"] == found["code"]["command"][-1] == "team_rlhf"
    assert given["DAGSTER_PG_HOST"] == given["POSTGRE_HOST"] == "postgres"
    assert given["RLHF_LEDGER"] == "postgresql://ledger@postgres:5432/ledger"
    assert given["AWS_ENDPOINT_URL"] == "http://objects:9000"
    assert given["LABEL_STUDIO_URL"] == given["LABEL_STUDIO_HOST"] == "http://label-studio:8080"
    databases = (COMPOSE / "databases.sql").read_text(encoding="utf-8")
    assert re.findall(r"CREATE DATABASE (\w+) OWNER (\w+)", databases) == [
        (name, name) for name in ("dagster", given["RLHF_LEDGER"].rsplit("/", 1)[1], given["POSTGRE_NAME"])
    ]


def test_ports_are_open_on_this_host_alone() -> None:
    ports = [port for service in raw_compose()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    inside = {name for name, service in raw_compose()["services"].items() if service["networks"] == ["inside"]}
    assert {"postgres", "objects"} <= inside
    assert raw_compose()["networks"]["inside"] == {"internal": True}


def test_secrets_come_from_the_environment_and_stand_nowhere_else() -> None:
    for service in raw_compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) and name not in SETTINGS:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?set it in \.env\}", value), name
            else:
                assert re.fullmatch(r"\$\{[^}]+\}", value) or not SECRET.search(value), name
        shown = {key: value for key, value in service.items() if key != "environment"}
        assert variables_in(shown) in ({}, {"UI_NAME": "-"})
    asked = variables_in([raw_compose(name) for name in FILES])
    example = example_variables()
    assert {name for name, kind in asked.items() if kind == "?"} == {
        name for name, value in example.items() if not value
    }
    assert example.keys() <= asked.keys()


def test_what_is_missing_is_said() -> None:
    asked = variables_in(raw_compose())
    for name in (name for name, value in example_variables().items() if not value and name in asked):
        given = {other: value or "given" for other, value in example_variables().items()} | {name: ""}
        with pytest.raises(KeyError, match=name):
            services(given)


def test_services_are_given_what_is_read_and_nothing_else() -> None:
    of_the_instance = set(re.findall(r"env: (\w+)", (DEPLOY / "postgres" / "dagster.yaml").read_text(encoding="utf-8")))
    loops = (DEPLOY / "project" / "team_rlhf" / "defs" / "sentiment" / "defs.yaml").read_text(encoding="utf-8")
    of_the_loops = set(re.findall(r"env\.(\w+)|\$\{(\w+)\}", loops))
    of_the_loops = {one or other for one, other in of_the_loops} | {"LABEL_STUDIO_API_KEY"}
    assert "LABEL_STUDIO_API_KEY" in read_in_the_package()
    for name, service in filled().items():
        if service.get("image") != "rlhf-dagster":
            continue
        given = service["environment"].keys()
        if name in OPEN_THE_INSTANCE:
            assert of_the_instance <= given, name
        if name in LOAD_THE_LOOPS:
            assert of_the_loops | {"PGPASSWORD"} <= given, name
        assert given <= of_the_instance | of_the_loops | READ_BY_LIBRARIES | read_in_the_package(), name


def test_the_image_sets_what_the_package_reads() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    block = re.search(r"^ENV ((?:.*\\\n)*.*)$", dockerfile, re.MULTILINE)
    assert block
    names = set(re.findall(r"(\w+)=", block[1]))
    assert names - {"PYTHONUNBUFFERED"} <= read_in_the_package()
    assert {"DAGSTER_HOME", "RLHF_ROOT", "RLHF_CACHE"} <= names


def test_label_studio_is_set_up_as_the_loop_s_own() -> None:
    service = filled()["label-studio"]
    assert service["environment"].items() >= SETTINGS.items()
    assert service["image"] == f"heartexlabs/label-studio:{VERSION}"


def test_the_bucket_is_made_once(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("RLHF_BUCKET", "made-by-compose")
    for _ in range(2):
        runpy.run_path(str(COMPOSE / "make_bucket.py"), run_name="__main__")
    names = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert names.count("made-by-compose") == 1


def read_in_the_package() -> set[str]:
    """Strings of the package that look like names of variables."""
    texts = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    constants = (node.value for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return {
        value for value in constants if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", value)
    }
