"""Supervised fine-tuning, in each of its ways, and interrupted."""

from pathlib import Path

from benchmarks.models.inputs import COMPUTE, LONGEST, ROWS, SAMPLING
from benchmarks.models.plain import Plain
from benchmarks.models.trial import Trial, WrongNumberError, require_close, require_same_weights
from rlhf_dagster.config.training import LoraSettings, SftSettings
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import SftSpec

SFT = SftSettings(epochs=2, batch_size=ROWS, learning_rate=1e-2, max_tokens=LONGEST)
"""A batch is the whole table, so that the first step's loss is the untrained model's."""


def plain_sft(trial: Trial) -> None:
    """The loss before and after, by the trained checkpoint as transformers opens it."""
    _train(trial, "sft", SFT)


def packed_sft(trial: Trial) -> None:
    """Several demonstrations in a row."""
    _train(trial, "packed", SFT.changed(packing=True))


def adapted_sft(trial: Trial) -> None:
    """Adapters, merged at the end."""
    _train(trial, "adapted", SFT.changed(lora=LoraSettings(rank=2)))


def resumed_sft(trial: Trial) -> None:
    """Stopped after a step and taken up again: the same weights, bit for bit."""
    whole, spec = trial.made("sft"), _spec(trial, trial.new("resumed"), SFT)
    state = trial.new("state")
    try:
        train_sft(spec, checkpointing=Checkpointing(state, 3600, lambda: "stopped"))
    except TrainingStopped:
        train_sft(spec, checkpointing=Checkpointing(state, 3600))
    else:
        raise WrongNumberError("trial: it was not stopped")
    require_same_weights("resumed", spec.output, whole)


def _train(trial: Trial, name: str, settings: SftSettings) -> None:
    spec = _spec(trial, trial.new(name), settings)
    result, held_out = train_sft(spec), trial.inputs.held_out
    require_close("loss before", [result.metrics["initial_validation_loss"]], [trial.plain.loss(held_out)])
    require_close("loss after", [result.metrics["validation_loss"]], [Plain(spec.output).loss(held_out)])
    require_close("first loss", result.curves["loss"][:1], [trial.plain.loss(trial.inputs.taught)])


def _spec(trial: Trial, output: Path, settings: SftSettings) -> SftSpec:
    return SftSpec(trial.base, trial.inputs.demonstrations, output, settings, SAMPLING, seed=1, compute=COMPUTE)
