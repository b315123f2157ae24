"""An earlier champion made the champion again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.publications import Publications
from rlhf_dagster.lineage.registry import changed_since
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.reporting.standing import refresh_reports


@dataclass(frozen=True)
class Restored:
    """The champion before and after a rollback."""

    before: str
    champion: str
    checkpoint: Path
    published: Sequence[str]
    """Sentences on where the one before is published still."""


def restore_champion(
    loop: LoopFolder, policy: str | None, by: str, reason: str, asked: datetime | None = None
) -> Restored:
    """Make an earlier champion, the one before by default, the champion again; by whom and why stays on record.

    Raises UserError without a name or a reason, where there is no way back to the policy, and where none is named and
    the champion has changed since the person ``asked``: of two people who see the same harm, the second would take down
    the champion that the first has brought back.
    """
    if not (by.strip() and reason.strip()):
        raise UserError("A rollback stays on record: give your name and a reason.")
    since = None if policy else asked
    if since and (why := changed_since(loop.registry.history(), since)):
        raise UserError(why)
    before, target = loop.registry.champion(), policy or loop.registry.previous_champion()
    if before is None or target is None:
        raise UserError("There is no earlier champion to go back to; `rlhf round status` shows what was promoted.")
    checkpoint = loop.policy(target).folder  # looked at before it is recorded
    moved = loop.registry.rollback(target, by, reason, since)
    if not moved.promoted:
        raise UserError(moved.reason)
    refresh_reports(loop)
    return Restored(before.policy_id, target, checkpoint, still_published(loop, before.policy_id))


def still_published(loop: LoopFolder, policy_id: str) -> list[str]:
    """Sentences on where a policy that is the champion no more is published, and what withdraws it."""
    return [
        f"{policy_id} is published at {one.to} as {one.tag}. To withdraw it: rlhf publish --withdraw --to {one.to} "
        f'--policy {policy_id} --reason "..." {loop.option}'
        for one in Publications(loop.store).standing(policy_id=policy_id)
    ]
