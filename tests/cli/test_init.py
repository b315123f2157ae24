"""`rlhf init`: what it asks, what it writes, and what it knows before anything is trained."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loops import assert_one_sentence, open_runner, rlhf_here

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.cli.start.new_loop import DATA_QUESTION, MODEL_QUESTION, WHO_QUESTION, DataFile, NewLoop, ask
from rlhf_dagster.cli.start.starters import FEW_KEPT, STARTERS, Starter, for_labels, for_prompts, starter_of
from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.data.import_file import kind_of_file
from rlhf_dagster.records.round_keys import IMPORT_ROUND

ROWS: dict[str, list[dict[str, Any]]] = {
    "prompts": [{"prompt": f"What goes well with dish {n}?", "user": f"u{n % 30}"} for n in range(40)],
    "demonstrations": [{"prompt": f"How is dish {n} made?", "response": "With care."} for n in range(60)],
    "judgments": [
        {
            "prompt": f"What goes well with dish {n % 40}?",
            "responses": ["Bread.", "no"],
            "choice": 0,
            "annotator": "Ada",
        }
        for n in range(100)
    ],
    "feedback": [{"prompt": f"Is dish {n} good?", "response": "Yes.", "label": n % 2 == 0} for n in range(9)],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file of each kind, whose name says nothing."""
    named = {kind: tmp_path / f"{number}.jsonl" for number, kind in enumerate(ROWS)}
    for kind, file in named.items():
        file.write_text("\n".join(map(json.dumps, ROWS[kind])), encoding="utf-8")
    return named


def test_the_kind_of_a_file_is_that_of_its_rows(files: dict[str, Path], tmp_path: Path) -> None:
    assert {kind: kind_of_file(file) for kind, file in files.items()} == {kind: kind for kind in ROWS}
    (tmp_path / "sales.csv").write_text("day,shop\nMonday,4\n")
    refused = rlhf_here("init", tmp_path / "loop", "--data", tmp_path / "sales.csv")
    assert_one_sentence(refused, "its columns (day, shop) are those of no kind of record")
    assert not (tmp_path / "loop").exists()


def test_own_files_become_a_loop_that_can_be_run(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "Our dishes"
    given = [option for kind in ("prompts", "demonstrations", "judgments") for option in ("--data", files[kind])]
    made = rlhf_here("init", folder, *given)
    assert (made.returncode, made.stderr) == (0, "")
    config = load_config(folder)
    assert (config.name, config.data.source, config.label_store.simulated_annotators) == (
        "our_dishes",
        "imports",
        False,
    )
    # 40 prompts are too few for the gate's 50 comparisons, so the test split is as large as it gets.
    assert (config.data.test, config.labeling.overlap, config.labeling.comparisons_per_round) == (0.3, 0, 100)
    assert 0 < config.gate.min_judgments < 20
    # So few labels tell no reward model from guessing.
    assert config.reward_model.accept_chance
    assert "comparisons are kept from training" in (folder / "loop.yaml").read_text(encoding="utf-8")
    assert f"On {config.gate.min_judgments} test prompts a win rate is known to about" in made.stdout
    assert f"{config.gate.min_judgments} test) and " in made.stdout
    runner = open_runner(folder)
    assert open_rounds(runner.instance, runner.loop) == [IMPORT_ROUND]
    commands = [line.split("   ")[0].strip() for line in made.stdout.partition("Next:\n")[2].splitlines()]
    assert commands[:3] == [
        f"rlhf run prepare --loop {shlex.quote(str(folder))}",
        f"rlhf run collect_round --round {IMPORT_ROUND} --loop {shlex.quote(str(folder))}",
        f"rlhf run train_round --round {IMPORT_ROUND} --loop {shlex.quote(str(folder))}",
    ]


def test_the_file_says_what_differs_and_why(files: dict[str, Path], tmp_path: Path) -> None:
    folders = [tmp_path / "short" / "loop", tmp_path / "long" / "loop"]
    for folder, options in zip(folders, ([], ["--all-settings"]), strict=True):
        assert rlhf_here("init", folder, "--data", files["prompts"], *options).returncode == 0
    short, long = ((folder / "loop.yaml").read_text(encoding="utf-8") for folder in folders)
    assert yaml.safe_load(short) == yaml.safe_load(long)
    assert "\n  # > One person alone judges each comparison once.\n  overlap: 0.0\n" in short
    assert (len(short.splitlines()) < 80, "seed" in short, "\n# seed: 0\n" in long) == (True, False, True)


def test_what_data_lack_comes_first(files: dict[str, Path], tmp_path: Path) -> None:
    made = rlhf_here("init", tmp_path / "loop", "--data", files["prompts"])
    first = made.stdout.partition("Next:\n")[2].splitlines()[0]
    assert first.split("   ")[0].strip() == f"rlhf import demonstrations FILE --loop {tmp_path / 'loop'}"


def test_a_file_that_cannot_be_used_leaves_no_loop(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "gold.jsonl").write_text('{"prompt": "p"}\n')
    for name, part in (("absent.jsonl", "no such file"), ("gold=gold.jsonl", "`responses`")):
        kind, _, file = name.rpartition("=")
        refused = rlhf_here("init", tmp_path / "loop", "--data", f"{kind}{'=' if kind else ''}{tmp_path / file}")
        assert_one_sentence(refused, str(tmp_path / file), part)
    both = rlhf_here("init", tmp_path / "loop", "--data", files["prompts"], "--source", "task")
    assert_one_sentence(both, "--source task and --data are two sources")
    assert not (tmp_path / "loop").exists()


@pytest.mark.parametrize(
    ("annotators", "kind", "url"),
    [
        ("page", "embedded", "http://127.0.0.1:8080"),
        ("label_studio", "label_studio", "http://127.0.0.1:8080"),
        ("https://labels.example", "label_studio", "https://labels.example"),
    ],
)
def test_people_label_where_it_is_said(annotators: str, kind: str, url: str, tmp_path: Path) -> None:
    store = LoopConfig(**starter_of(NewLoop(annotators=annotators), tmp_path).settings).label_store
    assert (store.kind, store.url, store.simulated_annotators) == (kind, url, False)


def test_who_can_label(tmp_path: Path) -> None:
    assert_one_sentence(rlhf_here("init", tmp_path / "loop", "--annotators", "crowd"), "choose simulated, page, label")
    simulated = rlhf_here("init", tmp_path / "loop", "--source", "imports", "--annotators", "simulated")
    assert_one_sentence(simulated, "only a task has simulated annotators")
    assert LoopConfig(**starter_of(NewLoop(annotators="simulated"), tmp_path).settings).label_store.simulated_annotators
    assert not (tmp_path / "loop").exists()


def test_wrong_answers_are_asked_for_again(files: dict[str, Path]) -> None:
    prompts, judged = files["prompts"], files["judgments"]
    answers: Iterator[tuple[str, str]] = iter(
        [
            (DATA_QUESTION, "absent.jsonl"), (DATA_QUESTION, "'"), (DATA_QUESTION, f"{prompts} 'gold={judged}'"),
            (MODEL_QUESTION, "gpt2"), (MODEL_QUESTION, ""),
            (WHO_QUESTION, "simulated"), (WHO_QUESTION, ""),
        ]
    )  # fmt: skip
    said: list[str] = []

    def answer(question: str, usual: str) -> str:
        asked, given = next(answers)
        assert question == asked
        return given or usual

    wanted = ask(answer, said.append)
    assert wanted == NewLoop("imports", (DataFile("prompts", prompts), DataFile("gold", judged)), annotators="page")
    assert [sentence.split(":")[0] for sentence in said] == [
        "absent.jsonl", "'", "--model gpt2", "--annotators simulated",
    ]  # fmt: skip


def test_enter_three_times_is_what_nobody_asked_gets(tmp_path: Path) -> None:
    asked = ask(lambda question, usual: usual, print)
    assert starter_of(asked, tmp_path / "sentiment") == starter_of(NewLoop(), tmp_path / "sentiment")
    assert starter_of(NewLoop(), tmp_path / "sentiment").settings == STARTERS["task"]


@pytest.mark.parametrize(
    ("prompts", "share", "least"),
    [(2000, 0.1, 100), (1000, 0.1, 100), (600, 0.2, 100), (400, 0.3, 100), (100, 0.3, 30), (0, 0.1, 100)],
)
def test_the_test_split_is_as_large_as_the_gate_needs_it(prompts: int, share: float, least: int) -> None:
    found = for_prompts(Starter({"data": {"source": "imports"}, "label_store": {"simulated_annotators": False}}),
                        lambda test: round(prompts * test))  # fmt: skip
    config = LoopConfig(**found.settings)
    assert (config.data.test, config.gate.min_judgments) == (share, least)


@pytest.mark.parametrize(("kept", "accepted"), [(0, True), (FEW_KEPT - 1, True), (FEW_KEPT, False)])
def test_few_labels_train_a_policy_too(kept: int, accepted: bool) -> None:
    settings = for_labels(Starter({"reward_model": {"max_tokens": 64}}), kept).settings["reward_model"]
    assert settings == {"max_tokens": 64} | ({"accept_chance": True} if accepted else {})
    # What the docstring of FEW_KEPT says.
    assert wilson(0.7 * FEW_KEPT, FEW_KEPT).low == pytest.approx(0.56, abs=0.005)
    assert wilson(14, 20).low < 0.5


def test_a_gate_that_asks_for_no_win_rate_needs_no_prompts() -> None:
    chosen = Starter({"gate": {"min_win_rate": None}})
    assert for_prompts(chosen, lambda test: 1) == chosen
