"""Our own form, which holds all that is known of a judgment, and two responses side by side in one row of text."""

import pyarrow as pa

from rlhf_dagster.data.export.judgment_forms.base import (
    AS_NEW,
    LOOP_COLUMNS,
    MORE_THAN_TWO,
    Facts,
    NotHeldError,
    OutgoingForm,
    beside,
    text_or_messages,
)
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import Columns
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.schemas import FLOAT, INTS, STRING, STRINGS, TIME
from rlhf_dagster.records.tables import Row

_WINNERS, _CANNOT_DECIDE = {-1: "a", 1: "b", 0: "tie"}, "cannot decide"


def _own(judgment: OutgoingJudgment) -> list[Row]:
    line = judgment.line
    row = {"comparison": line.comparison, "prompt": text_or_messages(line.prompt), "responses": list(line.responses)}
    row |= {"annotator": line.annotator or None, "kind": line.kind, **_outcome(line), "order_known": line.order_known}
    row |= {"strength": line.strength, "policies": list(line.policies) or None, "flags": list(line.flags) or None}
    row |= {"reason": line.reason or None, "submitted_at": line.submitted_at, "seconds": line.seconds}
    return [row | {"metadata": dict(line.metadata) or None} | beside(judgment)]


def _own_columns(facts: Facts) -> Columns:
    ratings = pa.struct([(axis, INTS) for axis in facts.axes])
    return {
        **{"comparison": STRING, "prompt": facts.prompt, "responses": STRINGS, "annotator": STRING, "kind": STRING},
        **{"choice": STRING, "ranks": INTS, **({"ratings": ratings} if facts.axes else {}), "order_known": pa.bool_()},
        **{"strength": FLOAT, "policies": STRINGS, "flags": STRINGS, "reason": STRING, "submitted_at": TIME},
        **{"seconds": FLOAT, "metadata": STRING, **LOOP_COLUMNS},
    }


def _outcome(line: JudgmentLine) -> Row:
    if line.ratings:
        return {"ratings": {axis: list(values) for axis, values in line.ratings.items()}}
    return {"choice": None} if line.ranks is None else {"ranks": list(line.ranks)}


def _pair(judgment: OutgoingJudgment) -> list[Row]:
    line = judgment.line
    if len(line.responses) != 2:
        raise NotHeldError(MORE_THAN_TWO)
    winner = _CANNOT_DECIDE if line.ranks is None else _WINNERS[line.ranks[0] - line.ranks[1]]
    models = line.policies if any(line.policies) else (None, None)
    row: Row = {"comparison": line.comparison, "prompt": str(line.prompt), "winner": winner}
    row |= {"response_a": line.responses[0], "response_b": line.responses[1]}
    row |= {"model_a": models[0], "model_b": models[1], "annotator": line.annotator or None}
    row |= {"strength": line.strength, "order_known": line.order_known, "reason": line.reason or None}
    return [row | {"submitted_at": line.submitted_at, "seconds": line.seconds} | beside(judgment)]


def _pair_columns(_: Facts) -> Columns:
    texts = ("comparison", "prompt", "response_a", "response_b", "winner", "model_a", "model_b", "annotator")
    told = {"strength": FLOAT, "order_known": pa.bool_(), "reason": STRING, "submitted_at": TIME, "seconds": FLOAT}
    return {**dict.fromkeys(texts, STRING), **told, **LOOP_COLUMNS}


OWN = OutgoingForm("own", "one row a judgment, with all that is known of it", _own, _own_columns, (AS_NEW,))
PAIR_ROWS = OutgoingForm(
    "pair",
    "one row a judgment of two responses: `response_a`, `response_b`, `winner`",
    _pair,
    _pair_columns,
    (
        AS_NEW,
        "comparisons of more than two, which are left out",
        "the kind, which becomes a pair; ratings and flags",
        "the messages of a chat, which become a text",
    ),
)
