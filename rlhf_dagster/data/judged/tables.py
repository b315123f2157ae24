"""The tables of imported completions and comparisons, which follow what the ledger holds."""

from collections.abc import Sequence

import pyarrow as pa

from rlhf_dagster.common.batches import batches
from rlhf_dagster.data.judged.rows import IMPORT_PURPOSE, PROJECT, members_of
from rlhf_dagster.data.parts.known import SeenTexts
from rlhf_dagster.data.parts.table import ImportedTable
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS
from rlhf_dagster.records.tables import Row
from rlhf_dagster.storage.base import Store

_BATCH = 5000


class JudgedTables:
    """Each comparison is added once the ledger has it, behind its completions."""

    def __init__(self, files: Store) -> None:
        self._completions = ImportedTable(files, "completions", COMPLETIONS)
        self._comparisons = ImportedTable(files, "comparisons", COMPARISONS)

    def catch_up(self, store: EmbeddedLabelStore) -> None:
        """Add the comparisons that a process has sent to the ledger and was killed before it added them here."""
        missing = store.comparisons_after(IMPORT_ROUND, IMPORT_PURPOSE, self._last_task())
        for rows in batches(missing, _BATCH):
            self._append(rows, [member for row in rows for member in members_of(row)])

    def names(self) -> SeenTexts:
        """What the files call the comparisons that are there."""
        seen = SeenTexts()
        for part in self._comparisons.columns(["name"]):
            if "name" in part.column_names:
                seen.add(name for name in part["name"].to_pylist() if name)
        return seen

    def append(self, comparisons: Sequence[Row], completions: Sequence[Row], tasks: Sequence[int]) -> None:
        """Add comparisons with the task ids that the ledger gave them, and their completions."""
        places = [{"project": PROJECT, "task_id": str(task)} for task in tasks]
        self._append([row | place for row, place in zip(comparisons, places, strict=True)], completions)

    def _append(self, comparisons: Sequence[Row], completions: Sequence[Row]) -> None:
        if completions:
            self._completions.append(pa.Table.from_pylist(completions, schema=COMPLETIONS))
        if comparisons:
            self._comparisons.append(pa.Table.from_pylist(comparisons, schema=COMPARISONS))

    def _last_task(self) -> int:
        """The greatest task id in the last part; 0 without one."""
        parts = self._comparisons.columns(["task_id"], last=True)
        return max((int(task) for part in parts for task in part["task_id"].to_pylist()), default=0)
