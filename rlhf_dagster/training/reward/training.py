"""A reward model that is trained, whole or in parts: with ties and adapters, until it is saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_dagster.training.models.own_adapters import begin_adapters, end_adapters, require_no_adapters
from rlhf_dagster.training.models.passes.logit_pieces import plain_model
from rlhf_dagster.training.models.passes.narrow_weights import prepare_training, widen_weights
from rlhf_dagster.training.models.policies import save_model
from rlhf_dagster.training.models.sharding.opening import Sharding
from rlhf_dagster.training.models.sharding.twin import PlainTwin
from rlhf_dagster.training.reward.labels import EncodedLabel
from rlhf_dagster.training.reward.scores import RewardModel
from rlhf_dagster.training.reward.ties import make_tie_model
from rlhf_dagster.training.runtime.distributed import on_main
from rlhf_dagster.training.specs import RewardModelSpec


class RewardModelTraining:
    """A reward model before, while and after it is trained on labels."""

    def __init__(self, reward_model: RewardModel, labels: list[EncodedLabel], spec: RewardModelSpec) -> None:
        self.reward_model = reward_model
        self.labels = labels
        self._spec = spec
        self._trained: Any = None
        self._twin: PlainTwin | None = None

    def shard(self, sharding: Sharding) -> None:
        """Begin at once where the model is to be in parts, since a whole model alone can be given adapters."""
        if sharding.wanted:
            trained = self.begin()
            self._twin = sharding.twin(trained)
            sharding.shard(self.reward_model.model)

    def begin(self) -> Any:
        """The model with what only training needs: a model of ties, and adapters; made once."""
        if self._trained is None:
            self._trained = self._with_extras()
            prepare_training(plain_model(self._trained), self._spec.compute)
        return self._trained

    def end(self) -> dict[str, float]:
        """Make the trained model what is saved, but for one in parts; returns the figures of its model of ties."""
        if self._twin is None:
            widen_weights(self._trained)
            self._trained, figures = self._without_extras(self._trained)
            self.reward_model = replace(self.reward_model, model=self._trained.eval())
            return figures
        ties = getattr(self._trained, "ties", None)
        return {} if ties is None else ties.figures()

    def save(self, folder: Path) -> None:
        """Write the model, adapters merged unless they stay; all ranks call it."""
        if self._twin is None:
            save_model(*self._parts(), folder)
            return
        (trained,) = self._twin.put_together()
        on_main(lambda: save_model(self._without_extras(trained)[0], self.reward_model.tokenizer, folder))

    def _parts(self) -> tuple[Any, Any]:
        return self.reward_model.model, self.reward_model.tokenizer

    def _with_extras(self) -> Any:
        model, settings = self.reward_model.model, self._spec.settings
        ties = make_tie_model(settings, [choice for label in self.labels for choice in label.terms.choices])
        if ties is not None:
            model.ties = ties.to(model.device)
        if settings.lora is None:
            require_no_adapters(model, "reward_model.lora")
            return model
        extra = [] if ties is None else ["ties"]
        return begin_adapters(model, settings.lora, self._spec.sft, heads=["score"], new=extra)

    def _without_extras(self, trained: Any) -> tuple[Any, dict[str, float]]:
        """The model without them, adapters merged unless they stay, and the figures of its model of ties."""
        lora = self._spec.settings.lora
        model = trained if lora is None else end_adapters(trained, lora)
        ties = getattr(model, "ties", None)
        if ties is None:
            return model, {}
        del model.ties
        return model, ties.figures()
