"""Folders that hold adapters alone: which model they belong to, and where it is. Importing this imports no torch.

Such a folder has the adapters in peft's format and, in `base.json`, the name and the digest of the folder with the
plain model that they were trained on. Adapters that were trained from other adapters name the same plain model.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.manifest import inputs_hash, read_manifest
from rlhf_dagster.lineage.model_folders import (
    ADAPTER_BASE,
    ADAPTER_PLACE,
    MANIFEST,
    folder_digest,
    holds_adapters,
    kept_name,
)
from rlhf_dagster.lineage.verified import is_verified, set_verified
from rlhf_dagster.records.ids import content_hash

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterBase:
    """The plain model that adapters belong to."""

    name: str
    """Of its folder; in a loop its model id."""
    digest: str
    """Of its folder (:func:`~rlhf_dagster.lineage.model_folders.folder_digest`)."""
    bits: int | None = None
    """Of each of its weights under the adapters, 4 or 8; None where it is not quantised."""
    targets: list[str] | None = None
    """`lora.targets` of the first training of the adapters; whoever goes on with them must ask for the same."""


def adapter_base(folder: Path) -> AdapterBase:
    """What the adapters in ``folder`` belong to; raises Damaged where that cannot be read."""
    file = folder / ADAPTER_BASE
    try:
        return read_as(AdapterBase, unseal(file.read_bytes(), str(file)), str(file))
    except OSError as error:
        raise Damaged(f"{file} cannot be read ({error.strerror}); make the model again.") from None


def find_base(folder: Path) -> Path:
    """The folder of the plain model under the adapters in ``folder``, compared with its digest.

    It is looked for by its name beside ``folder``, where a loop has it, and where it was when the adapters were saved.

    Raises:
        UserError: it is in neither place, or what is there is another model or damaged.
    """
    base, found = adapter_base(folder), []
    for place in _places(folder, base):
        if _has_digest(place, base.digest):
            return place
        found.append(place)
    if found:
        raise Damaged(
            f"{folder}: its adapters belong to the model {base.name}, and {found[0]} is not that model as it was; "
            "restore it from a backup, or train the adapters again."
        )
    raise UserError(
        f"{folder}: its adapters belong to the model {base.name}, which is neither beside it nor where it was when "
        f"they were saved; put it at {folder.parent / base.name}."
    )


def plain_folder(folder: Path) -> Path:
    """The folder whose files hold a model's plain weights: ``folder``, or that of the model under its adapters."""
    return find_base(folder) if holds_adapters(folder) else folder


def bases_in(folder: Path) -> dict[str, AdapterBase]:
    """What the adapters in ``folder`` and below belong to, by name: the models that must stay with them."""
    bases = (adapter_base(file.parent) for file in sorted(folder.rglob(ADAPTER_BASE)))
    return {base.name: base for base in bases}


def require_bases(folder: Path) -> None:
    """Raise UserError where a model that adapters in ``folder`` belong to is gone or damaged."""
    for file in folder.rglob(ADAPTER_BASE):
        find_base(file.parent)


def write_base(folder: Path, plain: Path, base: AdapterBase) -> None:
    """Write into ``folder`` what its adapters belong to, and that this is at ``plain`` now."""
    (folder / ADAPTER_BASE).write_bytes(seal(asdict(base), sort_keys=True))
    write_place(folder, plain)


def write_place(folder: Path, plain: Path) -> None:
    """Write into ``folder`` where the model under its adapters is on this machine; no part of the model."""
    if _noted(folder) != plain.resolve():
        write_atomically(folder / ADAPTER_PLACE, json.dumps({"folder": str(plain.resolve())}).encode())


def named_base(plain: Path, bits: int | None = None, targets: list[str] | None = None) -> AdapterBase:
    """The record of a plain model that adapters are trained on."""
    digest = folder_digest(plain)
    set_verified(plain, digest)
    return AdapterBase(_name_of(plain, digest), digest, bits, targets)


def _name_of(plain: Path, digest: str) -> str:
    """A kept model's id, also where its folder is a copy in the cache; another folder's name."""
    if not (plain / MANIFEST).is_file():
        return plain.resolve().name
    manifest = read_manifest(plain)
    return kept_name(manifest["kind"], manifest["round"], content_hash("model", digest, inputs_hash(manifest)))


def _places(folder: Path, base: AdapterBase) -> Iterator[Path]:
    """Folders where the model may be; a value model's adapters lie in the folder of their policy."""
    inside = holds_adapters(folder.parent)
    places = [(folder.parent.parent if inside else folder.parent) / base.name, _noted(folder)]
    yield from (place for place in places if place is not None and place.is_dir())


def _noted(folder: Path) -> Path | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Path(parse_json((folder / ADAPTER_PLACE).read_text(encoding="utf-8"))["folder"])
    return None


def _has_digest(folder: Path, digest: str) -> bool:
    """Whether a folder holds what it should; not computed again while its files are untouched."""
    if is_verified(folder, digest):
        return True
    if folder_digest(folder) != digest:
        return False
    set_verified(folder, digest)
    return True
