"""The key of a loop's pseudonyms, which is made when the first person is on record."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator

import pyarrow.compute as pc

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.pseudonyms import Pseudonyms, is_pseudonym
from rlhf_dagster.storage.base import Store

PEOPLE_FILE, PEOPLE_KEY_VARIABLE = "people.json", "RLHF_PEOPLE_KEY"
"""The file in a loop's store that holds the key, and the environment variable from which a new loop takes it."""
_BYTES = 32
_COLUMNS = ("user", "annotator")


def people_of(store: Store, on_record: Callable[[], Iterable[str]] = tuple) -> Pseudonyms:
    """The pseudonyms of a loop.

    A loop that has people on record and no key is of an older release: these people keep the pseudonyms that its tables
    have, and those ``on_record`` elsewhere, such as in its ledger. Raises Damaged where the file is not what was
    written, and UserError where the environment has a key that is too short to be one.
    """
    found = store.get(PEOPLE_FILE)
    if found is None:
        known = {name for name in (*_in_tables(store), *on_record()) if is_pseudonym(name)}
        store.create(PEOPLE_FILE, seal({"key": _new_key(), "kept": sorted(known)}), private=True)
        found = store.get(PEOPLE_FILE)
    record = unseal(found.data if found else b"", PEOPLE_FILE)
    key, kept = record.get("key"), record.get("kept")
    if not isinstance(key, str) or not isinstance(kept, list):
        raise Damaged(f"{PEOPLE_FILE} is damaged: it holds no key; bring it back from a backup.")
    return Pseudonyms(key.encode(), frozenset(map(str, kept)))


def _new_key() -> str:
    given = os.environ.get(PEOPLE_KEY_VARIABLE, "").strip()
    if given and len(given) < _BYTES:
        raise UserError(
            f"{PEOPLE_KEY_VARIABLE}: a key has at least {_BYTES} characters; `openssl rand -hex {_BYTES}` makes one."
        )
    return given or secrets.token_hex(_BYTES)


def _in_tables(store: Store) -> Iterator[str]:
    """Users and annotators of all tables, and of the key to those of imports."""
    for key in (*store.list("assets"), *store.list("imports")):
        found = store.get(key) if key.endswith((".parquet", "annotators.json")) else None
        if found is not None:
            yield from _people_in(found.data, key)


def _people_in(data: bytes, key: str) -> Iterator[str]:
    if key.endswith(".json"):
        try:
            names = parse_json(data)
        except ValueError:  # damaged, which whoever reads it says
            return
        yield from map(str, names)
        return
    try:
        table = read_parquet(data, key)
    except UserError:
        return
    for column in _COLUMNS:
        if column in table.column_names:
            yield from filter(None, pc.unique(table[column]).to_pylist())
