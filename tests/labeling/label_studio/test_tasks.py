"""Tasks: annotators see texts in the order drawn, and nothing that could tell them what is behind."""

import json
from typing import Any

import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.tasks import ABSENT, task_data

SETTINGS = LabelingSettings(kind="rating", responses_per_prompt=4)
KINDS = ["pair", "best_of_k", "ranking", "rating"]
TEXTS = ["First text", "Second text", "Third text"]


def row(kind: str, k: int = 3, **changes: Any) -> dict[str, Any]:
    k = 2 if kind == "pair" else k
    return {
        "comparison_id": "0123abcd",
        "round": "round-secret",
        "kind": kind,
        "purpose": "train",
        "role": "gold",
        "prompt_id": "prompt-secret",
        "prompt": "Question",
        "completion_ids": [f"completion-secret-{number}" for number in range(k)],
        "responses": TEXTS[:k],
        "policy_ids": ["policy-secret-champion", "policy-secret-sft", "policy-secret-old"][:k],
        "display_order": list(range(k))[::-1],
        "gold_ranks": [1, 2, 2][:k],
        "repeat_of": "repeat-secret",
        "labels_wanted": 3,
        "project": "",
        "task_id": "",
    } | changes


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_what_is_to_be_judged_is_in_a_task(kind: str) -> None:
    data = json.dumps(task_data(row(kind), SETTINGS))
    for hidden in ("secret", "gold", "order", "polic", "role", "repeat", "sft"):
        assert hidden not in data.lower()
    plain = row(kind, role="label", gold_ranks=None, repeat_of="", policy_ids=["same"] * 3, round="another")
    assert json.dumps(task_data(plain, SETTINGS)) == data


@pytest.mark.parametrize("kind", KINDS)
def test_another_order_of_the_same_texts_changes_only_where_they_stand(kind: str) -> None:
    one = task_data(row(kind), SETTINGS)
    other = task_data(row(kind, responses=row(kind)["responses"][::-1]), SETTINGS)
    k = len(row(kind)["responses"])
    letters = [f"{letter}_html" for letter in "abc"[:k]]
    assert [one[letter] for letter in letters] == [other[letter] for letter in letters[::-1]]
    assert {key: one[key] for key in one.keys() - set(letters)} == {
        key: other[key] for key in other.keys() - set(letters)
    }


def test_responses_stand_in_the_order_drawn() -> None:
    data = task_data(row("best_of_k", display_order=[2, 0, 1]), SETTINGS)
    shown = [data[f"{letter}_html"] for letter in "abc"]
    assert shown == [f"<p>{text}</p>" for text in ("Third text", "First text", "Second text")]


def test_page_of_four_hides_the_fourth_of_three() -> None:
    best, ranking, rating = (task_data(row(kind), SETTINGS) for kind in ("best_of_k", "ranking", "rating"))
    assert best["d_html"] == ranking["d_html"] == rating["d_html"] == ABSENT
    assert [choice["alias"] for choice in best["choices"]] == ["A", "B", "C", "cannot_decide"]
    assert ranking["items"] == [{"id": f"r-{letter}", "title": letter.upper()} for letter in "abc"]
    assert rating["absent"] == [{"value": "D", "selected": True}]


def test_full_comparison_has_no_absent_response() -> None:
    data = task_data(row("rating"), SETTINGS.changed(responses_per_prompt=3))
    assert data["absent"] == []
    assert ABSENT not in data.values()


def test_every_choice_has_a_key_of_its_own() -> None:
    nine = row("best_of_k", responses=[str(n) for n in range(9)], display_order=list(range(9)))
    keys = [choice["hotkey"] for choice in task_data(nine, SETTINGS.changed(responses_per_prompt=9))["choices"]]
    assert keys == [*"123456789", "0"]


def test_pair_and_demonstration_need_no_choices() -> None:
    assert set(task_data(row("pair"), SETTINGS)) == {"comparison", "prompt_html", "a_html", "b_html"}
    writing = row("demonstration", responses=[], display_order=[], purpose="demonstrations")
    assert task_data(writing, SETTINGS) == {"comparison": "0123abcd", "prompt_html": "<p>Question</p>"}


def test_conversation_is_shown_as_turns() -> None:
    data = task_data(row("pair", prompt="User: hi\nAssistant: ho\nUser: why?"), SETTINGS)
    assert data["prompt_html"].count('class="rl-turn"') == 3
