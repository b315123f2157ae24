"""Chinese, Japanese and Thai write no spaces between words: what stammers or copies in them is seen all the same."""

from typing import Any

import pandas as pd
import pytest

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.gate import alarm_names, gate, rules_as_dicts
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.evaluation.metrics import distinct_n, repetition, shared_ngrams
from rlhf_dagster.evaluation.report import build_report
from rlhf_dagster.evaluation.reward_accuracy import reward_accuracy

PROMPTS = {
    "Chinese": "昨天小明在公园里丢了他的自行车",
    "Japanese": "昨日、太郎は公園で自転車をなくしました",
    "Thai": "เมื่อวานนี้สมชายทำจักรยานหายที่สวนสาธารณะ",
}
STAMMER = {"Chinese": "很好很好很好很好", "Japanese": "すごいすごいすごい", "Thai": "ดีมากดีมากดีมาก"}
HONEST = {"Chinese": "请马上报警吧", "Japanese": "警察に相談してください", "Thai": "ควรแจ้งตำรวจทันที"}
LANGUAGES = tuple(PROMPTS)


def report(language: str, response: str) -> dict[str, Any]:
    """Of a policy that gives one response to every prompt; SFT's are honest."""
    roles = {"policy": response, "sft": HONEST[language], "behaviour": HONEST[language]}
    rows = [
        {"prompt_id": f"p{index}", "prompt": PROMPTS[language], "role": role, "policy_id": role, "text": text}
        | {"token_ids": [1, 2], "log_probs": [-1.0], "reference_log_probs": [-1.0]}
        for role, text in roles.items()
        for index in range(3)
    ]
    return build_report(
        round_key="round-0001",
        task="test",
        completions=pd.DataFrame(rows),
        scores={"reward model": dict.fromkeys(roles, [0.0] * 3)},
    )


def alarms(language: str, response: str) -> list[str]:
    settings = GateSettings(min_win_rate=None, min_distinct=None, max_perplexity_ratio=None, max_reward_drift=None)
    return alarm_names(rules_as_dicts(gate(report(language, response), None, settings, human_required=False).rules))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_gate_sees_a_stammer(language: str) -> None:
    assert alarms(language, STAMMER[language]) == ["max_repetition"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_gate_sees_a_prompt_that_is_handed_back(language: str) -> None:
    assert alarms(language, PROMPTS[language]) == ["max_copying"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_gate_lets_an_honest_response_pass(language: str) -> None:
    assert alarms(language, HONEST[language]) == []


def test_diversity_is_that_of_characters() -> None:
    # 很 好 很 好: two of four characters differ; the pairs 很好 好很 很好 repeat one of three.
    assert distinct_n(["很好很好"], 1) == 0.5
    assert repetition(["很好很好"]) == pytest.approx(1 / 3)
    assert shared_ngrams(["天气很好", "今天气很"]) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_the_longest_response_is_known() -> None:
    labels = pd.DataFrame(
        {"label_id": ["1"], "comparison_id": ["1"], "split": "validation", "round": "r", "kind": "pair"}
        | {"annotator": "a", "responses": [["很好", "今天天气很好"]], "target": [[0.0, 1.0]]}
    )
    unseen = reward_accuracy(labels, [[0.0, 1.0]])["unseen"]
    assert (unseen["length_baseline"]["value"], unseen["brevity_baseline"]["value"]) == (1.0, 0.0)


def test_a_demonstration_inside_a_held_out_document_is_found() -> None:
    documents = ["今天天气很好我们去公园散步吧", "完全不同的一篇文章在这里"]
    held_out = pd.DataFrame({"text_id": ["1", "2"], "text": documents, "split": "validation"})
    demonstrations = pd.DataFrame({"prompt": ["天气很好"], "response": ["我们去公园"], "split": ["train"]})
    assert held_out_documents(held_out, demonstrations).documents == documents[1:]
    assert held_out_documents(held_out, demonstrations.assign(response="别的话")).documents == documents
