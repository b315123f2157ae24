"""deploy/Dockerfile and deploy/project: what the image is made from is there, and its loops load."""

import fnmatch
import re
import tomllib
from pathlib import Path

import dagster as dg
import pytest
from compose_file import DEPLOY

from rlhf_dagster.storage.known import is_remote

ROOT = DEPLOY.parent
# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")
KNOWN = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "USER"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).split("\n")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined)]


def copied() -> list[str]:
    sources = []
    for name, rest in instructions():
        if name == "COPY":
            sources += [part for part in rest.split()[:-1] if not part.startswith("--")]
    return sources


def sent(source: str) -> bool:
    """Whether .dockerignore lets a file through to the build."""
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    through = False
    for pattern in (line for line in patterns if line and not line.startswith("#")):
        wanted = pattern.removeprefix("!")
        if any(fnmatch.fnmatch(part, wanted) for part in (source, *map(str, Path(source).parents))):
            through = pattern.startswith("!")
    return through


def test_its_instructions_are_known_and_its_sources_are_there() -> None:
    assert {name for name, _ in instructions()} == KNOWN
    assert [source for source in copied() if not (ROOT / source).exists() or not sent(source)] == []
    assert not sent("deploy/compose/.env")
    assert not sent(".git/config")


def test_it_has_the_extras_that_the_services_need() -> None:
    (arguments,) = (rest for name, rest in instructions() if name == "ARG")
    extras = set(arguments.removeprefix("EXTRAS=").split(","))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras <= known.keys()
    assert {"deploy", "objects", "postgres", "ui"} <= extras


def test_it_runs_as_nobody_of_importance_and_holds_no_secret() -> None:
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == ["rlhf"]
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


def test_its_project_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(DEPLOY / "project"))
    given = {"RLHF_BUCKET": "ours", "LABEL_STUDIO_URL": "https://labels.example.com", "RLHF_ROOT": str(tmp_path)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    from team_rlhf.definitions import defs

    definitions = defs()
    dg.Definitions.validate_loadable(definitions)
    loop = definitions.resources["loop"]
    assert loop.address == "s3://ours/loops/sentiment"
    assert is_remote(loop.address)
    assert loop.root == tmp_path
    assert loop.config.label_store.url == "https://labels.example.com"
    assert loop.config.ledger == "${RLHF_LEDGER}"
    project = tomllib.loads((DEPLOY / "project" / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"][
        "project"
    ]
    assert project["root_module"] == project["code_location_name"] == "team_rlhf"
    assert definitions.resolve_job_def("train_round").executor_def is dg.in_process_executor
