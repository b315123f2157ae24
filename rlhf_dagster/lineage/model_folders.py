"""Model folders: written under another name and renamed, hashed by content. Importing this imports no torch."""

import hashlib
import shlex
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.foreign_folders import require_files
from rlhf_dagster.lineage.weight_files import CONFIG, require_whole, weight_files
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.parquet import without_tag
from rlhf_dagster.storage.base import LAST

MANIFEST = LAST
ABILITIES = "abilities.json"
"""What was found out about a model by running it; no part of the model."""
ADAPTER_CONFIG = "adapter_config.json"
"""The config of peft's adapters, which transformers opens as if it were a model's."""
ADAPTER_BASE = "base.json"
"""What the adapters beside it belong to (:mod:`~rlhf_dagster.lineage.adapter_folders`)."""
ADAPTER_PLACE = "base_folder.json"
"""Where that was on this machine; no part of the model."""
DIGEST_LENGTH = 10
"""Digits of a model's digest in its id."""
VOCABULARIES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "added_tokens.json")
"""Files in which the words of a tokenizer without `tokenizer.json` stand."""
_STATE = {"padding", "truncation"}
_BLOCK = 1 << 20


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A new folder beside ``output`` that takes its place when the block ends without an error.

    A crash while writing leaves the old folder as it was. A crash in the instant between the two renames leaves the old
    folder at ``.NAME.replaced``; the next call puts it back before anything else.
    """
    replaced = output.with_name(f".{output.name}.replaced")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _restore(replaced, output)
        folder = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{output.parent}: cannot write here ({error.strerror}); choose another folder.") from None
    try:
        yield folder
        if output.exists():
            output.rename(replaced)
        folder.rename(output)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def folder_digest(folder: Path) -> str:
    """SHA-256 (64 hex digits) over the relative path and bytes of every file, in sorted order.

    The manifest does not count, nor does what was found out about the model, or where the base of its adapters is.
    """
    digest = hashlib.sha256()
    beside = (folder / MANIFEST, folder / ABILITIES)
    files = (path for path in folder.rglob("*") if path.is_file() and path not in beside and path.name != ADAPTER_PLACE)
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        # Lengths go in first, so that no two different folders give the same stream of bytes.
        digest.update(f"{len(name.encode())}:{name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """A hash of how a checkpoint's tokenizer turns texts into ids; without `tokenizer.json`, of its vocabulary."""
    file = folder / "tokenizer.json"
    if file.is_file():
        content = parse_json(file.read_text(encoding="utf-8"))
        # How a batch was last padded or cut is saved too, and is no part of what ids mean.
        return content_hash("tokenizer", {name: content[name] for name in sorted(content.keys() - _STATE)})
    files = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    return content_hash("tokenizer", *((file.name, content_of(file)) for file in files))


def content_of(path: Path) -> str:
    """A hash of what is in a file or a folder; a table's checksum in it does not count."""
    if path.is_dir():
        return folder_digest(path)
    return hashlib.sha256(without_tag(path.read_bytes())).hexdigest() if path.is_file() else "absent"


def holds_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters of ours alone, and no weights of the model under them."""
    return (folder / ADAPTER_BASE).is_file()


def kept_name(kind: str, round_key: str, digest: str) -> str:
    """The id of a model that is kept, by the digest of its files and of its origin."""
    return "-".join(filter(None, (kind, round_key, digest[:DIGEST_LENGTH])))


def require_checkpoint(folder: Path) -> Path:
    """``folder`` if it holds a whole safetensors checkpoint; raises UserError otherwise."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the Hugging Face model folder that it is in.")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; train that stage first or correct the path.")
    require_files(folder)
    if holds_adapters(folder):
        raise UserError(
            f"{folder}: these are adapters without the model under them; write both as a plain model with "
            f"`rlhf merge {shlex.quote(str(folder))} OUT`, and give that."
        )
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{folder}: {ADAPTER_CONFIG} is that of adapters, which are no model of their own; merge them into the "
            "model that they were trained on with peft's `merge_and_unload`, save that, and give its folder."
        )
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: not a model checkpoint, {CONFIG} is missing; give a Hugging Face model folder.")
    for file in weight_files(folder):
        require_whole(file)
    return folder


def _restore(replaced: Path, output: Path) -> None:
    if not replaced.exists():
        return
    if output.exists():
        shutil.rmtree(replaced)
    else:
        replaced.rename(output)
