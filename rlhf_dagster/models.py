"""Where trained models are kept: one folder for each, named by content and never overwritten."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_dagster.training.checkpoints import folder_digest

DIGEST_LENGTH = 10


@dataclass(frozen=True)
class Checkpoint:
    """A kept model. ``path`` is relative to the loop's folder, so that the folder can be moved."""

    model_id: str
    path: str
    digest: str
    root: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.root, self.path)

    def to_json(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if key != "root"}, indent=1)

    @classmethod
    def from_json(cls, text: str, root: Path) -> "Checkpoint":
        return cls(**json.loads(text), root=str(root))


@dataclass(frozen=True)
class ModelStore:
    """``root/models/<model id>``: ids end in the digest of the weights, so an id means one model for ever."""

    root: Path

    def work_folder(self, kind: str, round_key: str = "") -> Path:
        """Where a stage writes while it runs."""
        return self.root / "work" / "-".join(filter(None, (kind, round_key)))

    def identify(self, folder: Path, kind: str, round_key: str = "") -> Checkpoint:
        """What a finished folder will be called once it is kept."""
        digest = folder_digest(folder)
        model_id = "-".join(filter(None, (kind, round_key, digest[:DIGEST_LENGTH])))
        return Checkpoint(model_id, f"models/{model_id}", digest, str(self.root))

    def keep(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Move a finished folder to its place; the same content is there at most once, and the first one stays."""
        target = checkpoint.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(target)
