import json
from pathlib import Path

import pandas as pd
import pytest
from loops import ROUND, asset_path, open_runner, rlhf, rlhf_here, run_missing, write_loop

from rlhf_dagster.cli.start.starters import STARTERS
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.left_out import data_notices, left_out_of_round
from rlhf_dagster.loop.summary import round_rows
from rlhf_dagster.records.round_keys import IMPORT_ROUND


@pytest.mark.parametrize("source", STARTERS)
def test_init_writes_a_commented_config_that_loads(tmp_path, source) -> None:
    folder = tmp_path / "new" / STARTERS[source]["name"]
    result = rlhf_here("init", folder, "--source", source, "--all-settings")
    assert result.returncode == 0, result.stderr
    assert f"rlhf run prepare --loop {folder}" in result.stdout
    assert ("rlhf import" in result.stdout) == (source == "imports")
    assert load_config(folder) == LoopConfig(**STARTERS[source])
    assert (folder / "dagster" / "dagster.yaml").is_file()
    assert "\n# sft:\n" in (folder / "loop.yaml").read_text() or source == "imports"


def test_help_names_every_command() -> None:
    result = rlhf_here("--help")
    assert result.returncode == 0
    for command in ("demo", "init", "ui", "import", "run", "annotate", "round"):
        assert f"\n  {command} " in result.stdout


def test_status_is_the_rounds_as_json(stages) -> None:
    result = rlhf_here("round", "status", "--loop", stages.finished, "--json")
    loop = LoopFolder.open(stages.finished)
    left_out = {"left_out": left_out_of_round(loop, ROUND)}
    assert json.loads(result.stdout) == [row | left_out for row in round_rows(loop, [ROUND])]
    assert result.stderr.splitlines() == data_notices(loop) != []
    text = rlhf("round", "status", "--loop", stages.finished, COLUMNS="80")
    for word in (ROUND, "compared", "reward model", "promoted", "gold judge", "yes"):
        assert word in text.stdout
    assert (text.stderr, max(map(len, text.stdout.splitlines())) <= 80) == ("", True)


def test_status_without_a_round_says_what_to_do(tmp_path) -> None:
    loop = write_loop(tmp_path)
    assert rlhf_here("round", "status", "--loop", loop).stdout == (
        f"No round is open. Next: rlhf round open --loop {loop}\n"
    )
    assert rlhf_here("round", "open", "--loop", loop).stdout.startswith("round-0001 is open.")
    rows = json.loads(rlhf_here("round", "status", "--loop", loop, "--json").stdout)
    assert rows == [
        {"round": "round-0001", "behaviour_policy": None, "comparisons": 0, "labels": 0, "reward_model": None}
        | {"policy": None, "promoted": False, "reasons": [], "report": None}
    ]


def test_run_makes_what_is_missing_and_again_makes_it_again(copy_of, stages) -> None:
    loop = copy_of(stages.finished).loop.root
    nothing = rlhf("run", "train_round", "--loop", loop)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert f"train_round {ROUND}: everything is there" in nothing.stdout
    again = rlhf("run", "train_round", "--loop", loop, "--until", "label_quality", "--again")
    assert (again.returncode, again.stderr) == (0, "")
    made = [line.split()[0] for line in again.stdout.splitlines() if line.startswith("  ")]
    assert made == ["preference_labels", "label_quality"]


def test_people_label_by_hand_and_annotate_stands_in_for_them(copy_of, stages) -> None:
    loop = copy_of(stages.prepared, label_store={"simulated_annotators": False}).loop.root
    assert rlhf_here("round", "open", "--loop", loop).returncode == 0
    assert rlhf("run", "collect_round", "--loop", loop).returncode == 0
    store = LoopFolder.open(loop).label_store
    assert (store.count(ROUND, "train").comparisons, store.count(ROUND, "train").labels) == (40, 0)
    result = rlhf_here("annotate", "--loop", loop, "--annotators", 3)
    assert (result.returncode, result.stderr) == (0, "")
    counts = store.count(ROUND, "train")
    assert counts.labels >= 40
    assert result.stdout.splitlines()[-1] == (
        f"{ROUND}: {counts.usable} usable labels on {counts.labelled} of 40 comparisons."
    )
    again = rlhf_here("annotate", "--loop", loop, "--annotators", 3)
    assert store.count(ROUND, "train") == counts
    assert again.returncode == 0


def records(kind: str) -> list[dict]:
    texts = [f"the plot was {word} ." for word in ("good", "bad", "great", "dull")]
    if kind == "prompts":
        return [{"prompt": f"we saw film {n} .", "user": f"user {n % 9}"} for n in range(60)]
    if kind == "demonstrations":
        return [{"prompt": f"we saw film {n} .", "response": texts[n % 4]} for n in range(60)]
    pair = {"responses": texts[:2], "choice": 0}
    return [
        {"comparison": f"c{n}", "prompt": f"we saw film {n} .", "annotator": f"person {annotator}"} | pair
        for n in range(60)
        for annotator in range(n % 2 + 1)
    ]


def import_records(loop: Path, kind: str, rows: list[dict]) -> list[list[str]]:
    """Import and return the arguments of each `rlhf` command that the import recommends."""
    file = loop / f"{kind}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = rlhf_here("import", kind, file, "--loop", loop)
    assert (result.returncode, result.stderr) == (0, "")
    return [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("  rlhf ")]


def test_imported_judgments_open_their_round_and_later_ones_are_taken_in_again(tmp_path) -> None:
    loop = write_loop(tmp_path, data={"source": "imports", "test": 0.3}, label_store={"simulated_annotators": False})
    assert import_records(loop, "prompts", records("prompts")) == []
    assert json.loads(rlhf_here("round", "status", "--loop", loop, "--json").stdout) == []
    prepare = ["run", "prepare", "--loop", str(loop)]
    collect, train = (
        ["run", job, "--round", IMPORT_ROUND, "--loop", str(loop)] for job in ("collect_round", "train_round")
    )
    judgments = records("judgments")
    assert import_records(loop, "judgments", judgments[:60]) == [prepare, collect, train]
    (row,) = json.loads(rlhf_here("round", "status", "--loop", loop, "--json").stdout)
    assert (row["round"], row["comparisons"], row["labels"]) == (IMPORT_ROUND, 40, 60)

    runner = open_runner(loop)
    assert run_missing(runner, "prepare", until="prompts").success
    assert run_missing(runner, "collect_round", IMPORT_ROUND).success
    assert import_records(loop, "judgments", judgments[:60]) == []
    assert import_records(loop, "judgments", judgments[60:]) == [prepare, [*collect, "--again"], train]
    assert rlhf(*collect, "--again").returncode == 0
    batch = asset_path(LoopFolder.open(loop), "preference_batch", IMPORT_ROUND)
    assert len(pd.read_parquet(batch)) == 60
    assert run_missing(runner, "train_round", IMPORT_ROUND, until="preference_labels").success
    new = [judgments[0] | {"annotator": "somebody else"}]
    assert import_records(loop, "judgments", new) == [prepare, [*collect, "--again"], [*train, "--again"]]


def test_an_import_of_which_nothing_is_kept_opens_no_round(tmp_path) -> None:
    loop = write_loop(tmp_path, data={"source": "imports"}, label_store={"simulated_annotators": False})
    (tmp_path / "judgments.jsonl").write_text("{")
    assert rlhf_here("import", "judgments", tmp_path / "judgments.jsonl", "--loop", loop).returncode == 2
    assert "No round is open" in rlhf_here("round", "status", "--loop", loop).stdout


KINDS = ("prompts", "demonstrations", "judgments")


def test_a_file_is_imported_once_however_often_it_is_given(tmp_path) -> None:
    loop = write_loop(tmp_path / "loop", data={"source": "imports"}, label_store={"simulated_annotators": False})
    for kind in KINDS:
        file = tmp_path / f"{kind}.jsonl"
        file.write_text("\n".join(map(json.dumps, records(kind))), encoding="utf-8")
        n = len(records(kind))
        for added, there in ((n, 0), (0, n)):
            result = rlhf_here("import", kind, file, "--loop", loop, "--json")
            assert result.returncode == 0, result.stderr
            assert json.loads(result.stdout) == {"read": n, "added": added, "already_there": there, "refused": []}


def test_a_loop_out_of_the_environment_is_named(tmp_path, monkeypatch) -> None:
    loop = write_loop(tmp_path / "loop")
    monkeypatch.setenv("RLHF_LOOP", str(loop))
    found = rlhf_here("round", "status")
    assert found.stderr.splitlines()[0] == f"rlhf: the loop {loop}, from RLHF_LOOP."
    assert "from RLHF_LOOP" not in rlhf_here("round", "status", "--loop", loop).stderr
