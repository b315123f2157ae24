"""A base model that every stage can use, or the sentence that says which cannot."""

from pathlib import Path

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.training.pretraining.base_model import load_base_model
from rlhf_dagster.training.probe.examination import require_usable
from rlhf_dagster.training.specs import TrainingResult


def load_usable_base_model(settings: BaseModelSettings, output: Path) -> TrainingResult:
    """As :func:`~rlhf_dagster.training.pretraining.base_model.load_base_model`, of a model that has been examined.

    What was found is kept beside the weights, and goes on to all models that are made from them.

    Raises:
        UserError: the model cannot be opened, or a stage that every loop needs cannot use it.
    """
    return load_base_model(settings, output, require_usable)
