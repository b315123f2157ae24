"""Whether what is pointed to is there and whole: models, policies, pins, decisions, the ledger."""

from collections.abc import Collection, Iterator
from typing import Any

from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.ledger.copying import check_ledger
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint, fetched, model_digest
from rlhf_dagster.lineage.publications import Publications
from rlhf_dagster.lineage.registry import INITIAL_ROUND, PINS, POLICIES
from rlhf_dagster.lineage.stop_cord import STOPS
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import START
from rlhf_dagster.loop.upkeep.files import SET_ASIDE, set_aside
from rlhf_dagster.loop.upkeep.findings import Finding


def check_journals(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about the records of decisions."""
    others = (loop.deletions, loop.removals, Publications(loop.store))
    journals = (*loop.registry.journals(), *(other.journal for other in others), Journal(loop.store, STOPS))
    for journal in journals:
        for problem in journal.problems():
            mend = "a backup has it; `--repair` goes on without it, and the last decision that can be read counts"
            yield Finding(problem, mend, lambda journal=journal: " ".join(journal.repair()))  # type: ignore[misc]


def check_models(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about models that something points to; one that was removed on record (`models.keep`) is none."""
    removed = _removed(loop)
    pointed: dict[str, list[str]] = {}
    models: dict[str, Checkpoint] = {}
    for name, checkpoint in _pointers(loop):
        pointed.setdefault(checkpoint.path, []).append(name)
        models[checkpoint.path] = checkpoint
    for path, names in sorted(pointed.items()):
        if models[path].model_id in removed and not models[path].is_there():
            continue
        try:
            _ = models[path].folder
        except UserError as error:
            said = f"{str(error).rstrip('.')} ({', '.join(sorted(names))})."
            yield Finding(said, "`rlhf run` of the job that made it makes it again; a backup brings it back")


def _removed(loop: LoopFolder) -> Collection[str]:
    try:
        return loop.removals.removed().keys()
    except UserError:  # told of with the other journals
        return ()


def _pointers(loop: LoopFolder) -> Iterator[tuple[str, Checkpoint]]:
    """Who points to a model, and to which; files that cannot be read are found elsewhere."""
    for key in loop.store.list("assets"):
        content = _readable(loop, key) if key.endswith(".json") else None
        for pointer in (content, *(content or {}).get("checkpoints", ())):
            if isinstance(pointer, dict) and {"model_id", "path", "digest"} <= pointer.keys():
                yield key, loop.pointed_to({name: pointer[name] for name in ("model_id", "path", "digest")})
    for policy_id in loop.registry.policies():
        try:
            record = loop.registry.get(policy_id)
        except UserError:
            continue
        if record.digest:
            yield (
                f"{POLICIES}/{policy_id}.json",
                Checkpoint(policy_id, record.checkpoint, record.digest, loop.store.address),
            )


def _readable(loop: LoopFolder, key: str) -> dict[str, Any] | None:
    found = loop.store.get(key)
    try:
        return unseal(found.data, key) if found else None
    except UserError:
        return None


def check_registry(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about policies, pins and the champion."""
    known = loop.registry.policies()
    for policy_id in known:
        try:
            loop.registry.get(policy_id)
        except Damaged as damaged:
            mend = f"its model's manifest has the same facts, from which `--repair` writes {policy_id} anew"
            yield Finding(str(damaged), mend, lambda name=policy_id: _register_again(loop, name))  # type: ignore[misc]
    for round_key in loop.registry.pins():
        yield from _check_pin(loop, round_key, known)
    try:
        history = loop.registry.history()
    except Damaged:
        return
    for entry in history[-1:]:
        if entry.policy_id not in known:
            yield Finding(
                f"The champion {entry.policy_id} is not among the policies in {POLICIES}.",
                "bring it back from a backup, or `rlhf rollback` to an earlier champion",
            )


def _register_again(loop: LoopFolder, policy_id: str) -> str:
    path = f"models/{policy_id}"
    folder = fetched(loop.store, path)
    manifest = read_manifest(folder)
    parents = [parent["model_id"] for role, parent in manifest["parents"].items() if role != START]
    set_aside(loop, f"{POLICIES}/{policy_id}.json")
    round_key = manifest["round"] or INITIAL_ROUND
    kind, digest = manifest["kind"], model_digest(folder)
    loop.registry.register(policy_id, path, kind, round_key, list(dict.fromkeys(parents)), digest)
    return f"{policy_id} is registered again, from its model's manifest."


def _check_pin(loop: LoopFolder, round_key: str, known: list[str]) -> Iterator[Finding]:
    key = f"{PINS}/{round_key}.json"
    try:
        policy_id = loop.registry.pinned(round_key)
    except UserError as damaged:
        yield Finding(
            str(damaged),
            "the round's manifest names the same policy; `--repair` pins it",
            lambda: _pin(loop, round_key),
        )
        return
    if policy_id not in known:
        mend = f"bring the policy back from a backup, or delete the round: `rlhf round delete {round_key}`"
        yield Finding(f"{key} names the policy {policy_id}, which is not registered.", mend)


def _pin(loop: LoopFolder, round_key: str) -> str:
    manifest = loop.json("round_manifest", round_key)
    if manifest is None:
        return f"{round_key} has no manifest yet; it is left as it is."
    set_aside(loop, f"{PINS}/{round_key}.json")
    loop.registry.pin(round_key, manifest["behaviour_policy"])
    return f"{round_key} is pinned to {manifest['behaviour_policy']} again; its old pin is in {SET_ASIDE}."


def check_ledger_rows(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about the ledger, and about the labels that tables were made of."""
    try:
        place = loop.ledger_place
        if not place.is_missing():
            check_ledger(place.address)
            _ = loop.ledger
    except UserError as error:
        yield Finding(str(error), "a backup brings it back (`rlhf restore`), or `rlhf ledger continue` goes on without")
