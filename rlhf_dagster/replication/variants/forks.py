"""Whether a variant may take over another one's beginning: what the assets of it read must be set the same."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_dagster.automation.jobs import COLLECT, JUDGE, LEARN, PREPARE, RELEASE
from rlhf_dagster.config.arms import TRAINED
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.candidate import CHOICE
from rlhf_dagster.replication.variants.loops import VariantLoop
from rlhf_dagster.replication.variants.steps import first_steps

ASSET_ORDER = [
    *PREPARE,
    *COLLECT,
    *LEARN,
    "reward_model_halves",
    *(arm.asset for arm in TRAINED.values()),
    CHOICE,
    *JUDGE,
    *RELEASE,
]
"""All assets that a loop may have, upstream first."""
FIRST_READER: Mapping[str, str] = {
    "sampling": "sft_checkpoint",
    "sft": "sft_checkpoint",
    "labeling": "completions",
    "label_store": "preference_batch",
    "data.annotator_kind": "preference_batch",
    "reward_model": "reward_model",
    "gate": "reward_model_halves",
    "reward": "reward_model_halves",
    "ppo": "ppo_policy",
    "rloo": "ppo_policy",
    "grpo": "ppo_policy",
    "dpo": "ppo_policy",
    "best_of_n_sft": "ppo_policy",
    "arms": "ppo_policy",
    "release": "ppo_policy",
    "evaluation": "policy_choice",
    "models": "promotion",
}
"""By setting, the first asset of a loop's first round that it changes; one that is not here may change all of them.

That an asset would refuse to be made, such as for too few prompts to decide on a policy, is no change of it."""
OWN_SETTINGS: Mapping[str, str] = {"base_model": "base_model", "sft_checkpoint": "sft"}
"""The assets that a variant may make anew in what it takes over, and the settings that are then its own."""
CHANGES_NOTHING = ("name", "owner", "automation")
"""Settings that no asset reads."""


def require_same_beginning(loop: VariantLoop, source: VariantLoop, after: str) -> None:
    """Raise UserError, naming the settings, where ``loop`` would not come to the same as ``source`` up to ``after``."""
    _require_own_models(loop)
    for one in (source, loop):
        if not first_steps(one.all_steps, after):
            raise UserError(
                f"The variant {loop.variant.name} begins as {source.variant.name} does up to {after}, which "
                f"{one.variant.name} has not; let it end later."
            )
    own = [OWN_SETTINGS[asset] for asset in loop.variant.anew]
    paths = [path for path in _differing(loop.config, source.config) if path.split(".")[0] not in own]
    differ = [path for path in paths if _is_read_until(path, after)]
    if differ:
        raise UserError(
            f"The variant {loop.variant.name} begins as {source.variant.name} does up to {after}, and what that is "
            f"made from is set differently: {', '.join(differ)}. Set it the same, or begin from less."
        )


def _require_own_models(loop: VariantLoop) -> None:
    """Raise UserError where a variant would make anew what it cannot, or train another model than it has made anew."""
    if strange := [asset for asset in loop.variant.anew if asset not in OWN_SETTINGS]:
        known = ", ".join(OWN_SETTINGS)
        raise UserError(f"The variant {loop.variant.name} makes {strange[0]} anew; of a beginning that can be {known}.")
    made = {asset for step in loop.steps for asset in step.assets}
    others = [name for name, arm in TRAINED.items() if arm.asset in made and _starts_as_sampled(loop.config, name)]
    if loop.variant.anew and others:
        raise UserError(
            f"The variant {loop.variant.name} makes {loop.variant.anew[-1]} anew, and its policy would start from the "
            f"one that the round sampled from all the same; set `{others[0]}.start: sft`."
        )


def _starts_as_sampled(config: LoopConfig, arm: str) -> bool:
    return getattr(getattr(config, arm), "start", "") == "behaviour"


def _is_read_until(path: str, after: str) -> bool:
    section = path.split(".", maxsplit=1)[0]
    first = FIRST_READER.get(path, FIRST_READER.get(section, ASSET_ORDER[0]))
    return section not in CHANGES_NOTHING and ASSET_ORDER.index(first) <= ASSET_ORDER.index(after)


def _differing(one: LoopConfig, other: LoopConfig) -> Iterator[str]:
    """The settings, as `section.name`, in which two loops differ."""
    for section in LoopConfig.model_fields:
        yield from _paths(section, getattr(one, section), getattr(other, section))


def _paths(section: str, one: Any, other: Any) -> Iterator[str]:
    if one == other:
        return
    fields = getattr(type(one), "model_fields", None)
    if not fields or type(one) is not type(other):
        yield section
        return
    yield from (f"{section}.{name}" for name in fields if getattr(one, name) != getattr(other, name))
