"""Under which licence imported records are, by the source that they name; as people said when they imported them."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.data.parts.table import ImportedTable
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.licences import require_identifier
from rlhf_dagster.records.schemas import IMPORTED_DEMONSTRATIONS, IMPORTED_PROMPTS
from rlhf_dagster.storage.base import Store, update

_WITH_SOURCES = {"prompts": IMPORTED_PROMPTS, "demonstrations": IMPORTED_DEMONSTRATIONS}
KEY = "imports/licences.json"
_Record = TypeVar("_Record")


def imported_licences(store: Store) -> dict[str, str]:
    """Licences by source; sources of which nobody has said one are not in it."""
    found = store.get(KEY)
    return {} if found is None else dict(unseal(found.data, KEY)["licences"])


def imported_sources(store: Store) -> set[str]:
    """What the imported prompts and demonstrations say they come from; those of judgments are among the prompts."""
    tables = (ImportedTable(store, name, schema) for name, schema in _WITH_SOURCES.items())
    return {source for table in tables for part in table.columns(["source"]) for source in part["source"].to_pylist()}


class SaidLicence:
    """The licence that somebody names for a whole import, and the sources that it is said of."""

    def __init__(self, store: Store, licence: str, file: str) -> None:
        """``file`` names the source of records that name none. Raises UserError where ``licence`` is no identifier."""
        require_identifier(licence)
        self._store, self._licence, self._file = store, licence, file
        self._sources: set[str] = set()

    def of(self, records: Iterable[tuple[int, _Record]]) -> Iterator[tuple[int, _Record]]:
        """``records``, whose sources are remembered; raises UserError behind the last where one has another licence."""
        for number, record in records:
            self._sources.add(getattr(record, "source", "") or self._file)
            yield number, record
        if self._licence:
            known = imported_licences(self._store)
            for source in sorted(self._sources):
                _require_same(source, known.get(source, self._licence), self._licence)

    def keep(self) -> None:
        """Put on record what was said."""
        if self._licence:
            update(self._store, KEY, self._added)

    def _added(self, data: bytes | None) -> bytes:
        known = {} if data is None else unseal(data, KEY)["licences"]
        return seal({"licences": dict(sorted({**dict.fromkeys(self._sources, self._licence), **known}.items()))})


def _require_same(source: str, known: str, said: str) -> None:
    if known != said:
        raise UserError(
            f"--license {said}: what came from {source} was imported under {known}; give the file another name, or its "
            "rows another `source`."
        )
