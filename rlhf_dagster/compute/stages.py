"""The trainings of a loop as specs, before there is anything to train on: what their memory is estimated for."""

from pathlib import Path
from typing import Any

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec, TinyModelSpec

_NONE = Path("no-table-yet")


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
    return specs | {"DPO": DpoSpec(model, _NONE, settings=config.dpo, **own)}
