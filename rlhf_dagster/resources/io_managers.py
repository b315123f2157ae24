"""How assets reach the loop's folder: tables as Parquet, decisions and reports as JSON, models as pointers."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.records import schemas

TABLES: dict[str, pa.Schema] = {
    "prompts": schemas.PROMPTS,
    "demonstration_batch": schemas.COMPARISONS,
    "demonstrations": schemas.DEMONSTRATIONS,
    "pretraining_text": schemas.PRETRAINING_TEXT,
    "completions": schemas.COMPLETIONS,
    "preference_batch": schemas.COMPARISONS,
    "preference_labels": schemas.LABELS,
    "preference_dataset": schemas.PREFERENCES,
    "evaluation_completions": schemas.EVALUATION_COMPLETIONS,
    "evaluation_batch": schemas.COMPARISONS,
}


class _FileIOManager(dg.UPathIOManager):
    """Files under ``root/assets``, written beside the target and renamed, so that a crash leaves the old file.

    Not a configurable resource: where a loop's files live is no setting of a run, so the launchpad does not offer it.
    """

    def __init__(self, root: str):
        super().__init__(UPath(root) / "assets")
        self.root = Path(root)

    def write(self, asset: str, obj: Any, path: Path) -> None:
        raise NotImplementedError

    def read(self, context: dg.InputContext, path: Path) -> Any:
        raise NotImplementedError

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """What an asset reads; one sentence, and no error of a library, where it is not materialised yet."""
        file = Path(str(path))
        if not file.exists():
            asset = context.asset_key.path[-1]
            of_round = f" of {file.stem}" if file.stem != asset else ""
            raise dg.Failure(f"{asset}{of_round} is not there yet; materialise it first.", allow_retries=False)
        return self.read(context, file)

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        target = Path(str(path))
        beside = target.with_name(f".{target.name}.new")
        self.write(context.asset_key.path[-1], obj, beside)
        beside.replace(target)


class ParquetFiles(_FileIOManager):
    """``root/assets/<asset>[/<round>].parquet`` with the asset's schema; a wrong column is an error."""

    extension = ".parquet"

    def write(self, asset: str, obj: Any, path: Path) -> None:
        pq.write_table(schemas.table(obj, TABLES[asset]), path)

    def read(self, context: dg.InputContext, path: Path) -> Any:
        """The table, or its path where the asset asks for a ``Path`` (training reads files by itself)."""
        return path if context.dagster_type.typing_type is Path else pd.read_parquet(path)

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, dg.MetadataValue]:
        return {"dagster/row_count": dg.MetadataValue.int(len(obj))}


class JsonFiles(_FileIOManager):
    """``root/assets/<asset>/<round>.json``."""

    extension = ".json"

    def write(self, asset: str, obj: Any, path: Path) -> None:
        path.write_text(json.dumps(obj, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")

    def read(self, context: dg.InputContext, path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))


class ModelPointers(_FileIOManager):
    """``root/assets/<asset>[/<round>].json``: which kept model is the asset's current one."""

    extension = ".json"

    def write(self, asset: str, obj: Checkpoint, path: Path) -> None:
        path.write_text(json.dumps(obj.as_pointer(), indent=1) + "\n", encoding="utf-8")

    def read(self, context: dg.InputContext, path: Path) -> Checkpoint:
        return Checkpoint(**json.loads(path.read_text(encoding="utf-8")), root=str(self.root))
