"""The assets of a loop: what every loop has, the policies that its config asks for, and what reads those."""

import dagster as dg

from rlhf_dagster.assets import data, evaluation, models, policy, preferences, release, reward
from rlhf_dagster.assets.feedback import feedback
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.candidate import CHOICE, policy_assets

MODULES = [data, models, preferences, reward, evaluation]
"""The modules of which every loop has all assets."""
READ_POLICIES = [evaluation.evaluation_completions, evaluation.eval_report, release.promotion]
"""What reads the policies of a round, whichever a loop trains."""


def loop_assets(config: LoopConfig) -> list[dg.AssetsDefinition]:
    """The assets of a loop. An arm that it does not train has none, and nothing waits for it."""
    arms = config.trained_arms()
    made = [policy.arm_asset(arm, config) for arm in arms] + ([feedback] if config.learns_from_feedback else [])
    choice = [policy.policy_choice([arm.asset for arm in arms])] if CHOICE in policy_assets(config) else []
    return [*_of_every_loop(), *made, *choice, *(declare(policy_assets(config)) for declare in READ_POLICIES)]


def loop_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of a loop's assets."""
    return [evaluation.may_be_promoted, reward.better_than_guessing]


def _of_every_loop() -> list[dg.AssetsDefinition]:
    return [asset for asset in dg.load_assets_from_modules(MODULES) if isinstance(asset, dg.AssetsDefinition)]
