"""The forms of public data sets, in rows of our own making: each is recognised, and says what it said."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from rlhf_dagster.data.judgment_forms.base import LeftOut
from rlhf_dagster.data.judgment_forms.known import FORMS, recognised
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.lines import BadLineError

USER, ANSWER, OTHER = "Name a fruit.", "A pear.", "A chair."
ASK = [{"role": "user", "content": USER}]
HH = "\n\nHuman: Name a fruit.\n\nAssistant: "


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


@dataclass
class Expected:
    """What one judgment is to say; the prompt's text is USER unless another is given."""

    ranks: tuple[int, ...] | None
    responses: tuple[str, ...] = (ANSWER, OTHER)
    kind: str = "pair"
    more: dict[str, Any] = field(default_factory=dict)
    prompt: str = USER


def annotation(result: list[dict[str, Any]], by: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": 7, "completed_by": by, "result": result, "was_cancelled": False, "lead_time": 4.5} | more


def control(kind: str, value: dict[str, Any], name: str = "pref", to: str = "prompt") -> dict[str, Any]:
    return {"from_name": name, "to_name": to, "type": kind, "value": value}


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 1, "data": data, "annotations": list(annotations), "drafts": [], "predictions": []}


SIDES = {"prompt": USER, "text1": ANSWER, "text2": OTHER}
ITEMS = [{"id": f"r-{mark}", "body": text} for mark, text in zip("abc", ("x", "y", "z"), strict=True)]
MESSAGE = {"message_tree_id": "t", "lang": "en"}

CASES: dict[str, tuple[str, list[dict[str, Any]], list[Expected]]] = {
    "TRL, explicit": ("preference", [{"prompt": USER, "chosen": ANSWER, "rejected": OTHER}], [Expected((1, 2))]),
    "TRL, implicit": (
        "preference",
        [{"chosen": f"{USER} {ANSWER}", "rejected": f"{USER} {OTHER}"}],
        [Expected((1, 2), ("pear.", "chair."), prompt=f"{USER} A")],
    ),
    "TRL, messages": (
        "preference",
        [{"prompt": ASK, "chosen": [said(ANSWER)], "rejected": [said(OTHER)], "margin": 2.5}],
        [Expected((1, 2), more={"metadata": {"margin": 2.5}})],
    ),
    "TRL, messages with their prompt": (
        "preference",
        [{"chosen": [*ASK, said(ANSWER)], "rejected": [*ASK, said(OTHER)]}],
        [Expected((1, 2))],
    ),
    "HH": ("preference", [{"chosen": HH + ANSWER, "rejected": HH}], [Expected((1, 2), (ANSWER, ""))]),
    "UltraFeedback, binarized": (
        "preference",
        [
            {
                "prompt": USER,
                "chosen": [*ASK, said(ANSWER)],
                "rejected": [*ASK, said(OTHER)],
                "score_chosen": score,
                "score_rejected": 6.0,
            }
            for score in (7.5, 6.0)
        ],
        [Expected((1, 2)), Expected((1, 1))],
    ),
    "LLaMA-Factory, alpaca": (
        "preference",
        [
            {
                "instruction": "Name a",
                "input": "fruit.",
                "chosen": ANSWER,
                "rejected": OTHER,
                "system": "",
                "history": [],
            }
        ],
        [Expected((1, 2), prompt="Name a\n\nfruit.")],
    ),
    "LLaMA-Factory, sharegpt": (
        "preference",
        [{"conversations": [{"from": "human", "value": USER}], "chosen": gpt(ANSWER), "rejected": gpt(OTHER)}],
        [Expected((1, 2))],
    ),
    "Orca pairs": (
        "preference",
        [{"system": "Be brief.", "question": USER, "chosen": ANSWER, "rejected": OTHER}],
        [Expected((1, 2), prompt=f"System: Be brief.\n\nUser: {USER}")],
    ),
    "OpenAI, summaries": (
        "openai",
        [
            {
                "info": {"id": "p1", "post": "Long.", "title": "T", "subreddit": "r"},
                "summaries": [{"text": ANSWER, "policy": "ref"}, {"text": OTHER, "policy": "sup1"}],
                "choice": 0,
                "worker": "w1",
                "extra": {"confidence": 3},
            }
        ],
        [
            Expected(
                (1, 2),
                prompt="SUBREDDIT: r\n\nTITLE: T\n\nPOST: Long.\n\nTL;DR:",
                more={"annotator": "w1", "policies": ("ref", "sup1")},
            )
        ],
    ),
    "OpenAI, preferred outputs": (
        "openai",
        [{"input": {"messages": ASK}, "preferred_output": [said(ANSWER)], "non_preferred_output": [said(OTHER)]}],
        [Expected((1, 2))],
    ),
    "WebGPT": (
        "pair",
        [
            {"question": {"full_text": USER, "id": "q"}, "answer_0": ANSWER, "answer_1": OTHER}
            | {"score_0": score, "score_1": -score}
            for score in (-1.0, 0.0)
        ],
        [Expected((2, 1)), Expected((1, 1))],
    ),
    "SHP": (
        "pair",
        [{"history": USER, "human_ref_A": ANSWER, "human_ref_B": OTHER, "labels": 0, "score_A": 3, "score_B": 9}],
        [Expected((2, 1), more={"metadata": {"score_A": 3, "score_B": 9}})],
    ),
    "PandaLM": (
        "pair",
        [
            {"idx": 3, "instruction": USER, "input": "", "response1": ANSWER, "response2": OTHER}
            | {"annotator1": 1, "annotator2": 2, "annotator3": 0}
        ],
        [
            Expected((1, 2), more={"annotator": "annotator1", "order_known": False}),
            Expected((2, 1), more={"annotator": "annotator2"}),
            Expected((1, 1), more={"annotator": "annotator3"}),
        ],
    ),
    "Chatbot Arena": (
        "pair",
        [
            {"question_id": "q", "model_a": "vicuna", "model_b": "koala", "winner": winner, "judge": "u1", "turn": 1}
            | {"conversation_a": [*ASK, said(ANSWER)], "conversation_b": [*ASK, said(OTHER)], "tstamp": 1682351591.1}
            for winner in ("model_b", "tie (bothbad)", "vicuna")
        ],
        [
            Expected((2, 1), more={"annotator": "u1", "policies": ("vicuna", "koala"), "comparison": ""}),
            Expected((1, 1), more={"flags": ("both_bad",)}),
            Expected((1, 2)),
        ],
    ),
    "Arena, one-hot": (
        "pair",
        [
            {"prompt": json.dumps([USER]), "response_a": json.dumps([ANSWER]), "response_b": json.dumps([OTHER])}
            | {"model_a": "x", "model_b": "y", "winner_model_a": "0", "winner_model_b": "0", "winner_tie": "1"}
        ],
        [Expected((1, 1), more={"policies": ("x", "y")})],
    ),
    "SafeRLHF": (
        "pair",
        [{"prompt": USER, "response_0": ANSWER, "response_1": OTHER, "better_response_id": 1, "safer_response_id": 0}],
        [Expected((2, 1), more={"metadata": {"safer_response_id": 0}})],
    ),
    "HelpSteer, preferences": (
        "pair",
        [
            {"prompt": USER, "response_1": ANSWER, "response_2": OTHER, "preference_strength": degree}
            for degree in (-3, 0, 1)
        ],
        [
            Expected((1, 2), more={"strength": 1.0}),
            Expected((1, 1), more={"strength": 0.0}),
            Expected((2, 1), more={"strength": pytest.approx(1 / 3)}),
        ],
    ),
    "UltraFeedback": (
        "completions",
        [
            {
                "instruction": USER,
                "completions": [
                    {"model": model, "response": text, "overall_score": 2.0 * rating}
                    | {"annotations": {"helpfulness": {"Rating": str(rating)}, "truthfulness": {"Rating": "N/A"}}}
                    for model, text, rating in (("m1", ANSWER, 5), ("m2", OTHER, 2), ("m3", "Soup.", 5))
                ],
            }
        ],
        [
            Expected(
                (1, 2, 1),
                (ANSWER, OTHER, "Soup."),
                "rating",
                {"ratings": {"helpfulness": (5, 2, 5)}, "policies": ("m1", "m2", "m3")},
            )
        ],
    ),
    "Nectar": (
        "completions",
        [{"prompt": USER, "answers": [{"answer": OTHER, "model": "m", "rank": 2.0}, {"answer": ANSWER, "rank": 1.0}]}],
        [Expected((2, 1), (OTHER, ANSWER), more={"policies": ("m", "")})],
    ),
    "distilabel": (
        "completions",
        [{"instruction": USER, "generations": [ANSWER, OTHER, "x"], "ratings": [4.5, 1, 1], "models": ["a", "b", "c"]}],
        [Expected((1, 2, 2), (ANSWER, OTHER, "x"), "ranking", {"policies": ("a", "b", "c")})],
    ),
    "WMT": (
        "ranking",
        [
            {"question": USER, "judgeId": "j1", "segmentId": 4}
            | {f"system{n}": text for n, text in enumerate((ANSWER, OTHER, "x"), 1)}
            | {"system1Id": "s1", "system2Id": "s2", "system3Id": "s3"}
            | {"system1rank": "2", "system2rank": "1", "system3rank": third}
            for third in ("2", "-1")
        ],
        [
            Expected(
                (2, 1, 2),
                (ANSWER, OTHER, "x"),
                "ranking",
                {"policies": ("s1", "s2", "s3"), "annotator": "j1", "metadata": {"segmentId": 4}},
            ),
            Expected((2, 1), more={"policies": ("s1", "s2")}),
        ],
    ),
    "Label Studio, pairwise": (
        "label_studio",
        [
            task(
                annotation([control("pairwise", {"selected": "right"}, to="text1,text2")], {"id": 3, "email": "a@b.c"}),
                annotation([control("pairwise", {"selected": "left"})], 5, created_at="2024-01-01T10:00:00Z"),
                annotation([], was_cancelled=True),
                **SIDES,
            )
            | {"predictions": [{"result": []}], "drafts": [{"result": []}, {}]}
        ],
        [
            Expected((2, 1), more={"annotator": "a@b.c", "seconds": 4.5, "order_known": True}),
            Expected((1, 2), more={"annotator": "5"}),
        ],
    ),
    "Label Studio, choices": (
        "label_studio",
        [
            task(
                annotation(
                    [control("choices", {"choices": [chosen]}), control("textarea", {"text": ["why"]}, "reason")]
                ),
                **SIDES,
            )
            for chosen in ("text2", "2", "tie", "cannot_decide")
        ],
        [
            Expected((2, 1), more={"reason": "why", "order_known": False}),
            *[Expected((2, 1)), Expected((1, 1)), Expected(None)],
        ],
    ),
    "Label Studio, ratings": (
        "label_studio",
        [
            task(
                annotation(
                    [
                        control("rating", {"rating": rating}, name)
                        for name, rating in (("a_helpful", 2), ("b_helpful", 5), ("a_honest", 4), ("b_honest", 4))
                    ]
                ),
                prompt=USER,
                response_a=ANSWER,
                response_b=OTHER,
            )
        ],
        [Expected((2, 1), kind="rating", more={"ratings": {"helpful": (2, 5), "honest": (4, 4)}})],
    ),
    "Label Studio, ranker": (
        "label_studio",
        [
            task(annotation([control("ranker", {"ranker": buckets})]), prompt=USER, items=ITEMS)
            for buckets in (
                {"rank": ["r-b", "r-a", "r-c"]},
                {"_": [], "good": ["r-a", "r-c"], "ok": [], "bad": ["r-b"]},
            )
        ],
        [
            Expected((2, 1, 3), ("x", "y", "z"), "ranking"),
            Expected((1, 2, 1), ("x", "y", "z"), "ranking"),
        ],
    ),
    "Label Studio, JSON_MIN": (
        "label_studio",
        [
            {"id": 1, "annotator": 2, "annotation_id": 9, "lead_time": 3.0, "created_at": "2024-01-01T10:00:00Z"}
            | {**SIDES, "pref": chosen}
            for chosen in ("text1", [{"selected": "right"}])
        ],
        [Expected((1, 2), more={"annotator": "2", "seconds": 3.0}), Expected((2, 1), more={"order_known": True})],
    ),
    "Argilla, records": (
        "argilla",
        [
            {
                "fields": {"prompt": USER, "response-1": ANSWER, "response-2": OTHER},
                "responses": {
                    "preference": [{"value": "response-2", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}],
                    "reason": [{"value": "shorter", "user_id": "u1"}],
                },
                "suggestions": {"preference": {"value": "response-1"}},
                "metadata": {"batch": 1},
            }
        ],
        [
            Expected((2, 1), more={"annotator": "u1", "reason": "shorter", "metadata": {"batch": 1}}),
            Expected((1, 1), more={"annotator": "u2"}),
        ],
    ),
    "Argilla, columns": (
        "argilla",
        [
            {
                "prompt": USER,
                "response-1": ANSWER,
                "response-2": OTHER,
                "rank.responses": [["response-2", "response-1"], ["response-1", "response-2"]],
                "rank.responses.users": ["u1", "u2"],
                "rank.responses.status": ["submitted", "draft"],
                "rank.suggestion": None,
            }
        ],
        [Expected((2, 1), more={"annotator": "u1"})],
    ),
    "Argilla 1": (
        "argilla",
        [
            {
                "prompt": USER,
                "response-1": ANSWER,
                "response-2": OTHER,
                "ranking": {
                    "user_id": ["u1"],
                    "value": [[{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}]],
                    "status": ["submitted"],
                },
            }
        ],
        [Expected((1, 1), more={"annotator": "u1"})],
    ),
    "OASST, trees": (
        "tree",
        [
            {
                "message_tree_id": "t",
                "prompt": {
                    "text": USER,
                    "role": "prompter",
                    "replies": [
                        {"text": OTHER, "role": "assistant", "rank": 1, "replies": []},
                        {"text": ANSWER, "role": "assistant", "rank": 0, "replies": []},
                        {"text": "Not ranked.", "role": "assistant", "rank": None, "replies": []},
                    ],
                },
            }
        ],
        [Expected((2, 1), (OTHER, ANSWER), more={"annotator": "", "order_known": False})],
    ),
    "OASST, messages": (
        "tree",
        [
            MESSAGE | {"message_id": "t", "parent_id": None, "text": USER, "role": "prompter", "rank": None},
            MESSAGE | {"message_id": "1", "parent_id": "t", "text": ANSWER, "role": "assistant", "rank": 0.0},
            MESSAGE | {"message_id": "2", "parent_id": "t", "text": OTHER, "role": "assistant", "rank": 1.0},
            MESSAGE | {"message_id": "3", "parent_id": "1", "text": "More?", "role": "prompter", "rank": None},
            MESSAGE | {"message_id": "4", "parent_id": "3", "text": "x", "role": "assistant", "rank": 1.0},
            MESSAGE | {"message_id": "5", "parent_id": "3", "text": "y", "role": "assistant", "rank": 0.0},
        ],
        [
            Expected((1, 2)),
            Expected((2, 1), ("x", "y"), prompt=f"User: {USER}\n\nAssistant: {ANSWER}\n\nUser: More?"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_public_form_says_what_it_said(name: str) -> None:
    form, rows, expected = CASES[name]
    found = recognised(rows)
    assert found is FORMS[form]
    lines = [line for _, line in found.read(enumerate(rows, 1)) if not isinstance(line, LeftOut)]
    assert len(lines) == len(expected), lines
    for line, wanted in zip(lines, expected, strict=True):
        assert isinstance(line, JudgmentLine), line
        assert (line.ranks, line.responses, line.kind) == (wanted.ranks, wanted.responses, wanted.kind)
        assert str(line.prompt) == wanted.prompt
        assert {key: getattr(line, key) for key in wanted.more} == wanted.more


def left_out(name: str) -> list[str]:
    form, rows, _ = CASES[name]
    found = FORMS[form].read(enumerate(rows, 1))
    return sorted(one.reason for _, one in found if isinstance(one, LeftOut))


def test_what_is_no_judgment_is_counted() -> None:
    assert left_out("Label Studio, pairwise") == [*["drafts of tasks"] * 2, "predictions of tasks", "skipped tasks"]
    assert left_out("Argilla, columns") == ["responses with the status draft"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("preference", {"prompt": USER, "chosen": ANSWER, "rejected": None}, "`rejected` is missing"),
    ("preference", {"chosen": "A", "rejected": "B"}, "`prompt` is missing, and `chosen` and `rejected` do not begin"),
    (
        "preference",
        {"prompt": USER, "chosen": ANSWER, "rejected": OTHER, "score_chosen": 1, "score_rejected": 2},
        "the rejected response has the higher score",
    ),
    (
        "preference",
        {"chosen": [*ASK, said(ANSWER)], "rejected": [{"role": "user", "content": "Hi"}, said(OTHER)]},
        "`chosen` and `rejected` answer different messages",
    ),
    # It may be the second of two that are counted from 0, or the first of two that are counted from 1.
    ("pair", {"prompt": USER, "response_a": "x", "response_b": "y", "label": 1}, "`label`: '1' names none"),
    ("pair", {"prompt": USER, "response_1": "x", "response_2": "y", "label": 0}, "`label`: '0' names none"),
    ("pair", {"prompt": USER, "response_1": "x", "response_2": "y", "preference_strength": 4}, "`preference_st"),
    ("completions", {"prompt": USER, "completions": [{"text": "x", "score": 1}]}, "has 1 response, and two"),
    (
        "completions",
        {"prompt": USER, "completions": [{"text": "x", "score": 1}, {"text": "y"}]},
        "the completions have",
    ),
    ("ranking", {"question": USER, "system1rank": 1, "system2rank": 2}, "`system1rank` is there, and the text"),
    ("openai", {"info": {}, "summaries": [{"text": "x"}, {"text": "y"}], "choice": 0}, "`info` has neither `post`"),
    (
        "label_studio",
        task(annotation([control("choices", {"choices": ["purple"]})]), **SIDES),
        "`pref`: 'purple'",
    ),
    ("label_studio", task(annotation([]), **SIDES), "no answer says which response is better"),
    (
        "label_studio",
        task(
            annotation([control("ranker", {"ranker": {"_": ["r-a"], "x": ["r-b", "r-c"]}})]), prompt=USER, items=ITEMS
        ),
        "2 of 3 responses have a rank",
    ),
    (
        "tree",
        MESSAGE | {"message_id": "1", "parent_id": "gone", "text": ANSWER, "role": "assistant", "rank": 0.0},
        "answers the message gone, which is not among the rows",
    ),
]


@pytest.mark.parametrize(("form", "row", "reason"), REFUSED)
def test_what_a_form_cannot_say_is_refused(form: str, row: dict[str, Any], reason: str) -> None:
    found = [one for _, one in FORMS[form].read([(1, row)])]
    assert len(found) == 1
    assert isinstance(found[0], BadLineError)
    assert str(found[0]).startswith(reason)
