"""Adapters and the plain model under them, written as one plain checkpoint."""

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import ADAPTER_WEIGHTS
from rlhf_dagster.lineage.model_folders import (
    ABILITIES,
    ADAPTER_BASE,
    ADAPTER_CONFIG,
    ADAPTER_PLACE,
    MANIFEST,
    holds_adapters,
    replacing,
)
from rlhf_dagster.training.checkpoints.configs import open_config
from rlhf_dagster.training.checkpoints.saving import write_model
from rlhf_dagster.training.checkpoints.sources import Source
from rlhf_dagster.training.models.own_adapters import merged_adapters
from rlhf_dagster.training.models.policies import load_model
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer

_OF_ADAPTERS = {ADAPTER_BASE, ADAPTER_CONFIG, ADAPTER_PLACE, ADAPTER_WEIGHTS, ABILITIES, MANIFEST}


def merge_folder(folder: Path, output: Path) -> str:
    """Write what the adapters in ``folder`` make of their model as a plain checkpoint; returns the model's class.

    What lies beside them, such as a tokenizer or the values of PPO, comes along. Weights of 4 or 8 bits are written as
    the numbers that they stand for, as the policy was trained and sampled with these.

    Raises:
        UserError: there are no adapters, their model is not to be found, or something is at ``output``.
    """
    if not holds_adapters(folder):
        raise UserError(f"{folder}: no adapters of ours, as {ADAPTER_BASE} is missing; give a folder with them.")
    if output.exists():
        raise UserError(f"{output} is there already; give a folder that is not.")
    with replacing(output) as written:
        return _merge(folder, written)


def _merge(folder: Path, written: Path) -> str:
    written.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and holds_adapters(path):
            _merge(path, written / path.name)
        elif path.name not in _OF_ADAPTERS:
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, written / path.name)
    merged = merged_adapters(load_model(_auto_class(folder), folder))
    write_model(merged, written)
    return type(merged).__name__


def _auto_class(folder: Path) -> Any:
    """What opens the folder: a reward or value model is a sequence scorer."""
    config = open_config(AutoSequenceScorer, Source(str(folder)))
    return AutoSequenceScorer if hasattr(config, "score_bias") else AutoModelForCausalLM
