"""The champion: approved, refused, rolled back."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from rlhf_dagster.assets.release import decide_round
from rlhf_dagster.automation.interventions.define import Signed, intervention, who
from rlhf_dagster.automation.own_runs import require_none_at_work
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.candidates import approve_candidate, newest_candidate, refuse_candidate
from rlhf_dagster.loop.interventions.champions import restore_champion

ROUND_TAG = "rlhf/round"


class CandidateConfig(Signed):
    """Of which round's policy something is said."""

    round: str = Field("", description="The round whose policy it is, such as round-0003; empty: the newest with one.")


class ApprovalConfig(CandidateConfig):
    """An approval."""

    anyway: bool = Field(False, description="Promote also where the gate says no, which stays on record.")


class RollbackConfig(Signed):
    """A rollback."""

    to: str = Field("", description="Id of an earlier champion; empty: the one before.")


@intervention("approve", "Approve a round's policy, which makes it the champion.", ApprovalConfig)
def approving(context: dg.OpExecutionContext, config: ApprovalConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf promote`."""
    by, key = who(context, config), _round(context, config, loop)
    policy = approve_candidate(loop, key, by, config.reason, config.anyway)
    decision = _decide(context, loop, key)
    if not decision["promoted"]:
        raise UserError(f"{policy} is approved, and not promoted: {' '.join(decision['reasons'])}")
    yield f"{policy} of {key} is the champion: by {by}, {config.reason}"
    yield "The next round samples from it. The way back is the job `rollback`."


@intervention("refuse", "Refuse a round's policy whatever the gate says: the champion stays.", CandidateConfig)
def refusing(context: dg.OpExecutionContext, config: CandidateConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf refuse`."""
    by, key = who(context, config), _round(context, config, loop)
    policy = refuse_candidate(loop, key, by, config.reason)
    decision = _decide(context, loop, key)
    yield f"{policy} of {key} is refused: by {by}, {config.reason}"
    yield f"{decision['champion']} stays the champion. More labels make another policy of the round."


@intervention("rollback", "Make an earlier champion the champion again.", RollbackConfig)
def rolling_back(context: dg.OpExecutionContext, config: RollbackConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf rollback`."""
    done = restore_champion(loop, config.to or None, who(context, config), config.reason, _asked(context))
    yield f"{done.champion} is the champion, in the place of {done.before}."
    yield "Rounds collected from now on sample from it; earlier ones keep the policy that they sampled from."
    yield from done.published


def _asked(context: dg.OpExecutionContext) -> datetime:
    """When a person had the run begun, which may have waited in a queue since."""
    stats = context.instance.get_run_stats(context.run.run_id)
    return datetime.fromtimestamp(stats.enqueued_time or stats.launch_time or stats.start_time or time.time(), UTC)


def _round(context: dg.OpExecutionContext, config: CandidateConfig, loop: LoopFolder) -> str:
    """The round, of which nothing else is being made just now."""
    if stop := read_stop(loop.store):
        raise UserError(stop.sentence)
    key = config.round or newest_candidate(loop)
    require_none_at_work(context.instance, loop, key)
    context.instance.add_run_tags(context.run.run_id, {ROUND_TAG: key})
    return key


def _decide(context: dg.OpExecutionContext, loop: LoopFolder, key: str) -> dict[str, Any]:
    """Make the asset `promotion` of a round, as its own step would."""
    made = decide_round(loop, key, loop.json("eval_report", key) or {})
    loop.write_json("promotion", key, made.value)
    asset = dg.AssetKey(loop.names.path("promotion"))
    context.log_event(dg.AssetMaterialization(asset, metadata=made.metadata, partition=key))
    return made.value
