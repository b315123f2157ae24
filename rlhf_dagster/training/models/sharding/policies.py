"""A policy that is trained by a Trainer, whole or in parts, with adapters or without, until it is saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from peft import PeftModel

from rlhf_dagster.config.training import ComputeSettings, LoraSettings, SamplingSettings
from rlhf_dagster.training.models.lora import inner_model
from rlhf_dagster.training.models.own_adapters import begin_adapters, end_adapters, require_no_adapters
from rlhf_dagster.training.models.passes.narrow_weights import prepare_training, widen_weights
from rlhf_dagster.training.models.policies import Policy, save_policy
from rlhf_dagster.training.models.sharding.opening import Sharding
from rlhf_dagster.training.models.sharding.twin import PlainTwin
from rlhf_dagster.training.runtime.distributed import on_main
from rlhf_dagster.training.runtime.seeding import seed_everything


class PolicyTraining:
    """A policy before, while and after it is trained."""

    def __init__(self, policy: Policy, lora: LoraSettings | None, compute: ComputeSettings, seed: int) -> None:
        self.policy = policy
        self.compute = compute
        self._lora, self._seed = lora, seed
        self._adapted: PeftModel | None = None
        self._twin: PlainTwin | None = None
        self._begun = False

    @property
    def model(self) -> Any:
        """What a Trainer is given: the policy's model, or the adapters around it."""
        return self._adapted or self.policy.model

    def shard(self, sharding: Sharding) -> None:
        """Begin at once where the policy is to be in parts, since a whole model alone can be given adapters."""
        if sharding.wanted:
            self.begin()
            self._twin = sharding.twin(self.model)
            sharding.shard(self.policy.model)

    def begin(self, trains: bool = True) -> None:
        """Give the policy its adapters, drawn by the seed, and hold it as `compute` says, where it ``trains``; once."""
        if self._begun:
            return
        self._begun = True
        if trains:
            seed_everything(self._seed)
        if self._lora is None:
            require_no_adapters(self.policy.model, "lora")
        else:
            self._adapted = begin_adapters(self.policy.model, self._lora, self.policy.folder)
        if trains:
            prepare_training(self.policy.model if self._adapted is None else inner_model(self._adapted), self.compute)

    def end(self) -> None:
        """Make the trained policy what is saved; one in parts stays in parts, and has its adapters beside it."""
        if self._twin is None:
            widen_weights(self.policy.model)
            self.policy = replace(self.policy, model=self._ended(self.model).eval())

    def save(self, sampling: SamplingSettings, folder: Path) -> None:
        """Write the policy, adapters merged unless they stay; all ranks call it."""
        if self._twin is None:
            save_policy(self.policy, sampling, folder)
            return
        (model,) = self._twin.put_together()
        on_main(lambda: save_policy(replace(self.policy, model=self._ended(model).eval()), sampling, folder))

    def _ended(self, model: Any) -> Any:
        return model if self._lora is None else end_adapters(cast("PeftModel", model), self._lora)
