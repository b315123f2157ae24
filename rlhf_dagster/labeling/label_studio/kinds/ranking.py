"""Several responses, put into an order with ties."""

from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Page, Result, Values, choice_in
from rlhf_dagster.labeling.label_studio.markup import KEYS, answer_panel, choice_row, response_cards
from rlhf_dagster.labeling.label_studio.ranker import BUCKETS, LETTERS, items, ranker_of, ranks_in
from rlhf_dagster.records.answers import UnreadableError


class RankingPage(Page):
    def instructions(self) -> str:
        return (
            "Read the prompt and all responses, then drag every letter into a rank, **1** being the best. Responses "
            "of the same rank are equally good. When all have a rank, mark the order as final. On the keyboard: Tab "
            "to a letter, Space to lift it, arrow keys to move it, Space to drop it."
        )

    def markup(self) -> Iterable[str]:
        ranks = range(1, self.room + 1)
        titles = {rank: f"{rank} (best)" if rank == 1 else str(rank) for rank in ranks}
        buckets = [f"<Bucket name={quoteattr(BUCKETS[rank - 1])} title={quoteattr(titles[rank])}/>" for rank in ranks]
        ranker = ['<Ranker name="rank" toName="responses" collapsible="false">', *buckets, "</Ranker>"]
        required = "Say whether the order is final, or skip the task."
        status = choice_row("rank_status", [("Order is final", "final")], iter(KEYS), cannot=True, required=required)
        unranked = '<List name="responses" value="$items" title="Not ranked"/>'
        return [response_cards(self.room), answer_panel(unranked, "\n".join(ranker), status)]

    def controls(self, k: int) -> dict[str, Control]:
        return {"rank": Control("ranker", "responses"), "rank_status": Control("choices")}

    def task_data(self, k: int) -> dict[str, Any]:
        named = zip(items(k), LETTERS, strict=False)
        return {"items": [{"id": identity, "title": letter.upper()} for identity, letter in named]}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        status = choice_in(values, "rank_status", ["final", CANNOT_DECIDE])
        ranks, moved = ranks_in(values.get("rank"), k)
        if status == CANNOT_DECIDE:
            if moved:
                raise UnreadableError("`rank_status` says that it cannot be decided, and `rank` holds a ranking.")
            return {"cannot_decide": True}
        if ranks is None:
            raise UnreadableError("The ranking is not finished: some responses have no rank.")
        return {"ranks": ranks}

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        status = CANNOT_DECIDE if "cannot_decide" in result else "final"
        return {"rank": ranker_of(result.get("ranks"), k), "rank_status": [status]}
