"""Publishing a policy, and withdrawing what was published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import plain_folder
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.lineage.publications import PublicationRecord, Publications, now, require_reason
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.publishing.card import embedding_rows, write_policy_card
from rlhf_dagster.publishing.contents import require_nothing_private, write_adapters_alone, write_whole
from rlhf_dagster.publishing.facts import facts_of
from rlhf_dagster.publishing.places import PublishingPlace
from rlhf_dagster.publishing.sources import sources_of
from rlhf_dagster.records.licences import LicensedSource, agreed_licence

Weights = Literal["whole", "adapters"]


@dataclass(frozen=True)
class Wish:
    """What is to be published, and how."""

    policy: Checkpoint
    weights: Weights = "whole"
    licence: str = ""
    """The one that a person has named; empty leaves it to those of base model and data."""
    anyway: bool = False
    """Whether a policy that is not the champion may be published."""


def publish(loop: LoopFolder, wish: Wish, place: PublishingPlace, by: str) -> PublicationRecord:
    """Publish a policy, put that on record, and return the record.

    Raises:
        UserError: it is no policy of the loop, not its champion, under no licence, published there already, or the
            place refuses.
    """
    policy = wish.policy
    _require_publishable(loop, wish)
    _require_new(loop, policy, place)
    sources = sources_of(loop)
    licence = agreed_licence(sources, wish.licence)
    tag = _free_tag(policy.model_id, place)
    with TemporaryDirectory(prefix="rlhf-publish-") as folder:
        files = Path(folder, "files")
        files.mkdir()
        _write(loop, wish, files)
        _write_card(loop, wish, files, licence, sources, place, tag)
        require_nothing_private(files, loop)
        revision = place.put(files, tag)
    record = PublicationRecord(
        policy.model_id, place.name, tag, revision, licence, wish.weights, "published", by, "", now()
    )
    Publications(loop.store).add(record)
    return record


def withdraw(loop: LoopFolder, place: PublishingPlace, policy_id: str, by: str, reason: str) -> PublicationRecord:
    """Withdraw the newest publication at a place, or that of a policy; the record says which.

    Raises:
        UserError: none stands there, nobody says why, or the place refuses.
    """
    require_reason(by, reason)
    publications = Publications(loop.store)
    here = publications.standing(to=place.name)
    found = [one for one in here if policy_id in ("", one.policy_id)]
    if not found:
        of_policy = f" of {policy_id}" if policy_id else ""
        raise UserError(f"No publication{of_policy} stands at {place.name}; {_said(publications.standing())}.")
    record = found[-1]
    others = [one.tag for one in here if one.tag != record.tag]
    place.withdraw(record.tag, record.revision, reason, others[-1] if others else None)
    publications.withdraw(record, by, reason)
    return record


def _said(standing: Sequence[PublicationRecord]) -> str:
    stand = ", ".join(f"{one.policy_id} at {one.to}" for one in standing)
    return f"these stand: {stand}" if stand else "nothing of this loop is published"


def _require_publishable(loop: LoopFolder, wish: Wish) -> None:
    policy_id = wish.policy.model_id
    if policy_id not in loop.registry.policies():
        raise UserError(f"{policy_id} is no policy that this loop has trained; publish one of those.")
    champion = loop.registry.champion()
    if wish.anyway or (champion is not None and champion.policy_id == policy_id):
        return
    raise UserError(
        f"{policy_id} is not the champion, which is {champion.policy_id if champion else 'none'}; --anyway publishes "
        "it, and its card says what was decided."
    )


def _require_new(loop: LoopFolder, policy: Checkpoint, place: PublishingPlace) -> None:
    there = Publications(loop.store).standing(place.name, policy.model_id)
    if there:
        raise UserError(
            f"{policy.model_id} is published at {place.name} already, as {there[-1].tag}; withdraw that first, or "
            "choose another place."
        )


def _free_tag(policy_id: str, place: PublishingPlace) -> str:
    """The policy's id, with a number where it was published there before."""
    taken, tag, number = place.tags(), policy_id, 1
    while tag in taken:
        number += 1
        tag = f"{policy_id}-{number}"
    return tag


def _write(loop: LoopFolder, wish: Wish, files: Path) -> None:
    if wish.weights == "adapters":
        write_adapters_alone(loop, wish.policy, files)
    else:
        write_whole(wish.policy, files)


def _write_card(
    loop: LoopFolder,
    wish: Wish,
    files: Path,
    licence: str,
    sources: Sequence[LicensedSource],
    place: PublishingPlace,
    tag: str,
) -> None:
    write_policy_card(
        files,
        facts_of(loop, wish.policy),
        licence=licence,
        sources=sources,
        place=place.opened_as,
        revision=place.revision(tag),
        adapters=wish.weights == "adapters",
        rows=embedding_rows(plain_folder(wish.policy.folder)) if wish.weights == "adapters" else 0,
    )
