"""How the jobs are declared by which a person steps in. A loop gives the declarations its names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from rlhf_dagster.automation.watch import WHY_TAG
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.formats import bring_up_to_date
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.place import require_in_place
from rlhf_dagster.records.loop_names import LoopNames
from rlhf_dagster.resources.own_keys import with_own_resources

BY_TAG = "rlhf/by"
_USER = "user"
"""Tag in which Dagster says who launched a run, where it knows its users."""
_AHEAD = {"dagster/priority": "10"}
"""Where runs wait for their turn, a person's word goes before the work that it may be about."""


class Signed(dg.Config):
    """Who steps in, and why."""

    by: str = Field("", description="Your name, kept on record; empty: the user that Dagster knows, where it does.")
    reason: str = Field("", description="Why, kept on record.")


Act = Callable[[dg.OpExecutionContext, Any, LoopFolder], Iterable[str]]
"""From the run, its config and the loop to sentences on what was done; raises UserError where it cannot be."""


@dataclass(frozen=True)
class Intervention:
    """A job of every loop with one op of the same name."""

    name: str
    act: Act
    config: type[dg.Config]
    description: str

    def of(self, names: LoopNames, config: LoopConfig) -> dg.JobDefinition:
        """The job of one loop. Its launchpad begins with every field as it is by default, which its class says."""
        name = names.own(self.name)
        op = dg.op(name=name, out=dg.Out(dg.Nothing), description=self.description)(
            with_own_resources(_sentences_of(self), names)
        )
        # Dagster wants another name for the graph than for its op.
        return dg.GraphDefinition(name=f"{name}_graph", node_defs=[op]).to_job(
            name=name,
            description=self.description,
            tags=names.tag(config.name) | _AHEAD,
        )


def intervention(name: str, description: str, config: type[dg.Config]) -> Callable[[Act], Intervention]:
    """Declare the job of which a function does the work."""
    return lambda act: Intervention(name, act, config, description)


def who(context: dg.OpExecutionContext, config: Signed, otherwise: str = "") -> str:
    """Who steps in: the field `by`, or the user that Dagster knows, or ``otherwise``; raises UserError without any."""
    by = config.by.strip() or context.run.tags.get(_USER, "").strip() or otherwise
    if not by:
        raise UserError("Say who you are in the field `by`: it stays on record.")
    why = {WHY_TAG: config.reason} if config.reason else {}
    context.instance.add_run_tags(context.run.run_id, {BY_TAG: by} | why)
    return by


def _sentences_of(one: Intervention) -> Callable[..., None]:
    """What the op does: sentences go to the run's log, and one that says what is wrong ends it."""

    def run(context: dg.OpExecutionContext, config: Any, loop: dg.ResourceParam[LoopFolder]) -> None:
        try:
            require_in_place(loop)
            bring_up_to_date(loop.store)
            for sentence in one.act(context, config, loop):
                context.log.info(sentence)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    run.__annotations__["config"] = one.config
    return run
