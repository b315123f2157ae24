"""Several responses, put into an order with ties."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import UnreadableError
from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Result, Values, choice_in
from rlhf_dagster.labeling.label_studio.markup import KEYS, _answer, _cards, _choices
from rlhf_dagster.labeling.label_studio.ranker import BUCKETS, ranker_of, ranks_in


def _ranking(settings: LabelingSettings) -> Iterable[str]:
    ranks = range(1, settings.responses + 1)
    titles = {rank: f"{rank} (best)" if rank == 1 else str(rank) for rank in ranks}
    buckets = [f"<Bucket name={quoteattr(BUCKETS[rank - 1])} title={quoteattr(titles[rank])}/>" for rank in ranks]
    ranker = ['<Ranker name="rank" toName="responses" collapsible="false">', *buckets, "</Ranker>"]
    final = [("Order is final", "final")]
    status = _choices(
        "rank_status", final, iter(KEYS), cannot=True, required="Say whether the order is final, or skip the task."
    )
    items = '<List name="responses" value="$items" title="Not ranked"/>'
    return [_cards(settings.responses), _answer(items, "\n".join(ranker), status)]


@dataclass(frozen=True)
class RankingPage:
    k: int

    def controls(self) -> dict[str, Control]:
        return {"rank": Control("ranker", "responses"), "rank_status": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        status = choice_in(values, "rank_status", ["final", CANNOT_DECIDE])
        ranks, moved = ranks_in(values.get("rank"), self.k)
        if status == CANNOT_DECIDE:
            if moved:
                raise UnreadableError("`rank_status` says that it cannot be decided, and `rank` holds a ranking.")
            return {"cannot_decide": True}
        if ranks is None:
            raise UnreadableError("The ranking is not finished: some responses have no rank.")
        return {"ranks": ranks}

    def encode(self, result: Result) -> dict[str, Any]:
        status = CANNOT_DECIDE if "cannot_decide" in result else "final"
        return {"rank": ranker_of(result.get("ranks"), self.k), "rank_status": [status]}
