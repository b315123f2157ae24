"""The assets of a loop: what every loop has, the policies that its config asks for, and what reads those."""

import dagster as dg

from rlhf_dagster.assets import data, evaluation, models, policy, preferences, release, reward
from rlhf_dagster.assets.checks.known import LOOKS
from rlhf_dagster.assets.checks.pool import pool_is_limited
from rlhf_dagster.assets.define import LoopAsset
from rlhf_dagster.assets.feedback import feedback
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.candidate import CHOICE, policy_assets
from rlhf_dagster.records.loop_names import ALONE, LoopNames

MODULES = [data, models, preferences, reward, evaluation]
"""The modules of which every loop has all assets."""
READ_POLICIES = [evaluation.evaluation_completions, evaluation.eval_report, release.promotion]
"""What reads the policies of a round, whichever a loop trains."""


def loop_assets(config: LoopConfig, names: LoopNames = ALONE) -> list[dg.AssetsDefinition]:
    """The assets of a loop. An arm that it does not train has none, and nothing waits for it."""
    policies, tags = policy_assets(config), config.tags.steps
    chosen_from = [arm.asset for arm in config.trained_arms()]
    waits_for = {policy.policy_choice.name: chosen_from} | {asset.name: policies for asset in READ_POLICIES}
    return [asset.of(names, waits_for.get(asset.name, ()), tags) for asset in _declared(config)]


def device_assets(config: LoopConfig) -> set[str]:
    """The assets of a loop that train or sample, by name."""
    return {asset.name for asset in _declared(config) if asset.gpu}


def loop_checks(names: LoopNames = ALONE) -> list[dg.AssetChecksDefinition]:
    """The checks of a loop's assets."""
    checks = (evaluation.may_be_promoted, reward.better_than_guessing, pool_is_limited)
    return [*(check.of(names) for check in checks), *(looks.of(names) for looks in LOOKS)]


def _declared(config: LoopConfig) -> list[LoopAsset]:
    made = [policy.arm_asset(arm, config) for arm in config.trained_arms()]
    fed = [feedback] if config.learns_from_feedback else []
    choice = [policy.policy_choice] if CHOICE in policy_assets(config) else []
    return [*_of_every_loop(), *made, *fed, *choice, *READ_POLICIES]


def _of_every_loop() -> list[LoopAsset]:
    declared = [one for module in MODULES for one in vars(module).values() if isinstance(one, LoopAsset)]
    return [asset for asset in declared if not asset.reads_policies]
