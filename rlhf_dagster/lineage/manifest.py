"""The manifest beside every checkpoint: what a model was made from, record by record."""

import base64
import hashlib
import platform
import subprocess
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.common.version import __version__
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import MANIFEST
from rlhf_dagster.records.ids import content_hash

PACKAGE = Path(__file__).parents[1]
"""The folder of this package's code."""
PACKAGES = ("accelerate", "dagster", "numpy", "pandas", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")


def write_manifest(
    folder: Path,
    *,
    kind: str,
    round_key: str = "",
    parents: Mapping[str, Mapping[str, str]] | None = None,
    dataset_hash: str | None = None,
    feedback_hash: str | None = None,
    label_ids: Iterable[str] = (),
    seed: int | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``folder/manifest.json`` and return its content.

    ``kind`` is ``base``, ``sft``, ``reward``, or an arm's, such as ``ppo``. ``parents`` gives, by its role, the
    ``model_id`` and the ``digest`` of each checkpoint the model was trained from or with.
    ``dataset_hash`` is the hash of the data's snapshot, ``feedback_hash`` that of feedback beside it, and
    ``label_ids`` the preference labels in the snapshot that the model was trained on, in any order. ``config``,
    ``metrics`` and ``curves`` are plain JSON values, ``warnings`` sentences.
    """
    content = {
        "kind": kind,
        "round": round_key,
        "parents": {role: dict(parent) for role, parent in (parents or {}).items()},
        "dataset": dataset_hash,
        **({} if feedback_hash is None else {"feedback": feedback_hash}),
        "labels": _packed(label_ids),
        "seed": seed,
        "config": dict(config or {}),
        "metrics": dict(metrics or {}),
        "curves": {name: list(values) for name, values in (curves or {}).items()},
        "warnings": list(warnings),
        "rlhf_dagster": __version__,
        "git": git_state(PACKAGE),
        "python": platform.python_version(),
        "packages": _versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(Path(folder) / MANIFEST, seal(content, indent=2))
    return content


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a checkpoint's folder; raises Damaged where it does not match its checksum."""
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise UserError(f"{folder}: no {MANIFEST} here; give the folder of a checkpoint that a loop has made.")
    return unseal(file.read_bytes(), str(file))


def inputs_hash(manifest: Mapping[str, Any]) -> str:
    """Content hash of what a manifest says a model was made from: parents, data, labels, feedback, seed and config.

    Results, versions and the time are left out: making the same model again gives the same hash.
    """
    parents = {role: parent["digest"] for role, parent in manifest["parents"].items()}
    claims = [manifest[name] for name in ("kind", "round", "dataset", "seed", "config")]
    claims += [manifest["feedback"]] if "feedback" in manifest else []
    # The checksum of the ids, because the same ids may be compressed to other bytes.
    return content_hash("inputs", parents, manifest["labels"]["sha256"], *claims)


def label_ids(manifest: Mapping[str, Any]) -> list[str]:
    """The ids of the labels behind a model, sorted; raises :class:`UserError` if they do not match their checksum."""
    packed = manifest["labels"]
    try:
        text = zlib.decompress(base64.b64decode(packed["ids"])).decode()
    except (ValueError, zlib.error):
        text = ""
    if hashlib.sha256(text.encode()).hexdigest() != packed["sha256"]:
        raise UserError("The label ids in this manifest do not match their checksum; make the model again.")
    return text.split("\n") if text else []


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds ``folder``, and whether tracked files differ from it; None outside of one.

    A package installed in a virtual environment inside somebody's checkout is not that checkout's code, so
    ``folder/__init__.py`` must be a tracked file.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)} if commit else None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # git is not installed
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _packed(ids: Iterable[str]) -> dict[str, Any]:
    distinct = sorted(set(ids))
    data = "\n".join(distinct).encode()
    return {
        "count": len(distinct),
        "sha256": hashlib.sha256(data).hexdigest(),
        "encoding": "zlib+base64 of the sorted ids, one a line",
        "ids": base64.b64encode(zlib.compress(data, 9)).decode(),
    }


@cache
def _versions() -> dict[str, str]:
    """Of what this process has loaded, whatever is installed while it runs."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
