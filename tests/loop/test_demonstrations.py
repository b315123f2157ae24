import pandas as pd
import pytest
from loops import asset_path, open_runner, run_missing, write_loop

from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.loop.demonstrations import PURPOSE, send_prompts
from rlhf_dagster.loop.labels import read_labels

ROUND = "demonstrations"
PEOPLE = {"simulated_annotators": False}


@pytest.fixture
def asked(tmp_path, base_model_cache):
    """A loop on its own files whose demonstrations are all to be written by people; the prompts are sent."""
    loop = write_loop(
        tmp_path / "loop",
        data={"source": "imports", "demonstrations_to_write": 6, "test": 0.3},
        label_store=PEOPLE,
        name="asked",
    )
    runner = open_runner(loop)
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(40)))
    import_file("prompts", file, runner.loop.store, runner.loop.ledger)
    outcome = run_missing(runner, "prepare", until="demonstrations")
    return runner, outcome


def test_nothing_written_yet_fails_the_asset_with_what_to_do(asked) -> None:
    runner, outcome = asked
    assert (outcome.success, outcome.failed_asset) == (False, "demonstrations")
    assert "None of the 6 demonstrations asked for is written yet" in outcome.failure
    assert len(runner.loop.label_store.comparisons(ROUND, PURPOSE)) == 6


def test_what_people_write_becomes_the_demonstrations(asked) -> None:
    runner, _ = asked
    store = runner.loop.label_store
    first, second, third = store.comparisons(ROUND, PURPOSE).to_dict("records")[:3]
    store.submit_many(
        [
            Submission(first["comparison_id"], "ann", {"text": "a first try"}),
            Submission(first["comparison_id"], "ann", {"text": "the answer"}),
            Submission(second["comparison_id"], "bob", {"text": "another answer"}),
            Submission(third["comparison_id"], "bob", {"txt": "not readable"}),
            Submission(third["comparison_id"], "ann", status="skipped"),
        ]
    )
    assert run_missing(runner, "prepare", until="demonstrations").success
    frame = pd.read_parquet(asset_path(runner.loop, "demonstrations"))
    assert set(frame["source"]) == {"embedded"}
    kept = dict(zip(frame["prompt"], frame["response"], strict=True))
    assert kept == {first["prompt"]: "the answer", second["prompt"]: "another answer"}
    assert read_labels(runner.loop, ROUND, PURPOSE)[1] == 1


def test_only_train_prompts_are_sent_and_once(asked) -> None:
    runner, _ = asked
    prompts = pd.read_parquet(asset_path(runner.loop, "prompts"))
    frame, sent = send_prompts(runner.loop, prompts)
    assert (len(frame), sent) == (6, 0)
    assert set(prompts.set_index("prompt_id").loc[frame["prompt_id"], "split"]) == {"train"}
    assert all(len(responses) == 0 for responses in frame["responses"])


def test_a_loop_that_asks_for_none_sends_none(finished) -> None:
    assert pd.read_parquet(asset_path(finished.loop, "demonstration_batch")).empty
    assert finished.loop.label_store.comparisons(ROUND, PURPOSE).empty
