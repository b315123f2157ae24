"""Trees of messages with ranks: whole in a row, or a row a message."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.outcomes import by_order
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, json_text, name_of, number_of, plain
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in
from rlhf_dagster.data.reading.source import NumberedRow

_ROLES = {"prompter": "user", "user": "user", "assistant": "assistant", "system": "system"}
_ABOUT = ("message_tree_id", "lang")


class TreeForm(JudgmentForm):
    """The ranked answers to each message of a tree are one ranking; who ranked is not said (Köpf et al. 2023).

    Rows of a message each are put together as long as they are of the same tree; the rows of a tree follow each other.
    """

    name = "tree"
    shape = "`message_tree_id` and `prompt` with `replies`, or a row a message with `parent_id`, `role` and `rank`"

    kept = (*_ABOUT, "message_ids")

    def fits(self, row: RowValues) -> bool:
        return _is_whole(row) or _is_message(row)

    def lines(self, row: RowValues) -> Iterator[RowContent]:
        if not _is_whole(row):
            raise BadLineError("is neither a tree, with `prompt` and its `replies`, nor a message of one")
        about = {key: row[key] for key in _ABOUT if not is_missing(row.get(key))}
        yield from _rankings([], row["prompt"], about)

    def read(self, rows: Iterable[NumberedRow]) -> Iterator[tuple[int, RowContent]]:
        """As for other forms; the messages of one tree are gathered first, and named by the last of their rows."""
        yield from super().read(_trees(rows))


def _is_whole(row: RowValues) -> bool:
    return isinstance(row.get("prompt"), Mapping) and "replies" in row["prompt"]


def _is_message(row: RowValues) -> bool:
    return all(key in row for key in ("message_id", "parent_id", "role", "text"))


def _trees(rows: Iterable[NumberedRow]) -> Iterator[NumberedRow]:
    gathered: list[RowValues] = []
    last = 0
    for number, row in rows:
        if isinstance(row, BadLineError) or not _is_message(row):
            yield number, row
            continue
        if gathered and row.get("message_tree_id") != gathered[0].get("message_tree_id"):
            yield from ((last, tree) for tree in _gathered(gathered))
            gathered = []
        gathered.append(row)
        last = number
    yield from ((last, tree) for tree in _gathered(gathered))


def _gathered(messages: Sequence[RowValues]) -> Iterator[Mapping[str, Any] | BadLineError]:
    """The trees of some messages, and a refusal where one answers a message that is not there."""
    by_id = {name_of(message, "message_id"): {**message, "replies": []} for message in messages}
    for message in by_id.values():
        parent = name_of(message, "parent_id")
        if parent in by_id:
            by_id[parent]["replies"].append(message)
        elif parent:
            yield BadLineError(f"answers the message {parent[:40]}, which is not among the rows of its tree")
    roots = (message for message in by_id.values() if is_missing(message.get("parent_id")))
    for root in roots:
        yield {**{key: root.get(key) for key in _ABOUT}, "prompt": root}


def _rankings(before: list[dict[str, str]], root: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[RowContent]:
    """One ranking for each message whose answers are ranked, from the root down."""
    waiting = [(before, root)]
    while waiting:
        turns, message = waiting.pop()
        try:
            turns = [*turns, _turn(message)]
            replies = [one for one in message.get("replies") or [] if isinstance(one, Mapping)]
            ranked = [one for one in replies if not is_missing(one.get("rank")) and one.get("role") == "assistant"]
            if len(ranked) > 1:
                yield _ranking(turns, ranked, about)
        except BadLineError as error:
            yield error
        else:
            waiting += [(turns, reply) for reply in reversed(replies)]


def _ranking(
    turns: list[dict[str, str]], ranked: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> JudgmentLine:
    models = tuple(name_of(one, "model_name") for one in ranked)
    ranks = [number_of(one, "rank") or 0.0 for one in ranked]
    return JudgmentLine(
        comparison="",
        prompt=prompt_in({"prompt": turns}),
        responses=tuple(json_text(one.get("text"), "a reply") for one in ranked),
        annotator="",
        order_known=False,
        policies=models if any(models) else (),
        metadata=plain({**about, "message_ids": [one.get("message_id") for one in ranked]}),
        **by_order(ranks),
    )


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    role = _ROLES.get(str(message.get("role")))
    if not role:
        raise BadLineError(f"a message has the role {str(message.get('role'))[:40]!r}; known: {', '.join(_ROLES)}")
    return {"role": role, "content": json_text(message.get("text"), "a message")}
