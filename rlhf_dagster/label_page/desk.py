"""One person's work on a loop: which comparison comes next, and what was answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.demonstrations import DEMONSTRATION_ROUND
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore, annotation_id
from rlhf_dagster.labeling.forms import is_ab, read_answer, read_extras
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.loop.annotators import BATCHES, OpenBatch, open_batches, require_batch
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.answers import UnreadableError
from rlhf_dagster.records.chats import ROLE_NAMES, Chat, prompt_of_row
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import PAIR
from rlhf_dagster.records.machines import is_machine
from rlhf_dagster.records.outcome import to_display
from rlhf_dagster.records.tables import Row, records

LONGEST_SECONDS = 3600.0
"""More time than this for one comparison was not spent on it."""


@dataclass(frozen=True)
class ShownComparison:
    """A comparison as a person sees it."""

    comparison_id: str
    round: str
    purpose: str
    kind: str
    prompt: list[tuple[str, str]]
    """The turns of the prompt, each with who says it; a text is one turn of nobody."""
    responses: list[str]
    """In the order in which they are shown."""
    axes: list[str]
    """What is rated, or judged besides which response is better."""
    strength: bool
    """Whether a pair also asks how much better."""
    answer: Mapping[str, Any] | None
    """What this person has answered before."""


@dataclass(frozen=True)
class BatchProgress:
    round: str
    purpose: str
    yours: int
    """Comparisons that this person has judged."""
    complete: int
    comparisons: int


class Desk:
    """The work of the annotator called ``name``, who is on record under a pseudonym.

    Raises UserError where people label in Label Studio, or where the round is not collected.
    """

    def __init__(self, loop: LoopFolder, name: str, round_key: str | None = None) -> None:
        settings = loop.config.label_store
        if settings.kind != "embedded":
            raise UserError(f"The annotators of this loop work in Label Studio, at {settings.url}.")
        if not name.strip():
            raise UserError("Labels stay on record: give your name with --by.")
        if is_machine(name):
            raise UserError(f"{name} is a name for machines; give your own with --by.")
        self.loop, self.round_key, self.annotator = loop, round_key, loop.people.of(name)
        self._set_aside: dict[str, None] = {}
        if round_key is not None and not loop.has_table(BATCHES["evaluation"], round_key):
            require_batch(loop, round_key, "train")

    @property
    def store(self) -> EmbeddedLabelStore:
        return self.loop.ledger

    def batches(self) -> list[OpenBatch]:
        """What may still want labels: demonstrations to write, then the open rounds, or the one asked for."""
        found = open_batches(self.loop, self.round_key, BATCHES)
        written = self.round_key is None and any(self.store.size(DEMONSTRATION_ROUND, DEMONSTRATION_ROUND))
        return [*([(DEMONSTRATION_ROUND, DEMONSTRATION_ROUND)] if written else []), *found]

    def next(self) -> ShownComparison | None:
        """The next comparison for this person; None where there is none. What was skipped comes last."""
        for batch in self.batches():
            rows = self._open_rows(batch)
            if rows:
                return self._question(min(rows, key=self._order))
        return None

    def question(self, comparison_id: str) -> ShownComparison:
        """A comparison that was shown before, with this person's answer."""
        return self._question(self._row(comparison_id))

    def answer(self, comparison_id: str, result: Any, seconds: float | None) -> None:
        """Record an answer; a second one to the same comparison is an edit. Raises UserError for what is no answer."""
        row = self._row(comparison_id)
        try:
            read_answer(result, row, self.loop.config.labeling.rating_axes)
            read_extras(result)
        except UnreadableError as error:
            raise UserError(str(error)) from None
        self._submit(Submission(comparison_id, self.annotator, result, _measured(seconds)))

    def skip(self, comparison_id: str, seconds: float | None) -> None:
        """Pass over a comparison: it is on record, and shown again when nothing else is left."""
        self._row(comparison_id)
        self._set_aside[comparison_id] = None
        self._submit(Submission(comparison_id, self.annotator, {}, _measured(seconds), status="skipped"))

    def progress(self, batch: OpenBatch) -> BatchProgress:
        judged, mine = self._judged(batch)
        rows = records(self.store.comparisons(*batch))
        complete = sum(judged[row["comparison_id"]] >= row["labels_wanted"] for row in rows)
        return BatchProgress(*batch, yours=sum(mine.values()), complete=complete, comparisons=len(rows))

    def _submit(self, submission: Submission) -> None:
        self.loop.label_store.submit_many([submission])

    def _open_rows(self, batch: OpenBatch) -> list[Row]:
        """The comparisons that want a label which this person has not given."""
        judged, mine = self._judged(batch)
        return [
            row
            for row in records(self.store.comparisons(*batch))
            if judged[row["comparison_id"]] < row["labels_wanted"]
            and not mine.get(row["comparison_id"], False)
            and (row["comparison_id"] not in mine or row["comparison_id"] in self._set_aside)
        ]

    def _judged(self, batch: OpenBatch) -> tuple[Counter[str], dict[str, bool]]:
        """How many people have judged each comparison; and of those this person has met, whether they are judged."""
        annotations, _ = self.store.read(*batch)
        newest = {(one.comparison_id, one.annotator): one.status == "submitted" for one in annotations}
        judged = Counter(key for (key, name), given in newest.items() if given and not is_machine(name))
        return judged, {key: given for (key, name), given in newest.items() if name == self.annotator}

    def _order(self, row: Mapping[str, Any]) -> tuple[bool, bool, str]:
        """Repeats after what they repeat, skipped ones last, else in an order of this person's own."""
        key = row["comparison_id"]
        return key in self._set_aside, row["role"] == "repeat", content_hash("desk", self.annotator, key)

    def _row(self, comparison_id: str) -> Mapping[str, Any]:
        found = self.store.comparisons_by_id([comparison_id])
        if comparison_id not in found:
            raise UserError("This comparison was never sent.")
        return found[comparison_id]

    def _question(self, row: Mapping[str, Any]) -> ShownComparison:
        settings, kind, purpose = self.loop.config.labeling, row["kind"], row["purpose"]
        asked = settings.rating_axes if kind == "rating" else settings.evaluation_axes if is_ab(kind, purpose) else []
        before = self.store.newest([annotation_id(row["comparison_id"], self.annotator)])
        given = next((one.result for one in before.values() if one.status == "submitted"), None)
        return ShownComparison(
            row["comparison_id"],
            row["round"],
            purpose,
            kind,
            _turns(row),
            list(to_display(row["responses"], row["display_order"])),
            list(asked),
            kind == PAIR.name and purpose == "train" and settings.strength,
            given,
        )


def command_after(loop: LoopFolder, batches: Sequence[OpenBatch]) -> str:
    """The command that goes on where nothing is left to label."""
    rounds = {purpose: key for key, purpose in batches}  # the newest of each, as batches are in their order
    if "evaluation" in rounds and rounds["evaluation"] >= rounds.get("train", ""):
        return f"rlhf run release_round --round {rounds['evaluation']} {loop.option}"
    if "train" in rounds:
        return f"rlhf run train_round --round {rounds['train']} {loop.option}"
    if DEMONSTRATION_ROUND in rounds:
        return f"rlhf run prepare {loop.option}"
    prepared = loop.registry.champion() is not None
    return f"rlhf {'round open' if prepared else 'run prepare'} {loop.option}"


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    prompt = prompt_of_row(row)
    if not isinstance(prompt, Chat):
        return [("", prompt)]
    return [(ROLE_NAMES[message.role], message.content) for message in prompt.messages]


def _measured(seconds: float | None) -> float | None:
    """Time as it was measured; None where it cannot be true."""
    if seconds is None or not 0 <= seconds <= LONGEST_SECONDS:
        return None
    return round(float(seconds), 1)
