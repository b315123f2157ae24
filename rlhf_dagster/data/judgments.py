"""Imported judgments: completions and comparisons of their own round, and annotations in the ledger."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.data.imported import Appending
from rlhf_dagster.data.judged.answers import Answers
from rlhf_dagster.data.judged.batch import JudgedBatch
from rlhf_dagster.data.judged.finder import ComparisonFinder
from rlhf_dagster.data.judged.garbage import seldom_collected
from rlhf_dagster.data.judged.rows import PROJECT
from rlhf_dagster.data.judged.showings import Showings
from rlhf_dagster.data.judged.spool import Numbered, Spool
from rlhf_dagster.data.judged.tables import JudgedTables
from rlhf_dagster.data.parts.table import ImportedTable
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.contents import sendable
from rlhf_dagster.labeling.ledger.rows import LedgerRow
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.machines import is_source, source_name
from rlhf_dagster.records.schemas import IMPORTED_PROMPTS
from rlhf_dagster.records.tables import Row
from rlhf_dagster.storage.base import Store, update

NAMES = "imports/annotators.json"
_BATCH = 50_000
"""Judgments in one transaction of the ledger: the indices of a large ledger are written once for each."""


class Added(NamedTuple):
    """What became of some judgments: these counts, and the number of those refused, add up to all of them."""

    new: int
    """Corrections included."""
    there: int
    refused: list[tuple[int, str]]
    """Line numbers and reasons, in the order of lines."""


def add_judgments(
    judgments: Iterable[Numbered],
    files: Store,
    store: EmbeddedLabelStore,
    source: str,
    progress: Callable[[int, int], None] = lambda _, __: None,
) -> Added:
    """Add numbered judgments.

    All are read before any is written, and nothing is where the iterable raises. They are written in batches, of each
    the annotations last, so that an import that was killed can be repeated: what is there is not added again.
    ``source`` stands for the annotators that a line does not name. ``progress`` is told how many are done, and of how
    many.

    Refused are a comparison that an earlier line or an earlier import gave other responses, and a judgment that
    contradicts an earlier line of the same annotator without being later.
    """
    with seldom_collected():
        spool = Spool(_BATCH, source_name(source))
        spool.fill(judgments)
        adding, done = _Adding(files, store, source), 0
        for batch in spool.batches():
            adding.add(batch)
            done += len(batch)
            progress(done, len(spool))
        return adding.result()


class _Adding:
    """One import into the tables ``files`` and the ledger ``store``."""

    def __init__(self, files: Store, store: EmbeddedLabelStore, source: str) -> None:
        self._files, self._store, self._source = files, store, source
        self._tables = JudgedTables(files)
        self._tables.catch_up(store)
        self._pseudonyms = people_of(files, store.annotators)
        self._names, self._showings, self._answers = self._tables.names(), Showings(), Answers(self._pseudonyms)
        self._prompts = Appending(ImportedTable(files, "prompts", IMPORTED_PROMPTS))
        self._people: set[str] = set()
        self._new, self._refused = 0, list[tuple[int, str]]()

    def add(self, batch: JudgedBatch) -> None:
        """Names and prompts first, then the ledger, then what follows it: what is missing is found by the next one."""
        self._add_people(batch.columns.annotators)
        with self._store.writing() as writer:
            targets, newest = ComparisonFinder(writer.rows, self._names), dict[str, LedgerRow]()
            judged = targets.find(batch, self._showings)
            self._add_prompts(targets.comparisons)
            sent = writer.send_new([sendable(row) for row in targets.comparisons])
            answers = self._answers.new(judged, writer.rows, newest)
            self._new += writer.append_after(answers, newest, lambda _: PROJECT)
        self._tables.append(targets.comparisons, targets.completions, sent)
        self._names.add(row["name"] for row in targets.comparisons)
        self._refused += targets.refused

    def result(self) -> Added:
        return Added(self._new, self._answers.there, sorted(self._refused + self._answers.refused))

    def _add_prompts(self, comparisons: Iterable[Row]) -> None:
        prompts = {row["prompt_id"]: row for row in comparisons}
        self._prompts.append(
            {
                "prompt_id": identity,
                "text": row["prompt"],
                "messages": row.get("messages"),
                "source": self._source,
                "user": "",
            }
            for identity, row in prompts.items()
        )

    def _add_people(self, annotators: Iterable[str]) -> None:
        """Extend the key file, the only place that holds annotators' names; nobody but its owner may read it."""
        names = set(annotators) - self._people
        self._people |= names
        new = {self._pseudonyms.of(name): name for name in names if not is_source(name)}

        def add(data: bytes | None) -> bytes:
            known = unseal(data, NAMES) if data else {}
            return data if data and new.items() <= known.items() else seal(known | new, sort_keys=True)

        if new:
            update(self._files, NAMES, add, private=True)
