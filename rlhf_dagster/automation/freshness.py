"""What of a loop is not there, or older than what it is made from, by Dagster's records and the loop's files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from rlhf_dagster.automation.jobs import COLLECT
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import CHOICE, policy_assets
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import is_decided, newest_promoted
from rlhf_dagster.records.loop_names import asset_of
from rlhf_dagster.resources.io_managers import TABLES

DATA_VERSION, GIVEN_VERSION = "dagster/data_version", "dagster/data_version_is_user_provided"
"""Tags of a materialisation: its data version, and whether the asset itself has said it."""
NEWEST_SEEN = "dagster/input_event_pointer/"
"""Begins, before a parent's name, the tag that holds the parent's newest record when the step began."""
MODELS = ("base_model", "sft_checkpoint")
"""What rounds are built on: once one is promoted, they are made again by a person's word alone."""

COMPARE_POLICIES = (CHOICE, "evaluation_completions")
"""What reads the policies of all arms: made before the loop's config asked for an arm, it lacks that arm."""


@dataclass
class Freshness:
    """What is to be made again, and what stays although it is older than a parent."""

    outdated: dict[str, str] = field(default_factory=dict)
    """By asset: the parent that is newer, or empty where the asset is not there."""
    kept: dict[str, str] = field(default_factory=dict)
    """By asset: the parent that is newer."""


@dataclass(frozen=True)
class Records:
    """Dagster's records of what was materialised for one round of a loop, or outside of any round.

    Each record is looked up once, so that all answers are about one state of the loop: ask a new object after a run.
    """

    loop: LoopFolder
    instance: dg.DagsterInstance
    graph: Any
    """Dagster's graph of all assets, which it does not export."""
    round_key: str | None

    def freshness(self, assets: Sequence[str]) -> Freshness:
        """What must be made again of ``assets``, given upstream first.

        That is what is not there, what a parent was made again after (it may have been read before), and what is
        downstream of either. A parent made again with the same content, as its data version says, is no newer.

        Some assets stay although what they are made from is newer. A decided round does not change because something
        outside of it does, such as `prompts`; neither does what annotators were asked, once it was sent; nor do the
        models that rounds are built on.
        """
        found = Freshness()
        for asset in assets:
            newer = [
                parent for parent in self._made_from(asset) if parent in found.outdated or self._is_newer(parent, asset)
            ]
            counting = [parent for parent in newer if not self._stays(asset, parent)]
            if counting or not self.is_there(asset):
                found.outdated[asset] = counting[0] if counting else ""
            elif newer:
                found.kept[asset] = newer[0]
        return found

    def made_from_newer(self, asset: str) -> str:
        """A parent because of which an asset that is there must be made again; empty where there is none."""
        newer = (parent for parent in self._made_from(asset) if self._is_newer(parent, asset))
        return next((parent for parent in newer if not self._stays(asset, parent)), "")

    def parents(self, asset: str) -> list[str]:
        return sorted(asset_of(key.path) for key in self.graph.get(self._asset_key(asset)).parent_keys)

    def _made_from(self, asset: str) -> list[str]:
        """The parents of an asset, without those that it did not have yet in the release that has made it.

        Policies are in it also where the loop's config has asked for them since.
        """
        known = _parents_then(self._record(asset))
        return [name for name in self.parents(asset) if not known or name in known or name in self._policies]

    def is_there(self, asset: str) -> bool:
        """Whether an asset is on record, and its file in the loop's folder, with the model that it points to."""
        return self._record(asset) is not None and self.is_stored(asset)

    def is_stored(self, asset: str) -> bool:
        """Whether an asset's file is in the loop's folder, whichever Dagster instance has it on record."""
        if asset in TABLES:
            return self.loop.has_table(asset, self._key_of(asset))
        try:
            content = self.loop.json(asset, self._key_of(asset))
            return content is not None and ("digest" not in content or self._points_to(asset, content))
        except UserError:  # damaged, or a model that is gone, which making it again mends
            return False

    def _points_to(self, asset: str, pointer: dict[str, Any]) -> bool:
        """Whether a pointer's model is there, and the one on record: a process may be killed between the two."""
        record, model = self._record(asset), self.loop.pointed_to(pointer)
        version = _tags(record).get(DATA_VERSION) if record else None
        return version in (None, pointer["digest"]) and (self._was_removed(model) or model.folder.is_dir())

    def _was_removed(self, model: Checkpoint) -> bool:
        """Whether a model went because nothing needs it any more: it is not made again."""
        return not model.is_there() and model.model_id in self.loop.removals.removed()

    def _is_newer(self, parent: str, asset: str) -> bool:
        """Whether a parent was made again, with other content, after a step had begun to make an asset."""
        made, of_parent = self._record(asset), self._record(parent)
        if made is None or of_parent is None:
            return False
        if asset in COMPARE_POLICIES and self._was_asked_for_since(parent, made):
            return True
        seen = _newest_seen(made, parent)
        if of_parent.storage_id <= seen:
            return False
        before = self._record(parent, before=seen + 1)
        return before is None or not _same_content(before, of_parent)

    def _was_asked_for_since(self, parent: str, made: dg.EventLogRecord) -> bool:
        """Whether a parent is a policy that the loop's config did not ask for when a record was made."""
        known = _parents_then(made)
        return bool(known) and parent in self._policies and parent not in known

    def _stays(self, asset: str, parent: str) -> bool:
        """Whether an asset stays as it is although ``parent`` is newer."""
        if self.round_key is None:
            return asset in MODELS and bool(newest_promoted(self.loop))
        return not self._is_of_round(parent) and (self._is_decided or (asset in COLLECT and self._is_sent))

    def _record(self, asset: str, before: int | None = None) -> dg.EventLogRecord | None:
        """The newest record of an asset, in this round if it is made by round."""
        if (asset, before) not in self._found:
            self._found[asset, before] = self._fetch(asset, before)
        return self._found[asset, before]

    def _fetch(self, asset: str, before: int | None) -> dg.EventLogRecord | None:
        partitions = [self.round_key] if self.round_key and self._is_of_round(asset) else None
        wanted = dg.AssetRecordsFilter(self._asset_key(asset), asset_partitions=partitions, before_storage_id=before)
        return next(iter(self.instance.fetch_materializations(wanted, limit=1).records), None)

    def _is_of_round(self, asset: str) -> bool:
        return bool(self.graph.get(self._asset_key(asset)).is_partitioned)

    def _asset_key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey(self.loop.names.path(asset))

    def _key_of(self, asset: str) -> str:
        return self.round_key if self.round_key and self._is_of_round(asset) else ""

    @cached_property
    def _found(self) -> dict[tuple[str, int | None], dg.EventLogRecord | None]:
        """What was looked up already: each asset is asked for once for each of its children."""
        return {}

    @cached_property
    def _policies(self) -> list[str]:
        return policy_assets(self.loop.config)

    @cached_property
    def _is_decided(self) -> bool:
        return self.round_key is not None and is_decided(self.loop, self.round_key)

    @cached_property
    def _is_sent(self) -> bool:
        return self.loop.has_table("preference_batch", self.round_key or "")


def _parents_then(made: dg.EventLogRecord | None) -> set[str]:
    """The parents that an asset had when it was made; empty where that is not on record."""
    tags = _tags(made) if made else {}
    return {asset_of(tag.split("/")) for tag in tags if tag.startswith(NEWEST_SEEN)}


def _newest_seen(made: dg.EventLogRecord, parent: str) -> int:
    """The newest record of a parent when the step began that made an asset; where that is unknown, when it ended."""
    seen = {asset_of(tag.split("/")): said for tag, said in _tags(made).items() if tag.startswith(NEWEST_SEEN)}
    return int(seen[parent]) if seen.get(parent, "").isdigit() else made.storage_id


def _same_content(one: dg.EventLogRecord, other: dg.EventLogRecord) -> bool:
    """Whether two materialisations have the same content by a data version that the asset itself has said."""
    said = [tags.get(DATA_VERSION) for tags in map(_tags, (one, other)) if tags.get(GIVEN_VERSION) == "true"]
    return len(said) == 2 and said[0] == said[1]


def _tags(record: dg.EventLogRecord) -> Mapping[str, str]:
    made = record.asset_materialization
    return (made.tags if made else None) or {}
