"""What every way of starting a training gives: whether it can, and the training."""

from collections.abc import Callable
from dataclasses import dataclass

from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.training.specs import OnStep, Spec

Prepare = Callable[[Spec, Work], Spec]
"""Removes what an earlier try has left, and gives the spec as it is trained; raises UserError where it cannot be."""
TrainWork = Callable[[str, Spec, Work, OnStep, int], Trained]
"""Trains a stage's spec, and calls the progress as it goes. The last argument is the work's open lock (a descriptor),
which whoever goes on when this process is killed must hold. Raises what
:func:`rlhf_dagster.compute.run.run_training` does."""


@dataclass(frozen=True)
class Launcher:
    """One value of the setting `compute.launch`."""

    prepare: Prepare
    train: TrainWork
