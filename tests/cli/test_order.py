"""A command that comes too early says in one sentence which one comes first; none ends in a stack trace."""

import json
from pathlib import Path
from typing import Any

import pytest
from loops import ROUND, assert_one_sentence, rlhf_here, write_loop

from rlhf_dagster.records.round_keys import IMPORT_ROUND

OWN: dict[str, Any] = {"data": {"source": "imports", "test": 0.3}, "label_store": {"simulated_annotators": False}}
PREPARE, OPEN, IMPORT = "rlhf run prepare", "rlhf round open", "rlhf import judgments FILE"
COLLECT, TRAIN = f"rlhf run collect_round --round {ROUND}", f"rlhf run train_round --round {ROUND}"
EARLY = {
    "nothing": {
        "run collect_round": OPEN,
        "run train_round": OPEN,
        "run release_round": OPEN,
        f"run collect_round --round {IMPORT_ROUND}": IMPORT,
        f"run train_round --round {IMPORT_ROUND}": IMPORT,
        "generate hello": PREPARE,
        "generate hello --policy sft": PREPARE,
        "generate hello --policy base": PREPARE,
        "chat": PREPARE,
        "publish --to OUT": PREPARE,
        "promote --reason x": "rlhf run train_round",
        "refuse --reason x": "rlhf run train_round",
        f"promote --reason x --round {ROUND}": TRAIN,
        "export prompts OUT": PREPARE,
        "export demonstrations OUT": PREPARE,
        "export completions OUT": "rlhf run collect_round",
        "export labels OUT": "rlhf run train_round",
        "export preferences OUT": "rlhf run train_round",
        f"label --terminal --round {ROUND}": COLLECT,
    },
    "an open round": {
        "run collect_round": PREPARE,
        "run train_round": PREPARE,
        "run train_round --again": PREPARE,
        "run release_round": PREPARE,
        "annotate": COLLECT,
        "annotate --purpose evaluation": TRAIN,
    },
    "prompts alone": {
        "run collect_round": OPEN,
        f"run collect_round --round {IMPORT_ROUND}": IMPORT,
        "generate hello": PREPARE,
    },
    "imported judgments": {
        f"run collect_round --round {IMPORT_ROUND}": PREPARE,
        f"run train_round --round {IMPORT_ROUND}": PREPARE,
        "run release_round": PREPARE,
    },
}
"""By what there is: commands, and what each says is to be run first."""
LATER = {
    "prepared": {"run train_round": COLLECT, "run release_round": COLLECT, "annotate": COLLECT},
    "unjudged": {
        "run release_round": TRAIN,
        "promote --reason x": "rlhf run train_round",
        "annotate --purpose evaluation": TRAIN,
    },
}
"""By how far a loop has come, with its round open."""


def make(folder: Path, there: str) -> Path:
    loop = write_loop(folder / "loop", **({} if there in ("nothing", "an open round") else OWN))
    rows: dict[str, list[dict[str, Any]]] = {}
    if there == "an open round":
        assert rlhf_here("round", "open", "--loop", loop).returncode == 0
    elif there == "prompts alone":
        rows["prompts"] = [{"prompt": f"we saw film {number} ."} for number in range(40)]
    elif there == "imported judgments":
        rows["judgments"] = [
            {"prompt": f"we saw film {number} .", "responses": ["good", "bad"], "choice": 0} for number in range(40)
        ]
    for kind, records in rows.items():
        (folder / kind).write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        assert rlhf_here("import", kind, folder / kind, "--loop", loop).returncode == 0
    return loop


def run(command: str, loop: Path, folder: Path) -> Any:
    words = [str(folder / "out") if word == "OUT" else word for word in command.split()]
    return rlhf_here(*words, "--loop", loop)


@pytest.mark.parametrize("there", EARLY)
def test_what_comes_too_early_says_what_comes_first(there: str, tmp_path: Path) -> None:
    loop = make(tmp_path, there)
    for command, first in EARLY[there].items():
        # The loop is named, so that what is said can be run as it stands.
        assert_one_sentence(run(command, loop, tmp_path), f"`{first}", f" --loop {loop}`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reached", LATER)
def test_what_skips_a_stage_says_which(reached: str, stages, copy_of, tmp_path: Path) -> None:
    loop = copy_of(getattr(stages, reached)).loop.root
    if reached == "prepared":
        assert rlhf_here("round", "open", "--loop", loop).returncode == 0
    for command, first in LATER[reached].items():
        assert_one_sentence(run(command, loop, tmp_path), f"`{first}", f" --loop {loop}`")


def test_a_round_of_imported_judgments_is_not_opened_where_there_are_none(tmp_path: Path) -> None:
    loop = make(tmp_path, "nothing")
    assert run(f"run collect_round --round {IMPORT_ROUND}", loop, tmp_path).returncode == 2
    assert json.loads(rlhf_here("round", "status", "--json", "--loop", loop).stdout) == []
    assert_one_sentence(run("run collect_round --round 3", loop, tmp_path), "--round 3: the names of rounds are")


def test_looking_is_never_too_early(tmp_path: Path) -> None:
    loop = make(tmp_path, "nothing")
    for words in (["round", "status", "--loop", loop], ["models", loop], ["check", loop], ["check-memory", loop]):
        done = rlhf_here(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    labelled = run("label --terminal", loop, tmp_path)
    assert labelled.returncode == 0
    assert f"What comes next: {PREPARE} --loop {loop}" in labelled.stdout
