"""How assets reach the loop's store: tables as Parquet, decisions and reports as JSON, models as pointers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from upath import UPath

from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.records import schemas
from rlhf_dagster.records.loop_names import asset_of
from rlhf_dagster.records.parquet import check_parquet, read_parquet, to_parquet
from rlhf_dagster.records.tables import frame_of
from rlhf_dagster.resources.column_lineage import COLUMN_LINEAGE
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store

TABLES: dict[str, pa.Schema] = {
    "prompts": schemas.PROMPTS,
    "demonstration_batch": schemas.COMPARISONS,
    "demonstrations": schemas.DEMONSTRATIONS,
    "pretraining_text": schemas.PRETRAINING_TEXT,
    "completions": schemas.COMPLETIONS,
    "preference_batch": schemas.COMPARISONS,
    "preference_labels": schemas.LABELS,
    "preference_dataset": schemas.PREFERENCES,
    "feedback": schemas.FEEDBACK,
    "evaluation_completions": schemas.EVALUATION_COMPLETIONS,
    "evaluation_batch": schemas.COMPARISONS,
}


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Fail the asset as :func:`rlhf_dagster.assets.one_sentence.in_one_sentence` does, around which this is."""
    try:
        yield
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


class _StoredFiles(dg.UPathIOManager):
    """Objects under ``assets/`` of a loop's store, each written whole.

    Not a configurable resource: where a loop's files live is no setting of a run, so the launchpad does not offer it.
    Dagster's base class finds the names; it is shown paths that do not exist, and touches none of them.
    """

    def __init__(self, address: str | Path):
        super().__init__(UPath("assets"))
        self.address = str(address)

    @property
    def store(self) -> Store:
        return open_store(self.address)

    def write(self, asset: str, obj: Any) -> bytes:
        raise NotImplementedError

    def read(self, context: dg.InputContext, key: str, data: bytes) -> Any:
        raise NotImplementedError

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """What an asset reads; one sentence, and no error of a library, where it is not there or is damaged."""
        key, asset = path.as_posix(), asset_of(context.asset_key.path)
        of_round = f" of {path.stem}" if path.stem != asset else ""
        with _one_sentence():
            found = self.store.get(key)
            if found is None:
                raise UserError(f"{asset}{of_round} is not there yet; materialise it first.")
            try:
                return self.read(context, key, found.data)
            except Damaged as damaged:
                raise UserError(f"{str(damaged).rstrip('.')}; materialise {asset}{of_round} again.") from None

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Write what an asset has made; one sentence where that cannot be, as on a full disk."""
        with _one_sentence():
            self.store.put(path.as_posix(), self.write(asset_of(context.asset_key.path), obj))

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        """The asset's name alone: where a loop keeps its files does not hang on what Dagster calls them."""
        return UPath(asset_of(context.asset_key.path))

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, dg.MetadataValue]:
        paths = self._get_paths_for_partitions(context).values() if context.has_asset_partitions else ()
        key = (next(iter(paths), None) or self._get_path(context)).as_posix()
        return {"path": dg.MetadataValue.path(f"{self.address.rstrip('/')}/{key}")}

    def path_exists(self, path: UPath) -> bool:
        with _one_sentence():
            return self.store.exists(path.as_posix())

    def make_directory(self, path: UPath) -> None:
        """Stores have no folders to make."""

    def _handle_transition_to_partitioned_asset(self, context: dg.OutputContext, path: UPath) -> None:
        """Our assets were never partitioned otherwise; Dagster would look for files in the working folder."""


class ParquetFiles(_StoredFiles):
    """``assets/<asset>[/<round>].parquet`` with the asset's schema; a wrong column is an error."""

    extension = ".parquet"

    def write(self, asset: str, obj: Any) -> bytes:
        return to_parquet(schemas.table(obj, TABLES[asset]))

    def read(self, context: dg.InputContext, key: str, data: bytes) -> Any:
        """The table, or a file that holds it where the asset asks for a ``Path`` (training reads files by itself)."""
        if context.dagster_type.typing_type is Path:
            check_parquet(data, key)
            return self.store.local(key)
        frame = frame_of(read_parquet(data, key))
        return schemas.with_later_columns(frame, TABLES[asset_of(context.asset_key.path)])

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, dg.MetadataValue]:
        declared = context.definition_metadata or {}
        # Dagster looks for it in what is said of a table when it is made, not in its definition.
        lineage = {COLUMN_LINEAGE: declared[COLUMN_LINEAGE]} if COLUMN_LINEAGE in declared else {}
        return super().get_metadata(context, obj) | {"dagster/row_count": dg.MetadataValue.int(len(obj)), **lineage}


class JsonFiles(_StoredFiles):
    """``assets/<asset>/<round>.json``."""

    extension = ".json"

    def write(self, asset: str, obj: Any) -> bytes:
        return seal(obj, sort_keys=True)

    def read(self, context: dg.InputContext, key: str, data: bytes) -> Any:
        return unseal(data, key)


class ModelPointers(_StoredFiles):
    """``assets/<asset>[/<round>].json``: which kept model is the asset's current one."""

    extension = ".json"

    def write(self, asset: str, obj: Checkpoint) -> bytes:
        return seal(obj.as_pointer())

    def read(self, context: dg.InputContext, key: str, data: bytes) -> Checkpoint:
        return read_as(Checkpoint, {**unseal(data, key), "root": self.store.address}, key)
