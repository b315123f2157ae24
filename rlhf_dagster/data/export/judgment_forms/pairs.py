"""Forms with one row for every two responses of which one was judged better."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from rlhf_dagster.data.export.judgment_forms.base import (
    AS_NEW,
    LOOP_COLUMNS,
    NOT_DECIDED,
    TIED,
    Facts,
    NotHeldError,
    OutgoingForm,
    as_messages,
    beside,
    said,
    text_or_messages,
)
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import CHAT_MESSAGES, Columns
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.schemas import FLOAT, INT, STRING
from rlhf_dagster.records.tables import Row

_Rows = Callable[[OutgoingJudgment], list[Row]]


def better_and_worse(line: JudgmentLine) -> Iterator[tuple[int, int]]:
    """Every two responses of which one was judged better, as Ouyang et al. (2022, section 3.5) train on rankings."""
    ranks = line.ranks or ()
    for one, rank in enumerate(ranks):
        yield from ((one, other) for other, worse in enumerate(ranks) if rank < worse)


def _pairs(judgment: OutgoingJudgment) -> Iterator[tuple[int, int, Row]]:
    """The better and the worse response of each pair, with what stands beside; raises NotHeldError where none is.

    The pairs of one judgment share its weight, so that a ranking of many responses counts no more than a pair.
    """
    line = judgment.line
    if line.ranks is None:
        raise NotHeldError(NOT_DECIDED)
    found = list(better_and_worse(line))
    if not found:
        raise NotHeldError(TIED)
    share = None if judgment.weight is None else judgment.weight / len(found)
    for better, worse in found:
        name = line.comparison if len(line.responses) == 2 else f"{line.comparison}/{better}-{worse}"
        about = {"comparison": name, "annotator": line.annotator or None} | _policies(line, better, worse)
        yield better, worse, about | beside(judgment) | {"weight": share}


def _policies(line: JudgmentLine, better: int, worse: int) -> Row:
    known = any(line.policies)
    names = {"chosen_model": line.policies[better], "rejected_model": line.policies[worse]} if known else {}
    return names | {"strength": line.strength}


def _chosen(asked: Callable[[JudgmentLine], Row], text: Callable[[JudgmentLine, int], object]) -> _Rows:
    """Rows with ``asked``, and the two responses as ``text`` gives them."""

    def rows(judgment: OutgoingJudgment) -> list[Row]:
        line = judgment.line
        return [
            asked(line) | {"chosen": text(line, better), "rejected": text(line, worse)} | about
            for better, worse, about in _pairs(judgment)
        ]

    return rows


def _chosen_columns(prompt: bool, messages: bool) -> Callable[[Facts], Columns]:
    def columns(facts: Facts) -> Columns:
        texts = CHAT_MESSAGES if messages else STRING
        asked = {"prompt": CHAT_MESSAGES if messages else facts.prompt} if prompt else {}
        names = dict.fromkeys(("comparison", "annotator", "chosen_model", "rejected_model"), STRING)
        return {**asked, "chosen": texts, "rejected": texts, **names, "strength": FLOAT, **LOOP_COLUMNS}

    return columns


def _openai(judgment: OutgoingJudgment) -> list[Row]:
    line = judgment.line
    return [
        {
            "comparison": about["comparison"],
            "info": {"id": about["comparison"], "post": str(line.prompt)},
            "summaries": [_summary(line, place) for place in sorted((better, worse))],
            "choice": int(better > worse),
            "worker": line.annotator or None,
            "batch": judgment.round,
            "split": judgment.split or None,
            "weight": about["weight"],
        }
        for better, worse, about in _pairs(judgment)
    ]


def _summary(line: JudgmentLine, place: int) -> Row:
    return {"text": line.responses[place], "policy": line.policies[place] if line.policies else ""}


def _openai_columns(_: Facts) -> Columns:
    texts = pa.list_(pa.struct([("text", STRING), ("policy", STRING)]))
    named = {
        "comparison": STRING,
        "info": pa.struct([("id", STRING), ("post", STRING)]),
        "summaries": texts,
        "choice": INT,
    }
    return {**named, "worker": STRING, "batch": STRING, "split": STRING, "weight": FLOAT}


def _openai_preference(judgment: OutgoingJudgment) -> list[Row]:
    line = judgment.line
    return [
        {
            "input": {"messages": as_messages(line.prompt)},
            "preferred_output": said(line.responses[better]),
            "non_preferred_output": said(line.responses[worse]),
        }
        for better, worse, _ in _pairs(judgment)
    ]


def _openai_preference_columns(_: Facts) -> Columns:
    asked = pa.struct([("messages", CHAT_MESSAGES)])
    return {"input": asked, "preferred_output": CHAT_MESSAGES, "non_preferred_output": CHAT_MESSAGES}


_PAIRS_LOSE = (
    AS_NEW,
    "ties and *cannot decide*, which are left out",
    "comparisons of more than two, which become a pair of every better and worse response",
    "the order shown",
    "ratings, flags, reasons and times",
)
_AS_CHAT = "a prompt that is a text, which becomes a chat of one user's message"
PAIR_FORMS = (
    OutgoingForm(
        "trl",
        "one row a pair: `prompt`, `chosen`, `rejected`",
        _chosen(lambda line: {"prompt": text_or_messages(line.prompt)}, lambda line, place: line.responses[place]),
        _chosen_columns(prompt=True, messages=False),
        _PAIRS_LOSE,
    ),
    OutgoingForm(
        "trl_messages",
        "the same, all of them messages",
        _chosen(lambda line: {"prompt": as_messages(line.prompt)}, lambda line, place: said(line.responses[place])),
        _chosen_columns(prompt=True, messages=True),
        (*_PAIRS_LOSE, _AS_CHAT),
    ),
    OutgoingForm(
        "trl_implicit",
        "one row a pair: `chosen` and `rejected`, messages that begin with the prompt's",
        _chosen(lambda _: {}, lambda line, place: [*as_messages(line.prompt), *said(line.responses[place])]),
        _chosen_columns(prompt=False, messages=True),
        (*_PAIRS_LOSE, _AS_CHAT),
    ),
    OutgoingForm(
        "openai",
        "one row a pair, as OpenAI's comparisons of summaries: `info`, `summaries`, `choice`, `worker`",
        _openai,
        _openai_columns,
        (
            *_PAIRS_LOSE,
            "the prompt as it is, which comes in as a post with the words that ask for a summary",
            "strength",
        ),
    ),
    OutgoingForm(
        "openai_preference",
        "one row a pair, as OpenAI fine-tunes on: `input`, `preferred_output`, `non_preferred_output`",
        _openai_preference,
        _openai_preference_columns,
        (*_PAIRS_LOSE, _AS_CHAT, "names of comparisons, annotators and policies; strength, weights and splits"),
    ),
)
