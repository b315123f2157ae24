"""What the Trainer subclasses of SFT and of the reward model share."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_dagster.config.schedule import PLAIN, ScheduleSettings
from rlhf_dagster.config.training import ComputeSettings, DpoSettings, RewardModelSettings, SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.sharding.policies import PolicyTraining
from rlhf_dagster.training.models.sharding.trainer import OwnTensorsTrainer, checkpoint_in
from rlhf_dagster.training.runtime.distributed import average_gradients, is_main, own_slice, world
from rlhf_dagster.training.runtime.divergence import require_finite_loss
from rlhf_dagster.training.runtime.learning_rates import rate_share
from rlhf_dagster.training.runtime.optimizers import optimizer_class
from rlhf_dagster.training.runtime.resuming import TrainingStopped
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.shuffled_batches import ShuffledBatches
from rlhf_dagster.training.specs import OnStep

_Row = TypeVar("_Row")


class KeptTrainer(OwnTensorsTrainer):
    """A Trainer whose checkpoints are states of a :class:`StateKeeper`, and that reads each batch whole on every rank.

    A batch has the same rows for any number of ranks: ``data_collator`` picks this rank's rows and splits them into
    parts by :func:`own_parts`, and ``compute_loss`` multiplies the loss of each part by its `scale`.
    """

    curve_names: tuple[str, ...] = ("loss",)
    """What is logged after each step and kept as curves."""

    stage: str = ""
    """The section of the settings that the training reads, for sentences."""

    def __init__(
        self,
        keeper: StateKeeper,
        lengths: Sequence[int] | None = None,
        schedule: ScheduleSettings = PLAIN,
        *,
        compute: ComputeSettings,
        **arguments: Any,
    ) -> None:
        config: Any = getattr(arguments.get("model"), "config", None)
        cached = getattr(config, "use_cache", None)
        super().__init__(**arguments, optimizer_cls_and_kwargs=_optimizer(compute, arguments["args"]))
        if cached is not None:
            # The Trainer sets it to its own, with which the checkpoint would be sampled from without a cache.
            config.use_cache = cached
        self.keeper, self.lengths, self.schedule = keeper, lengths, schedule

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows: Any = self.train_dataset
        batches = ShuffledBatches(len(rows), self.args.per_device_train_batch_size, self.args.seed, self.lengths)
        self.add_callback(SetEpoch(batches))
        return DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The plain schedule is the Trainer's own, to the last digit of version 0.1; any other is ours."""
        steps, schedule = num_training_steps, self.schedule
        if schedule == PLAIN:
            return super().create_scheduler(num_training_steps, optimizer)
        if misfit := schedule.misfit(steps, self.stage):
            raise UserError(f"{misfit}.")
        trained = cast("torch.optim.Optimizer", optimizer or self.optimizer)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trained, lambda step: rate_share(step, steps, schedule))
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """A backward pass for each part of the batch, whose gradients add up; returns the sum of their losses."""
        first, *rest = (super(KeptTrainer, self).training_step(model, part) for part in inputs["parts"])
        if self.in_parts:
            average_gradients(self.module().parameters())
        return sum(rest, start=first)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Always 0: the Trainer's count does not know a batch in parts, and nobody reads it."""
        return 0

    def store_flos(self) -> None:
        """Does nothing: the Trainer would sum over all ranks here, but the main rank alone writes checkpoints."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let the Trainer write into the temporary folder of a state, which is renamed once it is complete."""

        def fill(folder: Path) -> None:
            self.args.output_dir = str(folder)
            super(KeptTrainer, self)._save_checkpoint(model, trial)

        if self.in_parts:
            self.keeper.write_together(self.state.global_step, lambda folder: self._fill_together(folder, fill))
        else:
            self.keeper.write(self.state.global_step, fill)

    def _fill_together(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """Every rank writes its parts of weights and optimiser, and the main rank the rest."""
        self.write_parts(folder)
        if is_main():
            fill(folder)


def _optimizer(compute: ComputeSettings, made: TrainingArguments) -> tuple[Any, dict[str, Any]]:
    kind, own = optimizer_class(compute)
    betas = (made.adam_beta1, made.adam_beta2)
    return kind, {"lr": made.learning_rate, "betas": betas, "eps": made.adam_epsilon} | own


class SetEpoch(TrainerCallback):
    """Tells the batches which epoch begins, also where the Trainer resumes in the middle of an epoch."""

    def __init__(self, batches: ShuffledBatches) -> None:
        self.batches = batches

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.batches.epoch = state.global_step // len(self.batches)


class ReportCurves(TrainerCallback):
    """Keeps the logged numbers of every step, those before an interruption too, and passes them on."""

    def __init__(self, progress: OnStep, names: Sequence[str]) -> None:
        self.curves: dict[str, list[float]] = {}
        self.names = names
        self.progress = progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        steps = [entry for entry in state.log_history if "loss" in entry]
        self.curves = {name: [float(entry[name]) for entry in steps] for name in self.names}

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            numbers = {name: float(logs[name]) for name in self.names}
            require_finite_loss(numbers["loss"], state.global_step)
            for name, number in numbers.items():
                self.curves[name].append(number)
            if is_main():
                self.progress(state.global_step, state.max_steps, **numbers)


class KeepState(TrainerCallback):
    """Makes the Trainer write a state when one is due, and stop when there is a reason to."""

    def __init__(self, keeper: StateKeeper) -> None:
        self.keeper = keeper
        self.reason = ""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step < state.max_steps:
            control.should_save, self.reason = self.keeper.verdict()
            control.should_training_stop = bool(self.reason)
        return control


def loss_scale(own: float, whole: float) -> float:
    """Factor for the mean loss of a rank's rows, which have ``own`` of the batch's ``whole`` tokens or label weights.

    DDP averages gradients over ranks; with this factor the average is the gradient of the mean loss over the batch.
    """
    return own * world() / whole if whole else 1.0


def rows_at_once(settings: SftSettings | RewardModelSettings | DpoSettings) -> int:
    """Rows of the largest part of a batch; evaluation reads as many at once."""
    return math.ceil(settings.batch_size / settings.accumulate)


def own_parts(
    rows: list[_Row],
    parts: int,
    amount: Callable[[_Row], float],
    collate: Callable[[list[_Row]], dict[str, torch.Tensor]],
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """This rank's rows of a batch in ``parts`` collated parts, each with the `scale` that multiplies its mean loss.

    ``amount`` gives a row's share in the loss: its tokens, or the weight of its labels. Every rank needs the same
    number of parts, so a part without rows of its own gets the batch's first row, with scale 0.
    """
    whole, own = sum(map(amount, rows)), rows[own_slice(len(rows))]
    cut = [own[len(own) * part // parts : len(own) * (part + 1) // parts] for part in range(parts)]
    scales = [torch.tensor(loss_scale(sum(map(amount, part)), whole)) for part in cut]
    return {"parts": [collate(part or rows[:1]) | {"scale": scale} for part, scale in zip(cut, scales, strict=True)]}


def fit(trainer: KeptTrainer, progress: OnStep) -> list[float]:
    """Train, from the newest state where there is one; returns the loss of every step."""
    return fit_curves(trainer, progress)["loss"]


def fit_curves(trainer: KeptTrainer, progress: OnStep) -> dict[str, list[float]]:
    """As :func:`fit`; returns each of the trainer's ``curve_names``, with one number for every step."""
    report, keep = ReportCurves(progress, trainer.curve_names), KeepState(trainer.keeper)
    trainer.add_callback(report)
    trainer.add_callback(keep)
    trainer.remove_callback(PrinterCallback)
    state = trainer.keeper.newest(trainer.misfit)
    trainer.train(resume_from_checkpoint=None if state is None else str(checkpoint_in(state)))
    if keep.reason:
        raise TrainingStopped(keep.reason)
    return report.curves


def fit_policy(
    trainer: Callable[..., KeptTrainer],
    training: PolicyTraining,
    progress: OnStep,
    *,
    rows: Dataset[Any],
    collate: Callable[[list[Any]], dict[str, Any]],
    **arguments: Any,
) -> dict[str, list[float]]:
    """Train a policy, or its adapters; returns the trainer's curves.

    ``trainer`` makes the Trainer; ``arguments`` are those of :func:`training_arguments`.
    """
    training.begin()
    with training_arguments(training.policy.device, **arguments) as made:
        made_trainer = trainer(
            compute=training.compute, model=training.model, args=made, train_dataset=rows, data_collator=collate
        )
        curves = fit_curves(made_trainer, progress)
    training.end()
    return curves


@contextmanager
def training_arguments(
    device: torch.device, seed: int, batch_size: int, max_grad_norm: float | None = None, **arguments: Any
) -> Iterator[TrainingArguments]:
    """Arguments for a Trainer that writes nothing but states: the stage saves its own checkpoint.

    Where the :class:`KeptTrainer` gets no other schedule, the learning rate falls linearly to 0 without warm-up, and
    gradients are not clipped unless ``max_grad_norm`` is given (Ziegler et al. 2019, lm-human-preferences
    `utils/core.py`, `minimize`).
    """
    with tempfile.TemporaryDirectory() as folder:
        made = TrainingArguments(
            output_dir=folder,
            seed=seed,
            per_device_train_batch_size=batch_size,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            lr_scheduler_type="linear",
            warmup_steps=0,
            max_grad_norm=max_grad_norm or 0.0,
            logging_steps=1,
            # The filter would log a loss of NaN as 0.
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            **arguments,
        )
        # One process uses one GPU. Where it sees several, the Trainer would split the rows of each tensor among them.
        made._n_gpu = min(made.n_gpu, 1)
        yield made
