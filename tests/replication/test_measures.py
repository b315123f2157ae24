"""Readers of finished variants, on loops whose tables are written by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from label_tables import tables
from loops import write_loop
from rounds_on_disk import key, rate, store

from rlhf_dagster.common.intervals import Rate, mean_interval, wilson
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.replication.measures.answers import answers_of, given_answers, on_same_prompts, text_rate
from rlhf_dagster.replication.measures.labels import agreement, clear_share, undecided_share, votes
from rlhf_dagster.replication.measures.other_people import agreement_with
from rlhf_dagster.replication.measures.overlap import rouge_average
from rlhf_dagster.replication.measures.preferences import annotator_wins, gold_win_rate, gold_wins, share_of_wins
from rlhf_dagster.replication.measures.reports import accuracy_by, accuracy_of, tax_of
from rlhf_dagster.replication.measures.truth import covered_shares
from rlhf_dagster.tasks.summaries import SUMMARIES

OWN_TASK = """
from rlhf_dagster.tasks.base import Judgment, Truthfulness
from rlhf_dagster.tasks.sentiment import TASK as sentiment

class LikesLength:
    name = "sure-01"

    def __init__(self, sign):
        self.sign = sign

    def judge(self, prompt, responses, kind, key):
        one, other = (self.sign * len(text) for text in responses)
        return Judgment([1, 2] if one > other else [2, 1], 1.0)

class Good:
    annotator_kinds = ("longer", "shorter")

    def __getattr__(self, name):
        return getattr(sentiment, name)

    def gold_score(self, prompt, response):
        return float(response.count("good"))

    def annotators(self, seed):
        return self.annotators_of_kind("longer", seed)

    def annotators_of_kind(self, kind, seed):
        return [LikesLength(1 if kind == "longer" else -1)]

    def truthfulness(self, prompt, response):
        return Truthfulness(2, 1, response.count("bad"))

TASK = Good()
"""
OTHER = "other"


@pytest.fixture
def loop_of(tmp_path) -> Callable[..., LoopFolder]:
    def opened(name: str = "loop") -> LoopFolder:
        folder = write_loop(tmp_path / name, data={"task": "own.py:TASK"})
        (folder / "own.py").write_text(OWN_TASK, encoding="utf-8")
        return LoopFolder.open(folder)

    return opened


def put(loop: LoopFolder, asset: str, round_key: str, frame: pd.DataFrame) -> None:
    loop.store.put(loop.asset_key(asset, round_key), to_parquet(pa.Table.from_pandas(frame)))


def responses(role: str, texts: Sequence[str], nats: float = 0.0) -> pd.DataFrame:
    """One response for each prompt, in falling order of their ids; each is ``nats`` likelier than under SFT."""
    rows = [
        {
            "prompt_id": f"p{index}",
            "prompt": f"prompt {index}",
            "role": role,
            "policy_id": f"{role}-round-0001",
            "completion_id": f"c{index}",
            "text": text,
            "log_probs": [-1.0, -1.0],
            "reference_log_probs": [-1.0, -1.0 - nats],
        }
        for index, text in enumerate(texts)
    ]
    return pd.DataFrame(rows[::-1])


def evaluated(loop: LoopFolder, number: int, **texts: Sequence[str]) -> LoopFolder:
    frames = [responses(role, given, nats=2.0 * (role == "policy")) for role, given in texts.items()]
    put(loop, "evaluation_completions", key(number), pd.concat(frames))
    return loop


def test_the_latest_evaluation_is_read_in_the_order_of_its_prompts(loop_of) -> None:
    loop = evaluated(loop_of(), 1, policy=["bad"], sft=["bad"])
    evaluated(loop, 2, policy=["good good", "", "good"], sft=["", "good", ""])
    policy, sft = answers_of(loop), answers_of(loop, "sft")
    assert (policy.gold.tolist(), sft.gold.tolist()) == ([2, 0, 1], [0, 1, 0])
    assert answers_of(loop, round_key=key(1)).gold.tolist() == [0]
    assert policy.mean_gold() == mean_interval([2, 0, 1])
    assert (policy.kl().value, sft.kl().value, len(policy)) == (2.0, 0.0, 3)
    assert text_rate(policy.words(), "truthfulness", "covered").value == 0.5
    assert np.isnan(text_rate(policy.words(), "rouge", "rougeL").value)


def test_two_loops_are_compared_on_the_prompts_of_both(loop_of) -> None:
    one = answers_of(evaluated(loop_of(), 1, policy=["good", "good", "bad", "good good"]))
    other = answers_of(evaluated(loop_of(OTHER), 1, policy=["good", "bad", "good"]))
    assert gold_wins(one, other).tolist() == [0.5, 1.0, 0.0]
    assert gold_wins(other, one).tolist() == [0.5, 0.0, 1.0]
    won = gold_win_rate(one, other, "other")
    assert (won.wins, won.ties, won.losses, won.against) == (1, 1, 1, "other")
    assert share_of_wins(gold_wins(one, other)) == wilson(1.5, 3)
    assert [len(both) for both in on_same_prompts(one, other)] == [3, 3]


def test_prompts_that_differ_are_refused(loop_of) -> None:
    one = answers_of(evaluated(loop_of(), 1, policy=["good"]))
    strange = given_answers(one.loop, [{"prompt_id": "x", "prompt": "another", "text": "good"}])
    with pytest.raises(UserError, match="no test prompt is answered in all"):
        gold_wins(one, strange)


def test_annotators_of_a_kind_judge_without_seeing_whose_response_it_is(loop_of) -> None:
    one = answers_of(evaluated(loop_of(), 1, policy=["a", "long long", "same", "a b c d"] * 6))
    other = answers_of(evaluated(loop_of(OTHER), 1, policy=["longer", "x", "same", "a"] * 6))
    assert annotator_wins(one, other).tolist() == _by_id([0.0, 1.0, 0.5, 1.0] * 6)
    assert annotator_wins(one, other, "shorter").tolist() == _by_id([1.0, 0.0, 0.5, 0.0] * 6)
    with pytest.raises(UserError, match="no annotators of the kind"):
        annotator_wins(one, other, "younger")


def _by_id(values: list[float]) -> list[float]:
    """By prompts ``p0`` and so on, in the order of their names."""
    return [values[index] for index in sorted(range(len(values)), key=lambda index: f"p{index}")]


def test_responses_of_a_probe_have_no_kl(loop_of) -> None:
    found = given_answers(loop_of(), [{"prompt_id": "p0", "prompt": "p", "text": "good"}])
    assert found.gold.tolist() == [1]
    with pytest.raises(UserError, match="probabilities of these responses are not known"):
        found.kl()
    with pytest.raises(UserError, match="no responses of a probe"):
        given_answers(loop_of(), [])


@pytest.mark.parametrize(
    ("read", "lacks"),
    [
        (answers_of, "the loop has no evaluation_completions"),
        (accuracy_of, "the loop has no reward_model_accuracy"),
        (tax_of, "the loop has no eval_report"),
        (agreement, "the loop has no label_quality"),
        (lambda loop: votes(loop, key(1)), "round-0001 has no preference_batch"),
    ],
)
def test_what_is_not_there_yet_is_one_sentence(loop_of, read: Callable[[LoopFolder], Any], lacks: str) -> None:
    with pytest.raises(UserError, match=lacks):
        read(loop_of())


def test_a_role_that_nobody_sampled(loop_of) -> None:
    with pytest.raises(UserError, match="no responses of dpo in the latest round"):
        answers_of(evaluated(loop_of(), 1, policy=["good"]), "dpo")


def test_a_prompt_answered_twice_is_refused(loop_of) -> None:
    loop = loop_of()
    put(loop, "evaluation_completions", key(1), pd.concat([responses("policy", ["good"])] * 2))
    with pytest.raises(UserError, match="answers a prompt more than once"):
        answers_of(loop)


def labelled(loop: LoopFolder, judgments: list[tuple], texts: Sequence[str], strengths: Sequence[Any]) -> LoopFolder:
    labels, batch = tables(judgments, k=len(texts))
    batch["role"], batch["prompt"] = "label", "prompt"
    batch["responses"] = [list(texts)] * len(batch)
    put(loop, "preference_labels", key(1), labels.assign(strength=strengths))
    put(loop, "preference_batch", key(1), batch)
    return loop


def test_ties_and_clear_preferences_are_shares_of_all_labels(loop_of) -> None:
    judgments = [("a", "ann", 0, 1.0), ("b", "ann", (0, 1), 1.0), ("c", "bob", None, 1.0), ("d", "bob", 1, 1.0)]
    loop = labelled(loop_of(), judgments, ["good", "bad"], [1.0, None, None, 0.5])
    assert undecided_share(loop, key(1)) == wilson(2, 4)
    assert clear_share(loop, key(1)) == wilson(1, 4)
    assert clear_share(loop, key(1), least=0.5) == wilson(2, 4)


def test_the_mode_of_three_is_right_where_two_of_them_are(loop_of) -> None:
    two_right = [("a", "ann", 0, 1.0), ("a", "bob", 1, 1.0), ("a", "cat", 0, 1.0)]
    one_right = [("b", "ann", 1, 1.0), ("b", "bob", 0, 1.0), ("b", "cat", 1, 1.0), ("b", "dan", 0, 1.0)]
    undecided = [("c", "ann", (0, 1), 1.0), ("c", "bob", (0, 1), 1.0), ("c", "cat", (0, 1), 1.0)]
    too_few = [("d", "ann", 1, 1.0), ("d", "bob", None, 1.0), ("d", "cat", 1, 1.0)]
    judgments = two_right + one_right + undecided + too_few
    found = votes(labelled(loop_of(), judgments, ["good", "bad"], [None] * len(judgments)), key(1))
    assert found.one.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert found.together.tolist() == [1, 0, 0.5]
    with pytest.raises(UserError, match="no comparison of round-0001 has 5 labels"):
        votes(loop_of(), key(1), people=5)


def test_gold_questions_are_no_labels_of_responses(loop_of) -> None:
    loop = labelled(loop_of(), [("a", "ann", 0, 1.0), ("b", "ann", (0, 1), 1.0)], ["good", "bad"], [None, None])
    batch = loop.table("preference_batch", key(1))
    assert batch is not None
    put(loop, "preference_batch", key(1), batch.assign(role=["label", "gold"]))
    assert undecided_share(loop, key(1)) == wilson(0, 1)


def test_what_a_round_measured_itself(loop_of) -> None:
    loop = loop_of()
    split = {"accuracy": rate(0.7), "length_baseline": rate(0.3)}
    empty = {"accuracy": None}
    by_round = {key(1): split, key(2): {"accuracy": rate(0.6)}, key(3): empty}
    accuracy = {"unseen": split, "splits": {"validation": {"accuracy": rate(0.8)}, "train": empty}, "rounds": by_round}
    store(loop, "reward_model_accuracy", key(1), accuracy)
    store(loop, "label_quality", key(1), {"summary": {"agreement": rate(0.65)}})
    store(loop, "eval_report", key(1), {"alignment_tax": rate(1.2), "unmeasured": {}})
    assert accuracy_of(loop).value == 0.7
    assert accuracy_of(loop, "validation").value == 0.8
    assert np.isnan([accuracy_of(loop, "train").value, accuracy_of(loop, "held_out_annotators").value]).all()
    assert {name: found.value for name, found in accuracy_by(loop, "rounds").items()} == {key(1): 0.7, key(2): 0.6}
    assert agreement(loop) == Rate(0.65, 0.65 - 0.1, 0.65 + 0.1, 100)
    assert tax_of(loop).value == 1.2
    store(loop, "eval_report", key(2), {"alignment_tax": None, "unmeasured": {"max_perplexity_ratio": "Too short."}})
    with pytest.raises(UserError, match=r"Too short\."):
        tax_of(loop)


def test_answers_stay_the_same_when_they_are_put_on_other_prompts(loop_of) -> None:
    answers = answers_of(evaluated(loop_of(), 1, policy=["good", "bad", "good good"]))
    assert answers.on(["p2", "p0"]).gold.tolist() == [2, 1]
    assert answers.gold.tolist() == [1, 0, 2]


def test_facts_and_overlap_of_each_response(tmp_path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "facts", data={"task": "summaries"}))
    [(prompt, reference), _] = SUMMARIES.demonstrations(2, 0, "test")
    evaluated(loop, 1, policy=[reference, "nothing .", ""])
    answers = answers_of(loop)
    answers = replace(answers, rows=answers.rows.assign(prompt=prompt))
    assert rouge_average(answers).tolist() == [1.0, 0.0, 0.0]
    covered = SUMMARIES.truthfulness(prompt, reference)
    assert covered_shares(answers).tolist() == [covered.covered / covered.key_facts, 0.0, 0.0]
    with pytest.raises(UserError, match="no reference"):
        rouge_average(answers_of(loop))


def test_people_of_another_kind_are_asked_what_was_labelled(loop_of) -> None:
    judgments = [("a", "ann", 0, 1.0), ("b", "ann", 1, 1.0), ("c", "bob", (0, 1), 1.0), ("d", "bob", 0, 1.0)]
    loop = labelled(loop_of(), judgments, ["longer", "short"], [None] * 4)
    assert agreement_with(loop, "longer") == wilson(2, 3)
    assert agreement_with(loop, "shorter", key(1)) == wilson(1, 3)
