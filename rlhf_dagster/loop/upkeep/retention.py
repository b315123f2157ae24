"""Which trained models a loop needs, and why; the others are removed where `models.keep` says so, on record."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import MANIFEST
from rlhf_dagster.lineage.removals import RemovalRecord
from rlhf_dagster.loop.comparisons import challenger_id
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import is_decided

_FOLDER, _BASE = "models", "/base.json"
"""Where models are, and the end of the key that says to which base model adapters belong."""


@dataclass(frozen=True)
class StoredModel:
    """A model in the loop's store."""

    model_id: str
    kind: str
    round_key: str
    """Empty for models that no round has made."""
    size: int
    """In bytes."""
    needed: tuple[str, ...]
    """Why it stays; empty where nothing needs it."""

    @property
    def path(self) -> str:
        return f"{_FOLDER}/{self.model_id}"


def stored_models(loop: LoopFolder, keep: int | Literal["all"] | None = None) -> list[StoredModel]:
    """Every model that the loop has made, oldest round first, with why it stays.

    With `models.keep: all` nothing goes, and that is the reason of those that nothing else needs. A folder without a
    readable manifest is not among them: it is nothing that can be told about. ``keep`` is another number of rounds than
    that of the setting; 0 leaves what is needed without it.
    """
    keys = _files(loop)
    manifests = {model: found for model in keys if (found := _manifest(loop, model)) is not None}
    reasons = _reasons(loop, manifests, keys, loop.config.models.keep if keep is None else keep)
    models = [
        StoredModel(
            model,
            manifest["kind"],
            manifest["round"],
            sum(_size(loop, key) for key in keys[model]),
            tuple(reasons.get(model, ())),
        )
        for model, manifest in manifests.items()
    ]
    return sorted(models, key=lambda model: (model.round_key, model.kind, model.model_id))


def remove_unneeded(loop: LoopFolder) -> list[RemovalRecord]:
    """Remove the models that nothing needs, and say what went; nothing with `models.keep: all`."""
    keep = loop.config.models.keep
    if keep == "all":
        return []
    return [
        loop.removals.remove(model.model_id, model.path, model.round_key, model.size, f"models.keep: {keep}")
        for model in stored_models(loop)
        if not model.needed
    ]


def _reasons(
    loop: LoopFolder, manifests: Mapping[str, Mapping[str, Any]], keys: Mapping[str, list[str]], keep: int | str
) -> dict[str, list[str]]:
    """Why models stay, by id."""
    there = {*(manifest["round"] for manifest in manifests.values()), *loop.registry.pins()}
    rounds = _kept_rounds(loop, there, keep)
    found: dict[str, list[str]] = defaultdict(list)
    for model, why in (*_by_round(manifests, rounds), *_by_policy(loop, rounds)):
        found[model].append(why)
    waiting = [model for model in found if model in manifests]
    while waiting:
        model = waiting.pop()
        for base in _bases(loop, model, keys):
            waiting += [base] if base not in found and base in manifests else []
            found[base].append(f"the base of {model}")
    return found


def _kept_rounds(loop: LoopFolder, rounds: set[str], keep: int | str) -> dict[str, str]:
    """The rounds of which all models stay, with why. What no round has made stays as well: rounds are built on it."""
    deleted = loop.deletions.deleted()
    there = sorted(rounds - {""} - deleted.keys())
    decided = [key for key in there if is_decided(loop, key)]
    newest = decided if isinstance(keep, str) else decided[max(0, len(decided) - keep) :]
    found = {"": "rounds are built on it"}
    found |= dict.fromkeys(newest, "models.keep: all" if keep == "all" else f"of the newest {keep} decided rounds")
    return found | {key: f"{key} is not decided" for key in there if key not in decided}


def _by_round(manifests: Mapping[str, Mapping[str, Any]], rounds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for model, manifest in manifests.items():
        if why := rounds.get(manifest["round"]):
            yield model, why


def _by_policy(loop: LoopFolder, rounds: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Policies that somebody may still ask for, of whatever round."""
    if champion := loop.registry.champion():
        yield champion.policy_id, "the champion"
    if before := loop.registry.previous_champion():
        yield before, "the champion before, to which a rollback leads"
    for key in loop.registry.pins():
        if key in rounds and (pinned := loop.registry.pinned(key)):
            yield pinned, f"{key} samples from it"
    if loop.config.labeling.challenger_share and (challenger := challenger_id(loop)):
        yield challenger, "the next round compares it with the champion"


def _bases(loop: LoopFolder, model: str, keys: Mapping[str, list[str]]) -> list[str]:
    """The models of the loop that a model's adapters belong to."""
    said = [_read(loop, key) or {} for key in keys[model] if key.endswith(_BASE)]
    return [base["name"] for base in said if base.get("name") in keys]


def _files(loop: LoopFolder) -> dict[str, list[str]]:
    """The keys of the files of each folder of models."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in loop.store.list(_FOLDER):
        found[key.split("/")[1]].append(key)
    return found


def _manifest(loop: LoopFolder, model: str) -> dict[str, Any] | None:
    return _read(loop, f"{_FOLDER}/{model}/{MANIFEST}")


def _read(loop: LoopFolder, key: str) -> dict[str, Any] | None:
    found = loop.store.get(key)
    try:
        return unseal(found.data, key) if found else None
    except UserError:  # `rlhf check` tells of it
        return None


def _size(loop: LoopFolder, key: str) -> int:
    try:
        with loop.store.open(key) as file:
            return file.seek(0, os.SEEK_END)
    except FileNotFoundError:  # gone since the folder was listed
        return 0
