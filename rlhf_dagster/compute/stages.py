"""The trainings of a loop as specs, before there is anything to train on: what their memory is estimated for."""

from pathlib import Path
from typing import Any

from rlhf_dagster.config.arms import BEST_OF_N_SFT, GRPO, RLOO, TRAINED, Arm
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec, TinyModelSpec

_NONE = Path("no-table-yet")
BORROWED = {arm.title: arm.name for arm in TRAINED.values() if arm in (RLOO, GRPO, BEST_OF_N_SFT)}
"""By title, what `loop.yaml` calls the settings of an arm that borrows another's training."""


def loop_specs(model: Path, config: LoopConfig) -> dict[str, Spec]:
    """The stages that train on ``model`` with the settings of a loop, by title, on tables that fill every batch.

    Where PPO goes on from the last round's policy, which is another model than its reference, that stands apart.
    """
    own: dict[str, Any] = {"output": _NONE, "sampling": config.sampling, "compute": config.compute}
    first = PpoSpec(model, model, model, _NONE, _NONE, settings=config.ppo, **own)
    specs: dict[str, Spec] = {}
    if config.base_model.source == "tiny":
        specs["Pretraining"] = TinyModelSpec(_NONE, _NONE, config.base_model.tiny, config.compute)
    specs |= {
        "SFT": SftSpec(model, _NONE, settings=config.sft, **own),
        "Reward model": RewardModelSpec(model, _NONE, _NONE, settings=config.reward_model, **own),
        "PPO": first,
    }
    if config.ppo.start == "behaviour" and config.ppo.lora is not None and config.ppo.lora.merge:
        # The same files under another name: another model of the same sizes.
        other = model / ".." / model.name
        specs["PPO, later rounds"] = PpoSpec(other, model, model, _NONE, _NONE, settings=config.ppo, **own)
    return specs | {"DPO": DpoSpec(model, _NONE, settings=config.dpo, **own)} | _variants(model, config, own)


def _variants(model: Path, config: LoopConfig, own: dict[str, Any]) -> dict[str, Spec]:
    """The arms that the loop asks for and that borrow a training."""
    compared = {RLOO: config.rloo.as_ppo(), GRPO: config.grpo.as_ppo()}
    tuned = SftSpec(model, _NONE, settings=config.best_of_n_sft.as_sft(config.sft), **own)
    specs: dict[Arm, Spec] = {
        arm: PpoSpec(model, model, model, _NONE, _NONE, settings=settings, **own) for arm, settings in compared.items()
    }
    asked = config.trained_arms()
    return {arm.title: spec for arm, spec in (specs | {BEST_OF_N_SFT: tuned}).items() if arm in asked}
