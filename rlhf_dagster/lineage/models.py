"""Where trained models are kept: one folder for each, named by content and origin, and never overwritten."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_dagster.lineage.manifest import inputs_hash, read_manifest
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.ids import content_hash

DIGEST_LENGTH = 10


@dataclass(frozen=True)
class Checkpoint:
    """A kept model. ``path`` is relative to the loop's folder, so that the folder can be moved."""

    model_id: str
    path: str
    digest: str
    """See :func:`model_digest`."""
    root: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.root, self.path)

    def as_pointer(self) -> dict[str, str]:
        """The checkpoint as JSON values, without the loop's folder."""
        return {name: value for name, value in asdict(self).items() if name != "root"}


def model_digest(folder: Path) -> str:
    """Content hash of a model's files and of what its manifest says it was made from.

    The same weights can come from other inputs, such as other validation labels. These count as another model, or
    the first one's manifest would stand for both.
    """
    return content_hash("model", folder_digest(folder), inputs_hash(read_manifest(folder)))


@dataclass(frozen=True)
class ModelStore:
    """``root/models/<model id>``: ids end in the model's digest, so an id means one model of one origin for ever."""

    root: Path

    def work_folder(self, kind: str, round_key: str = "") -> Path:
        """Where a stage writes while it runs."""
        return self.root / "work" / "-".join(filter(None, (kind, round_key)))

    def identify(self, folder: Path, kind: str, round_key: str = "") -> Checkpoint:
        """The id and the place that a finished folder, its manifest included, will have once it is kept."""
        digest = model_digest(folder)
        model_id = "-".join(filter(None, (kind, round_key, digest[:DIGEST_LENGTH])))
        return Checkpoint(model_id, f"models/{model_id}", digest, str(self.root))

    def keep(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Move a finished folder to its place; the same model is there at most once, and the first one stays."""
        target = checkpoint.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(target)
