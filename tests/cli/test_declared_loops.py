"""Commands reach the loops that a Dagster project declares as components, on the instance that is configured."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from loops import ROUND, Stages, assert_one_sentence, copy_folder, rlhf, rlhf_here, small
from team_project import write_project

from rlhf_dagster.cli.which_loop import find_declared
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.loop_names import LOOP_TAG

# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


@pytest.fixture
def project(tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A team's project with two loops, of which `support` is prepared, and the team's instance."""
    copy_folder(stages.prepared, tmp_path / "files" / "support", "dagster")
    loops = {
        name: {**small(name=name), "key_prefix": f"nlp/{name}", "root": str(tmp_path / "files" / name)}
        for name in ("support", "search")
    }
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("RLHF_LOOP", raising=False)
    yield write_project(tmp_path / "project", f"team_{tmp_path.name}".replace("-", "_"), loops)


def test_a_round_is_run_on_the_team_s_instance_from_the_terminal(project: Path) -> None:
    where = ("--loop", "support", "--project", project)
    opened = rlhf("round", "open", *where)
    assert opened.stdout == f"{ROUND} is open. Next: rlhf run collect_round --loop nlp/support --project {project}\n"
    run = rlhf("run", "collect_round", *where, "--until", "completions", "--again")
    assert run.returncode == 0, run.stderr
    assert "  completions  " in run.stdout
    with dg.DagsterInstance.get() as instance:
        assert instance.get_dynamic_partitions("nlp__support__rounds") == [ROUND]
        (done,) = instance.get_runs()
        assert (done.job_name, done.tags[LOOP_TAG]) == ("nlp__support__collect_round", "nlp/support")
        assert done.tags[".dagster/repository"] == f"__repository__@{project.name}"
        assert instance.get_latest_materialization_event(dg.AssetKey(["nlp", "support", "completions"]))
    (row,) = json.loads(rlhf_here("round", "status", *where, "--json").stdout)
    assert (row["round"], row["comparisons"]) == (ROUND, 0)
    assert json.loads(rlhf_here("round", "status", "--loop", "search", "--project", project, "--json").stdout) == []
    assert not (project.parent / "files" / "support" / "dagster").exists()


def test_within_the_project_its_name_is_enough(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    unknown = rlhf_here("round", "status", "--loop", "sales")
    assert_one_sentence(unknown, "sales/loop.yaml: no such file, and ", "declares no loop called sales")
    said = rlhf_here("round", "status", "--loop", "search")
    assert said.stdout.split() == ["No", "round", "is", "open.", "Next:", *said.stdout.split()[5:]]
    assert said.stdout.endswith(f"rlhf round open --loop nlp/search --project {project}\n")


def test_a_loop_is_stopped_and_goes_on_by_its_name(project: Path) -> None:
    where = ("--loop", "nlp/support", "--project", project, "--by", "ada")
    assert rlhf_here("stop", "wrong labels", *where).returncode == 0
    assert find_declared("support", project).store.exists("STOP")
    assert rlhf_here("resume", *where).returncode == 0


def test_what_cannot_be_reached_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = rlhf_here("round", "status", "--loop", "sales", "--project", project)
    assert_one_sentence(unknown, "declares no loop called sales; it declares nlp/search, nlp/support.")
    no_project = rlhf_here("round", "status", "--loop", "sales", "--project", project.parent)
    assert_one_sentence(no_project, f"{project.parent} is no Dagster project")
    served = rlhf_here("ui", "--loop", "search", "--project", project)
    assert_one_sentence(served, "`dg dev` serves the loops of a project")
    monkeypatch.delenv("DAGSTER_HOME")
    no_home = rlhf_here("round", "status", "--loop", "search", "--project", project)
    assert_one_sentence(no_home, "DAGSTER_HOME is not set")


def test_a_project_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    project = write_project(tmp_path, "broken_project", {"mine": {"name": "mine", "sead": 1}})
    with pytest.raises(UserError, match=r"cannot be loaded .*`dg check defs` says more"):
        find_declared("mine", project)


def test_names_that_two_loops_share_need_the_prefix(tmp_path: Path) -> None:
    loops = {name: {"name": "same", "key_prefix": name, "root": f"files/{name}"} for name in ("one", "two")}
    project = write_project(tmp_path, "same_names", loops)
    with pytest.raises(UserError, match="several loops called same"):
        find_declared("same", project)
    found = find_declared("two", project)
    assert (found.names.prefix, found.root) == (("two",), project / "files" / "two")
    assert found.definitions().resources["two__loop"].root == found.root
