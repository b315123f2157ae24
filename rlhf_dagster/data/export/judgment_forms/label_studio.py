"""Tasks with annotations, as Label Studio exports and imports them."""

from collections.abc import Iterator

from rlhf_dagster.data.export.judgment_forms.base import AS_NEW, NotHeldError, OutgoingForm, text_or_messages
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.outcome import best
from rlhf_dagster.records.tables import Row

_MARKS = "abcdefghijklmnopqrstuvwxyz"
"""Responses by the place where they are shown."""
TOO_MANY = f"more than {len(_MARKS)} responses"


def _task(judgment: OutgoingJudgment) -> list[Row]:
    line = judgment.line
    if len(line.responses) > len(_MARKS):
        raise NotHeldError(TOO_MANY)
    responses = {f"response_{mark}": text for mark, text in zip(_MARKS, line.responses, strict=False)}
    annotation: Row = {"completed_by": {"email": line.annotator} if line.annotator else None}
    annotation |= {"result": list(_regions(line)), "was_cancelled": False}
    annotation |= {"created_at": line.submitted_at, "lead_time": line.seconds}
    data = {"comparison": line.comparison, "prompt": text_or_messages(line.prompt), **responses}
    return [{"data": data, "annotations": [{key: one for key, one in annotation.items() if one is not None}]}]


def _regions(line: JudgmentLine) -> Iterator[Row]:
    """The answers to the page's questions."""
    yield from _outcome(line)
    if line.reason:
        yield _region("reason", "prompt", "textarea", {"text": [line.reason]})


def _outcome(line: JudgmentLine) -> Iterator[Row]:
    if line.ranks is None:
        yield _chosen("cannot_decide")
    elif line.ratings:
        yield from _ratings(line)
    elif len(line.ranks) == 2:
        yield _better(line)
    elif line.kind == "best_of_k" and len(best(line.ranks)) == 1:
        yield _chosen(_MARKS[best(line.ranks)[0]])
    else:
        ranked = {
            f"rank_{rank}": [mark for mark, own in zip(_MARKS, line.ranks, strict=False) if own == rank]
            for rank in range(1, max(line.ranks) + 1)
        }
        yield _region(
            "rank", "responses", "ranker", {"ranker": ranked if len(ranked) > 1 else {**ranked, "rank_2": []}}
        )


def _better(line: JudgmentLine) -> Row:
    """Of two; only a side that was chosen says that the responses stood side by side in this order."""
    chosen = best(line.ranks or ())
    if len(chosen) == 2:
        return _chosen("tie")
    if not line.order_known:
        return _chosen(_MARKS[chosen[0]])
    side = {"selected": ("left", "right")[chosen[0]]}
    return _region("preference", "response_a,response_b", "pairwise", side)


def _ratings(line: JudgmentLine) -> Iterator[Row]:
    for axis, values in (line.ratings or {}).items():
        for mark, value in zip(_MARKS, values, strict=False):
            yield _region(f"{mark}_{axis}", f"response_{mark}", "rating", {"rating": value})


def _chosen(what: str) -> Row:
    return _region("preference", "prompt", "choices", {"choices": [what]})


def _region(name: str, about: str, kind: str, value: Row) -> Row:
    return {"from_name": name, "to_name": about, "type": kind, "value": value}


LABEL_STUDIO = OutgoingForm(
    "label_studio",
    "one task a judgment, with its annotation: `data`, `annotations`",
    _task,
    None,
    (
        AS_NEW,
        "the order shown, but of pairs of which one is better",
        "of comparisons of more than two: several best and all ties, which become rankings",
        "policies, strength, flags, splits, weights and metadata",
    ),
)
