"""Whether a new loop can begin: what can be known of it before anything is trained, a line each."""

from collections.abc import Iterator

from rlhf_dagster.cli.sizing.outlines import outline_of_model
from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.compute.free_memory import free_memory
from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.doctor import Diagnosis, diagnoses_of

LOOKED_AT = ("packages", "room", "data", "label store")
"""What of `rlhf doctor` says something of a loop that has made nothing yet."""
FEW_PROMPTS = 100
"""Test prompts below which it is said what a win rate on them is worth."""


def first_diagnoses(loop: LoopFolder) -> Iterator[Diagnosis]:
    """What a new loop has and lacks. Memory is estimated for a model that is given: a tiny one fits."""
    yield from (one for one in diagnoses_of(loop) if one.about in LOOKED_AT)
    if loop.config.base_model.source != "tiny":
        yield _memory(loop)


def on_few_prompts(test: int) -> str:
    """What a test split of few prompts can show; empty where it has enough."""
    if not 0 < test < FEW_PROMPTS:
        return ""
    found = wilson(test / 2, test)
    return (
        f"On {test:,} test prompts a win rate is known to about {50 * (found.high - found.low):.0f} points either way."
    )


def _memory(loop: LoopFolder) -> Diagnosis:
    more = f"rlhf check-memory {loop.said}"
    try:
        with outline_of_model(loop.config.base_model) as model:
            needed = {stage: required_bytes(spec) for stage, spec in loop_specs(model, loop.config).items()}
    except UserError as error:
        return Diagnosis("memory", str(error), more)
    stage, free = max(needed, key=lambda name: needed[name]), free_memory(loop.config.compute)
    sentence = f"The largest stage, {stage}, needs about {needed[stage] / 1e9:.1f} GB"
    if free.bytes is None:
        return Diagnosis("memory", f"{sentence}; how much is free is not known.")
    each = free.bytes // (loop.config.compute.processes if free.shared else 1)
    fits = needed[stage] <= each
    return Diagnosis("memory", f"{sentence}, and {each / 1e9:.1f} GB are free on {free.where}.", "" if fits else more)
