"""The report's figures, its samples and its page."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from rlhf_dagster.config.arms import BEST_OF_N_SFT, DPO, PPO, RLOO, Arm
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.gate import rules_as_dicts
from rlhf_dagster.evaluation.report import build_report, headline, jsonable
from rlhf_dagster.evaluation.reward_accuracy import reward_accuracy
from rlhf_dagster.evaluation.reward_drift import drift_scores, reward_drift
from rlhf_dagster.evaluation.rules import Verdict
from rlhf_dagster.evaluation.samples import ROLES, Scores, choose_samples, responses_by_role
from rlhf_dagster.evaluation.standing import before_people
from rlhf_dagster.evaluation.texts.figures import KnownAbout
from rlhf_dagster.evaluation.win_rate import WinRate
from rlhf_dagster.pages.markdown import report_markdown
from rlhf_dagster.pages.report import render_report
from rlhf_dagster.tasks.base import Truthfulness

ACCURACY = {"value": 0.6, "low": 0.5, "high": 0.7, "n": 90}
SPLIT = {
    "accuracy": ACCURACY,
    "length_baseline": ACCURACY | {"value": 0.31},
    "chance": 0.25,
    "log_likelihood": -1.1,
    "chance_log_likelihood": -1.386,
    "calibration_error": 0.04,
    "labels": 100,
    "comparisons": 90,
    "tied": 2,
}
QUALITY = {
    "comparisons": 120,
    "labels": 150,
    "usable": 140,
    "undecided": 11,
    "annotators": 12,
    "agreement": {"value": 0.61, "low": 0.55, "high": 0.67, "n": 200},
    "alpha": {"value": 0.44, "comparisons": 20},
}


def make(completions: pd.DataFrame, scores: Scores, **changes: Any) -> dict[str, Any]:
    judged = [WinRate("simulated annotators", "sft", 0.8, 0.7, 0.9, 60, 45, 6, 9, 4)]
    given = {
        "round_key": "round-0002",
        "task": "sentiment",
        "judged": judged,
        "reward_accuracy": {"splits": {"held_out_annotators": SPLIT}},
        "label_quality": QUALITY,
        "training": {"ppo": {"kl": np.float64(2.0), "loss": math.nan}},
        "warnings": ["the learning rate was high"],
    }
    return build_report(completions=completions, scores=scores, **(given | changes))


def test_figures_of_each_policy(completions: pd.DataFrame, scores: Scores) -> None:
    report = make(completions, scores)
    policy, sft = report["policies"]["policy"], report["policies"]["sft"]
    assert (report["policy_id"], report["behaviour_policy"]) == ("ppo-round-0002", "ppo-round-0001")
    assert (policy["kl"]["value"], policy["kl"]["n"], sft["kl"]["value"]) == (2.0, 3, 0.0)
    assert policy["length"] == 3.0
    assert (policy["distinct"], sft["distinct"]) == (1.0, pytest.approx(2 / 3))
    # Pairs inside: "good good good" repeats one of two; "fine day" and the third repeat nothing.
    assert policy["repetition"] == pytest.approx(0.5 / 3)
    assert policy["scores"]["gold judge"]["value"] == 2.0


def test_win_rates_are_aligned_by_prompt(completions: pd.DataFrame, scores: Scores) -> None:
    found = {(rate["judge"], rate["against"]): rate for rate in make(completions, scores)["win_rates"]}
    assert [tuple(key) for key in found] == [
        ("reward model", "sft"),
        ("reward model", "behaviour"),
        ("simulated annotators", "sft"),
        ("gold judge", "sft"),
        ("gold judge", "behaviour"),
    ]
    assert found["reward model", "sft"]["value"] == pytest.approx(2 / 3)
    assert found["reward model", "behaviour"]["value"] == pytest.approx(2 / 3)
    assert (found["gold judge", "behaviour"]["ties"], found["gold judge", "behaviour"]["losses"]) == (1, 2)


def test_the_report_is_json_without_nan(completions: pd.DataFrame, scores: Scores) -> None:
    report = make(completions, scores)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["training"]["ppo"] == {"kl": 2.0, "loss": None}
    assert report["reward_model"]["agreement"] == QUALITY["agreement"] | {"alpha": 0.44}
    assert report["labels"] == {
        "comparisons": 120,
        "labels": 150,
        "usable": 140,
        "undecided": 11,
        "annotators": 12,
    }


def test_kl_is_missing_unless_it_was_measured_everywhere(completions: pd.DataFrame, scores: Scores) -> None:
    completions.at[1, "reference_log_probs"] = []
    assert make(completions, scores)["policies"]["policy"]["kl"] == {"value": None, "low": None, "high": None, "n": 0}


def test_rows_of_every_role_follow_the_policys_prompts(completions: pd.DataFrame) -> None:
    rows = responses_by_role(completions)
    assert all(frame["prompt_id"].tolist() == ["p0", "p1", "p2"] for frame in rows.values())
    assert rows["sft"]["text"].tolist() == ["bad day", "bad day", "so so"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame[frame["role"] != "policy"], "no responses of the policy"),
        (
            lambda frame: frame[(frame["role"] != "sft") | (frame["prompt_id"] != "p1")],
            "2 responses of sft where each of 3",
        ),
        (lambda frame: pd.concat([frame, frame.tail(1)]), "4 responses of behaviour"),
        (lambda frame: frame.assign(policy_id=range(len(frame))), "come from several policies"),
    ],
)
def test_incomplete_responses_are_refused(completions: pd.DataFrame, scores: Scores, spoil: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(spoil(completions.astype({"policy_id": object})).astype({"policy_id": str}), scores)


def test_incomplete_scores_are_refused(completions: pd.DataFrame, scores: Scores) -> None:
    with pytest.raises(UserError, match="no scores of the reward model"):
        make(completions, {"gold judge": scores["gold judge"]})
    short = {**scores["reward model"], "sft": [0.0]}
    with pytest.raises(UserError, match="scored 1 of 3 responses of sft"):
        make(completions, {"reward model": short})


def sentence(value: float | None, low: float, high: float, judge: str = "gold judge", n: int = 512) -> str:
    rate = {"judge": judge, "against": "sft", "value": value, "low": low, "high": high, "n": n}
    return headline({"policy_id": "ppo", "policies": {"policy": {"kl": {"value": 6.14}}}, "win_rates": [rate]})


def test_headline_says_what_the_interval_allows() -> None:
    assert sentence(0.931, 0.906, 0.949) == (
        "ppo beats SFT on 93% of 512 prompts by the gold judge (95% interval 91–95%), at 6.1 nats of KL."
    )
    assert "is not clearly better or worse than SFT: preferred on 55% of 512" in sentence(0.55, 0.49, 0.61)
    assert "is worse than SFT: preferred on only 40% of 512 judgments by the annotators" in sentence(
        0.4, 0.35, 0.45, "annotators"
    )
    assert sentence(None, 0, 1, n=0) == "ppo has not been judged against SFT, at 6.1 nats of KL."


def test_headline_quotes_the_most_trustworthy_judge(completions: pd.DataFrame, scores: Scores) -> None:
    assert "by the gold judge" in make(completions, scores)["headline"]
    assert "by the simulated annotators" in make(completions, {"reward model": scores["reward model"]})["headline"]
    alone = make(completions, {"reward model": scores["reward model"]}, judged=())
    assert "by the reward model" in alone["headline"]
    unanswered = WinRate("annotators", "sft", math.nan, 0.0, 1.0, 0, 0, 0, 0, 7)
    waiting = make(completions, {"reward model": scores["reward model"]}, judged=[unanswered])
    assert "by the reward model" in waiting["headline"]


def test_a_judge_that_contradicts_the_reward_model_is_a_warning(completions: pd.DataFrame, scores: Scores) -> None:
    count = 40
    frame = pd.concat([completions[completions["prompt_id"] == "p0"].assign(prompt_id=f"q{i}") for i in range(count)])
    high, low = [1.0] * count, [0.0] * count
    flattered = {
        "reward model": {"policy": high, "sft": low, "behaviour": high},
        "gold judge": {"policy": low, "sft": high, "behaviour": low},
    }
    warnings = make(frame, flattered)["warnings"]
    assert len(warnings) == 2
    assert "beats SFT on 100%, by the gold judge on only 0%" in warnings[1]
    unsure = flattered["gold judge"] | {"policy": [1.0, 0.0] * 20, "sft": [0.0, 1.0] * 20}
    assert len(make(frame, flattered | {"gold judge": unsure})["warnings"]) == 1
    twice = {
        "reward model": flattered["reward model"] | {"behaviour": low},
        "gold judge": flattered["gold judge"] | {"behaviour": high},
    }
    assert len(make(frame, twice)["warnings"]) == 3
    behaviour_is_sft = frame.assign(policy_id=frame["policy_id"].mask(frame["role"] == "behaviour", "sft"))
    assert make(behaviour_is_sft, twice)["warnings"] == warnings


def many(count: int) -> tuple[pd.DataFrame, Scores]:
    rows = [
        {"prompt_id": f"p{i}", "prompt": f"prompt {i}", "role": role, "text": f"{role} {i}"}
        for role in ("policy", "sft", "behaviour")
        for i in range(count)
    ]
    rising, flat = [float(i) for i in range(count)], [0.0] * count
    return pd.DataFrame(rows), {"reward model": {"policy": rising, "sft": flat, "behaviour": rising}}


def test_samples_are_best_worst_and_random() -> None:
    samples = choose_samples(*many(40), seed=1)
    assert [(sample.chosen, sample.margin) for sample in samples[:6]] == [
        ("best", 39.0), ("best", 38.0), ("best", 37.0), ("worst", 0.0), ("worst", 1.0), ("worst", 2.0)
    ]  # fmt: skip
    assert [sample.chosen for sample in samples[6:]] == ["random", "random"]
    assert all(3 <= sample.margin <= 36 for sample in samples[6:])
    assert all(sample.responses["sft"] == f"sft {sample.margin:.0f}" for sample in samples)
    assert choose_samples(*many(40), seed=1) == samples
    assert choose_samples(*many(40), seed=2) != samples


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9])
def test_few_prompts_are_shown_once_each(count: int) -> None:
    samples = choose_samples(*many(count), seed=0)
    assert len({sample.prompt for sample in samples}) == len(samples) == min(count, 8)


class Page(HTMLParser):
    """The tags, the addresses they name, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.pieces: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data
        self.pieces.append(data.strip())


def page_of(completions: pd.DataFrame, scores: Scores, **changes: Any) -> Page:
    curves = {"reward": [0.0, 1.0], "kl": [0.0, 2.0], "ratio_first": [1.0, 1.0]}
    rules = [
        Verdict("max_kl", "fail", "The sequence KL to SFT is 12 nats."),
        Verdict("min_distinct", "pass", "All responses are distinct."),
        Verdict("max_reward_drift", "not measured", "Too few <b>comparisons</b>."),
    ]
    standing = before_people("ppo-round-0002", False, True, rules_as_dicts(rules))
    report = make(completions, scores, **changes)
    return Page(render_report(report, choose_samples(completions, scores, seed=0), curves, standing))


def test_the_page_shows_the_figures(completions: pd.DataFrame, scores: Scores) -> None:
    page = page_of(completions, scores)
    text, spaced = (re.sub(r"\s+", " ", found) for found in (page.text, " ".join(page.pieces)))
    for shown in (
        "ppo-round-0002 is not clearly better or worse than SFT: preferred on 100% of 3 prompts",
        "round-0002",
        "80.0%",
        "0.44",
        "31.0%",
        "ppo-round-0002 was refused by the automatic rules of the gate; nobody is asked to judge it.",
    ):
        assert shown in text
    for row in (
        "fail KL budget The sequence KL to SFT is 12 nats.",
        "pass Diversity All responses are distinct.",
        "not measured Over-optimisation Too few <b>comparisons</b>.",
    ):
        assert row in spaced
    assert "Other annotators" in text
    assert "Random" in text
    assert "the learning rate was high" in text


def test_its_markdown_says_what_became_of_the_policy_why_and_what_it_writes(completions, scores) -> None:
    odd = dict.fromkeys(ROLES, "<b>x</b>\n\n# not | *a* `heading`\n```\n- no list")
    rules = [Verdict("max_kl", "fail", "The sequence KL to SFT is 12 <b>nats</b>.")]
    standing = before_people("ppo-round-0002", False, True, rules_as_dicts(rules))
    samples = [replace(sample, responses=odd) for sample in choose_samples(completions, scores, seed=0)]
    markdown = report_markdown(make(completions, scores), samples, standing)
    html = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    page = Page(html)
    assert html.startswith("<p><strong>ppo-round-0002 was refused by the automatic rules of the gate")
    assert "KL budget, fail: The sequence KL to SFT is 12 <b>nats</b>." in page.text
    assert set(page.tags) == {"p", "strong", "ul", "li", "pre", "code"}
    shown = {sample.chosen for sample in samples}
    assert page.tags.count("pre") == 3 * len(shown)  # the prompt, SFT and the policy
    assert page.text.count("- no list") == 2 * len(shown)


@pytest.mark.parametrize(
    ("arm", "curves", "said"),
    [
        (PPO, {"reward": [0.0, 1.0], "kl": [0.0, 2.0]}, "; PPO maximises its score. Its opinion"),
        (RLOO, {"reward": [0.0, 1.0]}, "; RLOO maximises its score. Its opinion"),
        (DPO, {"loss": [0.7, 0.6], "reward_margin": [0.0, 0.1]}, ", from which DPO learns without it."),
        (BEST_OF_N_SFT, {"loss": [2.0]}, "; best-of-n SFT learns from the samples that it scores highest. Its opinion"),
    ],
)
def test_the_page_is_about_the_arm_that_has_trained_the_policy(completions, scores, arm: Arm, curves, said) -> None:
    report = make(completions, scores, training={"sft_checkpoint": {}, arm.asset: {}})
    page = Page(render_report(report, [], curves))
    assert f"How {arm.title} got there" in page.text
    assert f"Trained on the labels counted above{said}" in page.text
    assert page.tags.count("img") == 1
    assert ("over the responses sampled for the update" in page.text) == ("reward" in curves)
    assert arm is PPO or "PPO" not in page.text


def test_the_page_says_why_an_arm_was_chosen_and_what_the_others_break(completions, scores) -> None:
    rate = WinRate("reward model", "behaviour", 0.625, 0.5, 0.75, 24, 12, 6, 6).as_dict()
    arms = [
        {"arm": "ppo", "name": "PPO", "policy_id": "ppo-1", "win_rates": [rate], "breaks": ["max_kl", "min_distinct"]},
        {"arm": "dpo", "name": "DPO", "policy_id": "dpo-1", "win_rates": [rate], "breaks": []},
    ]
    report = make(completions, scores) | {"choice": {"reason": "DPO is <b>the</b> best.", "arms": arms}}
    text = " ".join(" ".join(Page(render_report(report, [])).pieces).split())
    assert "Why this policy DPO is <b>the</b> best. The win rates of this choice" in text
    for row in (
        "PPO ppo-1 Reward model 62.5% 50.0 – 75.0 KL budget, Diversity",
        "dpo-1 Reward model 62.5% 50.0 – 75.0 nothing",
    ):
        assert row in text


def test_the_page_has_annotators_by_their_own_names_and_the_labels_of_machines(completions, scores) -> None:
    groups = {"annotators": {"ann-B": SPLIT, "x_y": SPLIT}, "length_differences": {"preferred_is_longer": SPLIT}}
    by_round = [{"round": "round-0001", "comparisons": 40, "labels": 52, "machine": 17}]
    labels = {"comparisons": 40, "labels": 52, "machine": 17, "by_round": by_round}
    page = page_of(completions, scores, reward_accuracy={"splits": {"validation": SPLIT}, **groups}, labels=labels)
    assert {"ann-B", "x_y"} <= {*page.pieces}
    assert "Comparisons Labels By machines round-0001 40 52 17 All 40 52 17" in " ".join(" ".join(page.pieces).split())
    assert "By machines" not in page_of(completions, scores).text


def test_the_page_stands_alone(completions: pd.DataFrame, scores: Scores) -> None:
    page = page_of(completions, scores)
    assert page.tags.count("img") == 1
    assert not {"script", "link", "iframe", "form", "object"} & set(page.tags)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)


def test_every_text_from_outside_is_escaped(completions: pd.DataFrame, scores: Scores) -> None:
    evil = "<img src=x onerror=alert(1)>\"'</p>"
    hostile = completions.assign(text=evil, prompt=evil)
    hostile["policy_id"] = hostile["policy_id"] + evil
    labels = {"comparisons": 1, "by_round": [{"round": evil, "comparisons": 1}]}
    page = page_of(hostile, scores, round_key=evil, task=evil, warnings=[evil], labels=labels)
    assert (
        page.tags == page_of(completions, scores, labels=labels | {"by_round": [{"round": "r", "comparisons": 1}]}).tags
    )
    # Three samples with a prompt and three responses each, the warning, and the names of round, task and policies.
    assert page.text.count("<img src=x onerror=alert(1)>\"'</p>") >= 3 * 4 + 1 + 6


def test_a_chat_is_shown_as_turns_and_a_text_as_it_is(completions: pd.DataFrame, scores: Scores) -> None:
    turns = [("system", "Be brief."), ("user", "1 <b>2"), ("assistant", "3"), ("user", "<|im_end|>")]
    messages = [{"role": role, "content": content} for role, content in turns]
    page = page_of(completions.assign(messages=[messages] * len(completions)), scores)
    assert page.pieces.count("System") == page.pieces.count("Assistant") == 3
    assert page.pieces.count("User") == 6
    assert all(page.pieces.count(content) == 3 for content in ("1 <b>2", "<|im_end|>"))
    plain = page_of(completions.assign(messages=None, prompt=json.dumps(messages)), scores)
    assert plain.pieces.count(json.dumps(messages)) == 3
    assert "Assistant" not in plain.pieces


def test_the_page_says_what_each_stage_cut(completions: pd.DataFrame, scores: Scores) -> None:
    cut = {"cut_prompts": 1200.0, "cut_prompt_share": 0.25, "cut_prompt_tokens": 4000.0}
    training = {"sft_checkpoint": cut, "reward_model": {"cut_responses": 3.0}, "ppo_policy": {"kl": 1.0}}
    spaced = " ".join(" ".join(page_of(completions, scores, training=training).pieces).split())
    assert "SFT prompts 1,200 25.0% 4,000 Reward model responses 3 – – " in spaced
    assert "too long" not in page_of(completions, scores).text


def test_the_page_names_the_behaviour_policy_once_where_it_is_sft(completions: pd.DataFrame, scores: Scores) -> None:
    completions.loc[completions["role"] == "behaviour", "policy_id"] = "sft"
    text = page_of(completions, scores).text
    assert "SFT, the behaviour policy of this round" in text
    assert text.count("Reward model\n") == page_of(completions, scores).text.count("Reward model\n")
    assert "Behaviour policy" not in text


def test_the_page_says_only_what_the_judges_present_are(completions: pd.DataFrame, scores: Scores) -> None:
    assert "It never enters training and the gate never reads it" in page_of(completions, scores).text
    alone = page_of(completions, {"reward model": scores["reward model"]}, judged=()).text.lower()
    assert "gold judge" not in alone
    assert "simulated annotators" not in alone


def test_the_page_bears_missing_figures(completions: pd.DataFrame, scores: Scores) -> None:
    completions["reference_log_probs"] = [[] for _ in range(len(completions))]
    nothing = SPLIT | dict.fromkeys(("accuracy", "length_baseline", "chance", "log_likelihood", "calibration_error"))
    undecided = WinRate("annotators", "sft", math.nan, 0.0, 1.0, 0, 0, 0, 0, 7)
    report = make(
        completions, scores, judged=[undecided], label_quality=None, reward_accuracy={"splits": {"validation": nothing}}
    )
    text = Page(render_report(report, [])).text
    assert "None" not in text
    assert "nan" not in text.lower().split()
    assert "No label counts were given." in text
    Page(render_report(make(completions, scores, reward_accuracy=None), []))


TAX = {"value": 1.4, "low": 1.35, "high": 1.45, "n": 256, "policy": 4.34, "sft": 3.1, "tokens": 14_248}


def test_the_page_shows_the_alarms_figures(completions: pd.DataFrame, scores: Scores) -> None:
    won, lost = {"policy": [1.0] * 3, "sft": [0.0] * 3}, {"policy": [0.0] * 3, "sft": [1.0] * 3}
    drift = reward_drift(drift_scores(won, [won, lost])).as_dict()
    text = re.sub(r"\s+", " ", page_of(completions, scores, alignment_tax=TAX, reward_drift=drift).text)
    assert "on 256 held-out documents of pretraining text (14,248 tokens) is 4.34, SFT’s 3.10: 1.40 times" in text
    assert "The largest difference is 100.0% (95% interval 100.0 – 100.0), between reward model and half B" in text
    without = page_of(completions, scores).text
    assert "Would another reward model agree?" not in without
    assert "held-out documents" not in without


def test_the_report_says_what_could_not_be_measured(completions: pd.DataFrame, scores: Scores) -> None:
    report = make(completions, scores, unmeasured={"max_reward_drift": "Too few comparisons."}, alignment_tax=TAX)
    assert report["unmeasured"] == {"max_reward_drift": "Too few comparisons."}
    assert (report["reward_drift"], report["alignment_tax"]) == (None, TAX)


def test_copying_is_of_the_responses_own_prompt(completions: pd.DataFrame, scores: Scores) -> None:
    prompts = completions.assign(prompt=["so good good good"] + ["nothing to copy"] * 8)
    # "good good good" is the policy's first response; the other two are shorter than three words.
    assert make(prompts, scores)["policies"]["policy"]["copied_trigrams"] == pytest.approx(1 / 3)


def test_the_page_shows_what_the_responses_say(completions: pd.DataFrame, scores: Scores) -> None:
    plain = re.sub(r"\s+", " ", " ".join(page_of(completions, scores).pieces))
    # "good good good" is the policy's first response, and the prompt of all but it has other words.
    assert "Copied sentences of a response’s; the others are not in the source 0.0%" in plain
    assert "ROUGE-1" not in plain
    assert "facts" not in plain
    known = KnownAbout(
        references={"p0": ["good day"]}, truthfulness=lambda prompt, text: Truthfulness(2, 1, len(text) % 2)
    )
    report = make(completions, scores, known=known)["policies"]["policy"]
    # One of three words is in the reference, and one of the reference's two in the response.
    assert report["rouge"]["rouge1"]["value"] == pytest.approx(0.4)
    shown = re.sub(r"\s+", " ", " ".join(page_of(completions, scores, known=known).pieces))
    for row in ("ROUGE-1 words", "40.0%", "Key facts covered 50.0%", "False facts in a response"):
        assert row in shown


def test_win_rates_say_how_it_would_be_at_equal_length(completions: pd.DataFrame, scores: Scores) -> None:
    sft, behaviour = (
        next(rate for rate in make(completions, scores)["win_rates"] if (rate["judge"], rate["against"]) == asked)
        for asked in (("gold judge", "sft"), ("gold judge", "behaviour"))
    )
    # The policy's responses are longer than SFT's on every prompt, by 7, 1 and 23 characters.
    assert sft["length_controlled"] == {"value": None, "low": 0.0, "high": 1.0, "n": 3}
    assert behaviour["length_controlled"]["value"] is None
    shorter = completions.assign(text=[text[: 3 + index] for index, text in enumerate(completions["text"])])
    found = make(shorter, scores)["win_rates"][-1]
    assert 0 < found["length_controlled"]["low"] < found["length_controlled"]["value"] < 1


def test_jsonable() -> None:
    given = {"a": np.int64(3), 2: (np.float32(0.5), math.inf), "b": np.array([1, 2]), "c": True, "d": None, "e": "x"}
    assert jsonable(given) == {"a": 3, "2": [0.5, None], "b": [1, 2], "c": True, "d": None, "e": "x"}
    assert type(jsonable(np.int64(3))) is int
    assert jsonable(np.bool_(True)) is True
    with pytest.raises(TypeError, match="object has no form"):
        jsonable(object())


def test_the_page_shows_on_which_labels_the_reward_model_is_right(completions: pd.DataFrame, scores: Scores) -> None:
    without = re.sub(r"\s+", " ", page_of(completions, scores).text)
    assert "On which labels is it right?" not in without
    assert "Do its probabilities come true?" not in without
    rows = {
        "label_id": ["1", "2", "3", "4"],
        "comparison_id": ["1", "2", "3", "4"],
        "split": "validation",
        "round": "round-0001",
        "kind": ["pair", "pair", "ranking", "ranking"],
        "annotator": ["ann-01", "ann-02", "ann-02", "ann-02"],
        "responses": [["a", "a b"]] * 4,
        "target": [[1.0, 0.0], [0.0, 1.0]] * 2,
        "strength": [0.5, 1.0, None, None],
    }
    figures = reward_accuracy(pd.DataFrame(rows), [[0.0, 2.0]] * 4)
    text = re.sub(r"\s+", " ", " ".join(page_of(completions, scores, reward_accuracy=figures).pieces))
    # One round alone is not compared with others.
    assert "By round" not in text
    for shown in ("By kind", "Pair 50.0%", "By strength of preference", "0.5 0.0%", "1 100.0%", "Not asked 50.0%"):
        assert shown in text
    for shown in ("By length", "Preferred is much shorter 0.0%", "Preferred is much longer 100.0%"):
        assert shown in text
    for shown in ("By annotator", "ann-01 0.0%", "ann-02 66.7%"):
        assert shown in text
    # e^2 / (1 + e^2)
    assert "88.1% 50.0%" in text
