"""docs/data.md: its commands, as they stand there, lead from three files to a first report, and to a next round."""

import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from loops import ROUND, SMALL, asset_path, rlhf, rlhf_here

from rlhf_dagster.cli.start.starters import FEW_KEPT
from rlhf_dagster.config.base import overlaid
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import kept_from_training
from rlhf_dagster.records.round_keys import IMPORT_ROUND

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
TINY = {
    "base_model": {"tiny": {"layers": 1, "width": 32, "heads": 2, "steps": 30, "vocabulary": 300}},
    "sampling": {"response_tokens": 12},
    "reward_model": {name: value for name, value in SMALL["reward_model"].items() if name != "accept_chance"},
    **{section: SMALL[section] for section in ("sft", "ppo", "gate", "compute")},
}
"""Settings that make the page's loop small. A gate that every policy passes, so that both judgments are asked for;
whether so few labels are enough for a policy is left to what the page's first command writes."""
FIRST = 4
"""Commands up to the first report."""
ANSWERS = {"good": "the plot was good .", "bad": "the plot was bad ."}


def commands() -> list[list[str]]:
    """The words of the page's commands from its first heading up to what comes after the next round, as it has them."""
    part = PAGE[PAGE.index("## From your files") : PAGE.index("## More data")]
    blocks = re.findall(r"^```bash\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def write_files(folder: Path) -> None:
    """As many as the page says, on films of which everybody prefers the good."""
    asked = [f"we saw film {number} with friend {number % 7} ." for number in range(96)]
    both = list(ANSWERS.values())
    files = {
        "prompts": [{"prompt": prompt} for prompt in asked[:40]],
        "demonstrations": [{"prompt": prompt, "response": both[n % 2]} for n, prompt in enumerate(asked[36:])],
        "comparisons": [
            {"prompt": asked[n % 40], "responses": both, "choice": 0, "annotator": f"person {n % 3}"}
            for n in range(100)
        ],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def follow(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Do what a line of the page says; questions are asked in the terminal, and answered with the first."""
    assert words[0] == "rlhf"
    if words[1] != "label":
        done = rlhf(*words[1:])
    else:
        monkeypatch.setattr("sys.stdin", io.StringIO("1\na\n" * 500))
        done = rlhf_here(*words[1:], "--terminal", "--by", "Ada")
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


@pytest.fixture
def page_loop(tmp_path: Path, base_model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> LoopFolder:
    """The loop of the page after its first command, made small."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    follow(commands()[0], monkeypatch)
    file = tmp_path / "my_loop" / CONFIG_FILE
    file.write_text(yaml.safe_dump(overlaid(yaml.safe_load(file.read_text("utf-8")), TINY)), encoding="utf-8")
    return LoopFolder.open(file.parent)


def test_the_page_leads_from_files_to_a_report(page_loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(commands()) <= 10
    *_, last = [follow(words, monkeypatch) for words in commands()[1:FIRST]]
    report = asset_path(page_loop, "eval_report", IMPORT_ROUND, "html")
    assert f"Report of {IMPORT_ROUND}: {report}\n" in last
    assert report.is_file()
    snapshot, prompts = page_loop.table("preference_dataset", IMPORT_ROUND), page_loop.table("prompts")
    assert snapshot is not None
    assert prompts is not None
    held_out = set(prompts.loc[prompts["split"] == "test", "prompt_id"])
    assert held_out
    assert not held_out & set(snapshot["prompt_id"])
    kept = snapshot.loc[snapshot["split"] != "train", "comparison_id"].nunique()
    assert kept_from_training(page_loop, prompts) == kept < FEW_KEPT


@pytest.mark.long
def test_the_page_leads_on_to_a_round_that_was_judged(page_loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in commands()[1:]:
        follow(words, monkeypatch)
    assert page_loop.ledger.count(ROUND, "train").usable > 0
    assert page_loop.ledger.count(ROUND, "evaluation").usable > 0
    assert page_loop.decision(ROUND) is not None
