"""Rounds that are deleted, and rounds whose partition is gone without a word: what nothing is learned from."""

from collections.abc import Collection

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_number


def known_rounds(loop: LoopFolder) -> list[str]:
    """Keys of the rounds that the loop's files, pins and deletions tell of, sorted."""
    of_policies = [loop.registry.get(policy).round_key for policy in loop.registry.policies()]
    files = [key.rpartition("/")[2].rpartition(".")[0] for key in loop.store.list("assets")]
    found = {*files, *of_policies, *loop.registry.pins(), *loop.deletions.keys()}
    return sorted(key for key in found if round_number(key) is not None)


def require_not_deleted(loop: LoopFolder, round_key: str) -> None:
    """Raise UserError for a deleted round."""
    record = loop.deletions.deleted().get(round_key)
    if record is not None:
        raise UserError(
            f"{record.sentence} `rlhf round restore {round_key} {loop.option} --reason WHY` brings it back."
        )


def unsettled_rounds(loop: LoopFolder, partitions: Collection[str]) -> list[str]:
    """Rounds that were begun, are not deleted on record, and have no partition in Dagster any more."""
    begun = {*loop.registry.pins(), *loop.rounds_with("preference_batch")}
    return sorted(begun - set(partitions) - loop.deletions.deleted().keys())


def unsettled_sentence(loop: LoopFolder, partitions: Collection[str]) -> str:
    """What people must decide about the rounds without a partition; empty without any."""
    keys = unsettled_rounds(loop, partitions)
    if not keys:
        return ""
    labels = sum(_usable(loop, key) for key in keys)
    return (
        f"{', '.join(keys)} {'has' if len(keys) == 1 else 'have'} no partition in Dagster any more, and "
        f"{labels:,} usable labels there train nothing until a person decides: "
        f"`rlhf round delete {keys[0]} {loop.option} --reason WHY` deletes it for good, "
        f"`rlhf round restore {keys[0]} {loop.option} --reason WHY` brings it back."
    )


def left_behind(loop: LoopFolder, round_key: str, partitions: Collection[str] | None) -> list[str]:
    """Rounds before one whose labels are not to be learned from, because nobody has said that they are to stay."""
    if partitions is None:
        return []
    return [key for key in unsettled_rounds(loop, partitions) if key < round_key and key != IMPORT_ROUND]


def _usable(loop: LoopFolder, key: str) -> int:
    """Usable labels of a round as they were last read."""
    labels = loop.table("preference_labels", key)
    return 0 if labels is None else len(usable_labels(labels))
