"""The rule that chooses an arm, and what the choice of the best of several does to its figure."""

import random
from typing import Any

from gate_figures import report

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.choice import Contender, broken_rules, choose, why_chosen

GATE = GateSettings()


def contender(arm: str, *values: float, breaks: tuple[str, ...] = ()) -> Contender:
    judges = ("reward model", "half A", "half B")
    rates = [{"judge": judge, "value": value} for judge, value in zip(judges, values, strict=False)]
    return Contender(arm, arm.upper(), f"{arm}-1", rates, breaks)


def test_the_win_rate_by_the_model_that_likes_a_policy_least_counts() -> None:
    exploiting, sound = contender("ppo", 0.9, 0.5, 0.6), contender("dpo", 0.7, 0.65, 0.66)
    assert choose([exploiting, sound]) is sound
    assert sound.least["judge"] == "half A"
    alone = [contender("ppo", 0.9), contender("dpo", 0.7)]
    assert choose(alone) is alone[0]


def test_of_equals_it_is_the_first() -> None:
    equals = [contender("ppo", 0.6), contender("dpo", 0.6)]
    assert choose(equals) is equals[0]


def test_a_policy_that_the_gate_would_refuse_is_chosen_only_where_all_are() -> None:
    far, near = contender("ppo", 0.9, breaks=("max_kl",)), contender("dpo", 0.6)
    assert choose([far, near]) is near
    worse = contender("rloo", 0.5, breaks=("max_kl", "min_distinct"))
    assert choose([worse, far]) is far


def test_rules_of_responses_are_the_gate_s() -> None:
    figures: dict[str, Any] = report()["policies"]
    kept, sft = figures["policy"], figures["sft"]
    assert broken_rules(kept, sft, GATE) == []
    assert broken_rules(kept | {"kl": {"value": 10.1}}, sft, GATE) == ["max_kl"]
    assert broken_rules(kept | {"kl": {"value": 10.1}}, sft, GATE.changed(max_kl=None)) == []
    assert broken_rules(kept | {"length": 2 * sft["length"], "distinct": 0.1}, sft, GATE) == [
        "max_length_ratio",
        "min_distinct",
    ]


def test_the_sentence_says_among_how_many_by_whom_and_on_how_many_prompts() -> None:
    found = [contender("ppo", 0.9, 0.5, 0.6, breaks=("max_kl",)), contender("dpo", 0.7, 0.652, 0.66)]
    assert why_chosen(found[1], found, 1200) == (
        "DPO's policy is judged: of the 1 of 2 policies that keep the gate's rules of a response, it has the highest "
        "win rate against the champion by the one of 3 reward models that likes it least, 65.2% on 1,200 validation "
        "prompts."
    )
    equal = [contender("ppo", 0.5), contender("dpo", 0.6), contender("rloo", 0.6)]
    assert why_chosen(choose(equal), equal, 24) == (
        "DPO's policy is judged: of 3 policies, which all keep the gate's rules of a response, it is the first of 2 "
        "with the highest win rate against the champion by the reward model, 60.0% on 24 validation prompts."
    )
    refused = [contender("ppo", 0.9, breaks=("max_kl",))]
    assert "of 1 policies, none of which keeps the gate's rules of a response, it has" in why_chosen(
        refused[0], refused, 9
    )


def test_the_figure_that_chose_is_too_high_by_chance() -> None:
    """The winner's curse: five arms that are all as good as the champion, chosen on 100 prompts, a thousand times."""
    draw, prompts, chosen = random.Random(1), 100, []
    for _ in range(1000):
        arms = [contender(str(arm), sum(draw.random() < 0.5 for _ in range(prompts)) / prompts) for arm in range(5)]
        chosen.append(choose(arms).least["value"])
    # The greatest of five is expected 1.16 standard deviations (of 0.05) above 1/2.
    assert abs(sum(chosen) / 1000 - 0.558) < 0.005
