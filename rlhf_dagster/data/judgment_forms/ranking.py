"""Rankings in wide tables: a column for each response, its rank and its system, as WMT's rankings of translations."""

from collections.abc import Iterator

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowValues
from rlhf_dagster.data.judgment_forms.columns import described, names_beside, prompt_from, wide_responses
from rlhf_dagster.data.judgment_forms.outcomes import by_order, checked_count
from rlhf_dagster.data.judgment_forms.pair import POLICY_COLUMNS
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, json_text, name_of, number_of
from rlhf_dagster.data.lines import BadLineError

_RANKS = ("rank_{}", "rank{}", "system{}rank", "{}_rank", "response_{}_rank", "response{}_rank", "answer_{}_rank")
_MOST = 26
_NOT_RANKED = -1
"""Stands in place of a rank in WMT's tables."""


class RankingForm(JudgmentForm):
    """Two or more responses with a rank each; one without a rank was not judged."""

    name = "ranking"
    shape = "columns `response1`, `rank1`, `response2`, `rank2` and so on (`system1`, `system1rank`, `system1Id`)"

    def fits(self, row: RowValues) -> bool:
        return bool(_ranks(row))

    def lines(self, row: RowValues) -> Iterator[JudgmentLine]:
        ranks = _ranks(row)
        if not ranks:
            raise BadLineError("has no columns with ranks, such as `rank1` and `rank2`")
        wide = wide_responses(row)
        if not set(ranks) <= set(wide):
            raise BadLineError(f"`{next(iter(ranks.values()))}` is there, and the text that has this rank is not")
        policies = dict(zip(ranks, names_beside(row, tuple(ranks), POLICY_COLUMNS), strict=False))
        order = {mark: number_of(row, column) for mark, column in ranks.items()}
        judged = {mark: rank for mark, rank in order.items() if rank is not None and rank != _NOT_RANKED}
        checked_count(len(judged))
        prompt, used = prompt_from(row)
        yield JudgmentLine(
            prompt=prompt,
            responses=tuple(_text(row, wide[mark]) for mark in judged),
            policies=tuple(name_of(row, policies[mark]) for mark in judged) if policies else (),
            order_known=row.get("order_known") in (True, "true", "True"),
            **by_order(list(judged.values())),
            **described(row, used | {*ranks.values(), *wide.values(), *policies.values(), "order_known"}),
        )


def _text(row: RowValues, column: str) -> str:
    return "" if is_missing(row[column]) else json_text(row[column], f"`{column}`")


def _ranks(row: RowValues) -> dict[str, str]:
    """The columns with ranks, by what tells the responses apart."""
    for first in "01a":
        found: dict[str, str] = {}
        for step in range(_MOST):
            mark = chr(ord(first) + step) if first == "a" else str(int(first) + step)
            columns = names_beside(row, (mark,), _RANKS)
            if not columns:
                break
            found[mark] = columns[0]
        if len(found) > 1:
            return found
    return {}
