"""`rlhf replicate`: what is said before anything runs, the page and the numbers at the end, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from loops import assert_one_sentence, rlhf_here
from smoke_claim import FREE, PLAIN, Smoke

from rlhf_dagster.cli.replication import command
from rlhf_dagster.replication import known
from rlhf_dagster.replication.judging import Replication, record_of
from rlhf_dagster.replication.records import read_replication
from rlhf_dagster.replication.running import costs
from rlhf_dagster.replication.running.plan import make_plan


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    """One claim is known, and the machine is as fast as it is."""
    claims = [Smoke(PLAIN, FREE)]
    monkeypatch.setattr(known, "CLAIMS", claims)
    monkeypatch.setattr(command, "CLAIMS", claims)
    monkeypatch.setattr(command, "measure_speed", lambda: 1.0)


def test_an_unknown_claim_is_one_sentence(smoke: None, tmp_path: Path) -> None:
    assert_one_sentence(
        rlhf_here("replicate", "C0", "C99", "--out", tmp_path / "out"), "There is no claim C99; choose among C0."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("--seeds", "0"), ("--jobs", "0"), ("--seeds", "-1")])
def test_a_number_that_makes_no_sense_is_one_sentence(smoke: None, tmp_path: Path, option: str, value: str) -> None:
    assert_one_sentence(rlhf_here("replicate", option, value, "--out", tmp_path / "out"), f"{option} {value}")


def test_a_folder_of_something_else_is_left_alone(smoke: None, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert_one_sentence(rlhf_here("replicate", "--out", tmp_path), "is no replication's folder")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_claims_are_listed(smoke: None) -> None:
    listed = rlhf_here("replicate", "--list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "C0" in listed.stdout
    assert "Two loops run" in listed.stdout
    assert json.loads(rlhf_here("replicate", "--list", "--json").stdout)[0]["name"] == "C0"


def test_a_dry_run_says_what_it_costs_and_writes_nothing(smoke: None, tmp_path: Path) -> None:
    said = rlhf_here("replicate", "--dry-run", "--seeds", "2", "--jobs", "2", "--out", tmp_path / "out")
    assert (said.returncode, said.stderr) == (0, "")
    assert "C0 (quick, seeds 0 to 1)" in said.stdout
    assert "4 loops, 0 done before" in said.stdout
    assert "begins as plain up to reward_model_accuracy" in said.stdout
    assert not (tmp_path / "out").exists()


def test_settings_are_chosen_on_seeds_that_are_not_reported(smoke: None, tmp_path: Path) -> None:
    said = rlhf_here("replicate", "--dry-run", "--full", "--pilot", "--out", tmp_path / "out")
    assert "C0 (full, seeds 100 to 104)" in said.stdout


def test_the_full_size_takes_more_seeds_of_a_claim_that_asks_for_them(smoke: None, tmp_path: Path) -> None:
    said = rlhf_here("replicate", "--dry-run", "--full", "--seeds", "2", "--out", tmp_path / "out")
    assert "C0 (full, seeds 0 to 1)" in said.stdout
    assert "seeds 0 to 5 for C0" in said.stdout
    assert "12 loops, 0 done before" in said.stdout


def test_seeds_on_which_settings_are_chosen_are_refused_before_anything_runs(smoke: None, tmp_path: Path) -> None:
    asked = ("replicate", "--full", "--dry-run", "--out", tmp_path / "out", "--seeds")
    assert_one_sentence(rlhf_here(*asked, "34"), "--seeds 34: C0 would have seeds up to 101")
    assert rlhf_here(*asked, "33").returncode == 0


def test_a_claim_is_judged_on_all_of_its_seeds(tmp_path: Path) -> None:
    several, one = Smoke(PLAIN), Smoke(FREE)
    one.name, one.seeds_for_one = "C1", 1
    asked = Replication([several, one], "full", range(2), tmp_path)
    assert [(claim.name, seed) for claim, seed in asked.cells()] == [
        ("C0", 0),
        ("C1", 0),
        ("C0", 1),
        ("C1", 1),
        *(("C0", seed) for seed in (2, 3, 4, 5)),
    ]
    record = record_of(asked, make_plan(asked.cells(), "full", tmp_path, asked.claims), {})
    assert [claim.seeds for claim in record.claims] == [[0, 1, 2, 3, 4, 5], [0, 1]]
    assert record.seeds == [0, 1]


def test_the_speed_of_this_machine_is_a_number() -> None:
    assert costs.measure_speed(0.0) > 0


def test_the_page_and_the_numbers_of_finished_loops(smoke: None, begun: tuple[Any, Any]) -> None:
    out: Path = begun[0].out
    first = rlhf_here("replicate", "--out", out)
    assert (first.returncode, first.stderr) == (0, "")
    assert "2 loops, 2 done before" in first.stdout
    assert "reproduced" in first.stdout
    numbers = read_replication(out)
    claim = numbers["claims"][0]
    assert (numbers["size"], numbers["seeds"], claim["verdict"]) == ("quick", [0], "reproduced")
    assert [variant["name"] for variant in claim["variants"]] == ["plain", "free"]
    assert all((out / variant["folder"] / "loop.yaml").is_file() for variant in claim["variants"])
    assert claim["variants"][0]["seconds"]["ppo_policy"] > 0
    assert claim["summary"] in (out / "replication.html").read_text(encoding="utf-8")
    again = json.loads(rlhf_here("replicate", "--out", out, "--json").stdout)
    assert again["claims"] == numbers["claims"]
