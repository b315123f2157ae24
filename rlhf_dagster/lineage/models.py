"""Where trained models are kept: named by content and origin, never overwritten, and compared when they are opened."""

import shutil
import tempfile
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_dagster.common.files import cache_folder, make_folder, sync_tree, writing
from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.adapter_folders import adapter_base, require_bases, write_place
from rlhf_dagster.lineage.manifest import inputs_hash, read_manifest
from rlhf_dagster.lineage.model_folders import ADAPTER_BASE, MANIFEST, folder_digest, kept_name
from rlhf_dagster.lineage.verified import is_verified, set_verified
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.storage.local import LocalStore


@dataclass(frozen=True)
class Checkpoint:
    """A kept model. ``path`` is relative to the loop's store, so that the loop can be moved."""

    model_id: str
    path: str
    digest: str
    """See :func:`model_digest`."""
    root: str = ""
    """Address of the loop's store."""

    @property
    def folder(self) -> Path:
        """The model's files on this machine, compared with its digest.

        Raises Damaged where they are not the model that was kept, and UserError where it is gone.
        """
        return opened(open_store(self.root), self)

    @property
    def address(self) -> str:
        """Where the model is kept."""
        return f"{self.root.rstrip('/')}/{self.path}"

    def is_there(self) -> bool:
        """Whether the model is kept, as far as a look at its manifest tells."""
        return open_store(self.root).exists(f"{self.path}/{MANIFEST}")

    def as_pointer(self) -> dict[str, str]:
        """The checkpoint as JSON values, without the loop's store."""
        return {name: value for name, value in asdict(self).items() if name != "root"}


def model_digest(folder: Path) -> str:
    """Content hash of a model's files and of what its manifest says it was made from.

    The same weights can come from other inputs, such as other validation labels. These count as another model, or
    the first one's manifest would stand for both.
    """
    return content_hash("model", folder_digest(folder), inputs_hash(read_manifest(folder)))


def fetched(store: Store, path: str) -> Path:
    """A kept model's folder on this machine as it is, compared with nothing."""
    if isinstance(store, LocalStore):
        return store.root / path
    folder = Path(tempfile.mkdtemp(prefix="rlhf-model-"))
    store.download(path, folder)
    return folder


def opened(store: Store, checkpoint: Checkpoint) -> Path:
    """A kept model's folder on this machine: its own, or a copy in the cache, by digest. See Checkpoint.folder.

    The models that adapters in it belong to are there too.
    """
    if isinstance(store, LocalStore):
        folder = store.root / checkpoint.path
        if not folder.is_dir():
            raise UserError(f"{folder}: the model {checkpoint.model_id} is gone; {_REMEDY}.")
    else:
        folder = cache_folder() / "models" / checkpoint.digest
        if not folder.is_dir() or not _is_right(folder, checkpoint.digest):
            _fetch(store, checkpoint, folder)
    require_model(folder, checkpoint)
    if not isinstance(store, LocalStore):
        _fetch_bases(store, folder)
    require_bases(folder)
    return folder


def _fetch_bases(store: Store, folder: Path) -> None:
    """Have the models on this machine that adapters in ``folder``, a copy in the cache, belong to."""
    for file in folder.rglob(ADAPTER_BASE):
        base = adapter_base(file.parent)
        path = f"models/{base.name}"
        found = store.get(f"{path}/{MANIFEST}")
        if found is None:
            raise UserError(f"{store.address}/{path}: the model under the adapters of {folder} is gone; {_REMEDY}.")
        manifest = unseal(found.data, f"{path}/{MANIFEST}")
        digest = content_hash("model", base.digest, inputs_hash(manifest))
        write_place(file.parent, opened(store, Checkpoint(base.name, path, digest, store.address)))


def require_model(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise Damaged where a folder's content is not the checkpoint's."""
    if not _is_right(folder, checkpoint.digest):
        raise Damaged(
            f"{folder}: the model {checkpoint.model_id} is damaged, its files do not match its digest; {_REMEDY}."
        )


_REMEDY = "restore it from a backup, or make it again: train its stage once more, or roll back"


def _is_right(folder: Path, digest: str) -> bool:
    """Whether a folder's digest is the one that is expected; not computed again while its files are untouched."""
    if is_verified(folder, digest):
        return True
    try:
        found = model_digest(folder)
    except (UserError, KeyError, TypeError, AttributeError):
        return False
    if found == digest:
        set_verified(folder, digest)
    return found == digest


def _fetch(store: Store, checkpoint: Checkpoint, folder: Path) -> None:
    """Download a model beside its place in the cache, and give it its name when it is whole."""
    if not store.exists(f"{checkpoint.path}/{MANIFEST}"):
        raise UserError(f"{checkpoint.address}: the model {checkpoint.model_id} is gone; {_REMEDY}.")
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        with writing(folder.parent):
            make_folder(beside)
        store.download(checkpoint.path, beside)
        with writing(folder.parent):
            sync_tree(beside)
        require_model(beside, checkpoint)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # where another process has fetched it meanwhile
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@dataclass(frozen=True)
class ModelStore:
    """``models/<model id>`` in a store: ids end in the model's digest, so an id means one model of one origin."""

    store: Store
    work: Path
    """Folder of this machine in which stages write while they run."""

    def work_folder(self, kind: str, round_key: str = "") -> Path:
        """Where a stage writes while it runs."""
        return self.work / "-".join(filter(None, (kind, round_key)))

    def identify(self, folder: Path, kind: str, round_key: str = "") -> Checkpoint:
        """The id and the place that a finished folder, its manifest included, will have once it is kept."""
        digest = model_digest(folder)
        model_id = kept_name(kind, round_key, digest)
        return Checkpoint(model_id, f"models/{model_id}", digest, self.store.address)

    def keep(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Move a finished folder to its place. The same model is kept once, and what is not this model is replaced."""
        if not (checkpoint.is_there() and self._is_kept(checkpoint)):
            self.store.upload(folder, checkpoint.path)
        shutil.rmtree(folder, ignore_errors=True)

    def _is_kept(self, checkpoint: Checkpoint) -> bool:
        try:
            opened(self.store, checkpoint)
        except UserError:
            return False
        return True
