"""The forms of others, out and in again by the reader that the import would choose."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, given
from outgoing_judgments import judgments

from rlhf_dagster.data.export.judgment_forms.base import NotHeldError
from rlhf_dagster.data.export.judgment_forms.known import OUTGOING_FORMS
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import rows_to
from rlhf_dagster.data.judgment_forms.known import recognised
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.chats import Chat, Message, Prompt
from rlhf_dagster.records.outcome import best

READ_AS = {
    "own": "own",
    "pair": "pair",
    "trl": "preference",
    "trl_messages": "preference",
    "trl_implicit": "preference",
    "openai": "openai",
    "openai_preference": "openai",
    "label_studio": "label_studio",
}
NOT_HELD: dict[str, Any] = {"flags": (), "reason": "", "submitted_at": None, "seconds": None, "ratings": None}
"""What no form of pairs holds."""


def in_again(name: str, judgment: OutgoingJudgment) -> list[Any]:
    """What comes in of what goes out, through a file of JSON lines."""
    rows = OUTGOING_FORMS[name].rows(judgment)
    with TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        with rows_to(path, {}) as write:
            for row in rows:
                write(row)
        read = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    form = recognised(read)
    assert form is not None
    assert form.name == READ_AS[name]
    return [found for row in read for found in form.found_in(row)]


def of_pair(line: JudgmentLine, prompt: Prompt) -> JudgmentLine:
    """A decided pair as a form of chosen and rejected holds it: the better response first."""
    order = (0, 1) if line.ranks == (1, 2) else (1, 0)
    names = tuple(line.policies[place] for place in order) if any(line.policies) else ()
    texts = tuple(line.responses[place] for place in order)
    changes = {"ranks": (1, 2), "responses": texts, "policies": names, "order_known": False, "metadata": {}}
    return replace(line, prompt=prompt, **changes, **NOT_HELD)


def as_chat(prompt: Prompt) -> Prompt:
    return prompt if isinstance(prompt, Chat) else Chat((Message("user", prompt),))


def without_metadata(found: Any) -> JudgmentLine:
    assert isinstance(found, JudgmentLine), found
    return replace(found, metadata={})


@pytest.mark.parametrize("name", ["trl", "trl_messages", "trl_implicit"])
@given(judgment=judgments(kinds=("pair",)))
def test_chosen_and_rejected(name: str, judgment: OutgoingJudgment) -> None:
    line = judgment.line
    assume(line.ranks in ((1, 2), (2, 1)))
    (found,) = in_again(name, judgment)
    assert without_metadata(found) == of_pair(line, line.prompt if name == "trl" else as_chat(line.prompt))
    assert isinstance(found, JudgmentLine)
    assert found.metadata["round"] == "round-0001"
    assert found.metadata.get("weight") == judgment.weight


@given(judgments(kinds=("pair",)))
def test_openai_comparisons(judgment: OutgoingJudgment) -> None:
    line = judgment.line
    assume(line.ranks in ((1, 2), (2, 1)))
    (found,) = in_again("openai", judgment)
    asked = f"POST: {line.prompt}\n\nTL;DR:"
    names = line.policies or ("", "")
    expected = replace(line, prompt=asked, policies=names, order_known=False, strength=None, metadata={}, **NOT_HELD)
    assert without_metadata(found) == expected


@given(judgments(kinds=("pair",)))
def test_openai_preferences(judgment: OutgoingJudgment) -> None:
    line = judgment.line
    assume(line.ranks in ((1, 2), (2, 1)))
    (found,) = in_again("openai_preference", judgment)
    nameless = {"comparison": "", "annotator": "", "strength": None, "policies": ()}
    assert found == replace(of_pair(line, as_chat(line.prompt)), **nameless)


@given(judgments(kinds=("pair",)))
def test_two_responses_side_by_side(judgment: OutgoingJudgment) -> None:
    line = judgment.line
    (found,) = in_again("pair", judgment)
    names = line.policies if any(line.policies) else ()
    expected = replace(line, prompt=str(line.prompt), policies=names, flags=(), metadata={})
    assert without_metadata(found) == expected


@given(judgments())
def test_label_studio(judgment: OutgoingJudgment) -> None:
    line = judgment.line
    (found,) = in_again("label_studio", judgment)
    read = without_metadata(found)
    lost: dict[str, Any] = {"policies": (), "strength": None, "flags": (), "metadata": {}, "kind": read.kind}
    side_by_side = line.order_known and len(line.responses) == 2 and line.kind != "rating"
    decided = line.ranks in ((1, 2), (2, 1))
    assert read == replace(line, **lost, order_known=side_by_side and decided)
    if line.ranks is not None and line.kind in ("pair", "ranking") and len(line.responses) > 2:
        assert read.kind == line.kind
    if line.kind == "best_of_k" and len(line.responses) > 2 and line.ranks and len(best(line.ranks)) == 1:
        assert read.kind == "best_of_k"


@given(judgments())
def test_pairs_of_more_than_two_come_in_as_pairs(judgment: OutgoingJudgment) -> None:
    try:
        rows = OUTGOING_FORMS["trl"].rows(judgment)
    except NotHeldError:
        return
    found = [without_metadata(one) for one in in_again("trl", judgment)]
    assert [line.ranks for line in found] == [(1, 2)] * len(rows)
    assert len({line.comparison for line in found}) == len(rows)
