"""A Trainer of transformers that leaves a model in parts as it is, and keeps its own tensors in checkpoints."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from rlhf_dagster.training.models.sharding.weights import has_shards, reshard
from rlhf_dagster.training.runtime.sharding.states import holds_shards, outline_of, read_sharded, write_sharded
from rlhf_dagster.training.runtime.sharding.tensors import full_tensor, states_like
from rlhf_dagster.training.runtime.trainer_weights import take_weights, weights_misfit
from rlhf_dagster.training.runtime.weights import changing_tensors, copy_into, misfit, write_weights


class OwnTensorsTrainer(Trainer):
    """A Trainer whose checkpoints have the trained module's own tensors, in the folder of a state.

    Where the model was in parts from the beginning, the Trainer neither moves it nor wraps it, and each rank writes and
    reads its parts. ``TrainingArguments(fsdp=...)`` is not used: on a CPU it is plain DDP, without a word.
    """

    def __init__(self, **arguments: Any) -> None:
        self.in_parts = has_shards(arguments["model"])
        self._kept_optimizer: dict[str, Any] | None = None
        """That of a state in parts, between weights and optimiser being taken from it."""
        super().__init__(**arguments)

    def module(self) -> torch.nn.Module:
        """What is trained, while all of it is in parts if any of it is."""
        module = cast("torch.nn.Module", self.model)
        reshard(module)
        return module

    def misfit(self, state: Path) -> str:
        """Why the training cannot go on from a state, for a sentence; empty where it can."""
        if holds_shards(state):
            return misfit(changing_tensors(self.module()), outline_of(state)["weights"])
        return weights_misfit(self.module(), checkpoint_in(state))

    def write_parts(self, state: Path) -> None:
        """Write weights and optimiser into the folder of a state; all ranks call it."""
        optimizer = cast("torch.optim.Optimizer", self.optimizer)
        write_sharded({"weights": changing_tensors(self.module()), "optimizer": optimizer.state_dict()}, state)

    def create_accelerator_and_postprocess(self) -> None:
        """A model in parts averages its gradients itself, and is not wrapped by DDP."""
        super().create_accelerator_and_postprocess()
        if self.in_parts:
            self.accelerator.prepare_model = lambda model, *_, **__: model

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Of a model in parts, while no part of it is whole: it would have other parameters."""
        self.module()
        return super().create_optimizer(model)

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """A model in parts is where it belongs."""
        if not self.in_parts:
            super()._move_model_to_device(model, device)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return full_tensor(super()._get_grad_norm(model, grad_norm))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the trained module's own tensors, where the Trainer would write a checkpoint for other programs."""
        assert output_dir is not None  # noqa: S101  # only states are saved
        Path(output_dir).mkdir(parents=True)
        if not self.in_parts:
            write_weights(self.module(), Path(output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.in_parts:
            torch.save(self._scheduler().state_dict(), Path(output_dir) / SCHEDULER_NAME)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Take all of these tensors, where the Trainer would take those whose names it finds."""
        checkpoint = Path(resume_from_checkpoint)
        if holds_shards(checkpoint.parent):
            kept = read_sharded(checkpoint.parent, self.args.device, self.in_parts)
            copy_into(changing_tensors(self.module()), kept["weights"])
            self._kept_optimizer = kept["optimizer"]
        else:
            take_weights(self.module(), checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """From parts, or for parts; the Trainer reads whole tensors for a whole model."""
        if checkpoint is None or not (self.in_parts or holds_shards(Path(checkpoint).parent)):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer = cast("torch.optim.Optimizer", self.optimizer)
        kept = self._kept_optimizer or _read(Path(checkpoint) / OPTIMIZER_NAME)
        self._kept_optimizer = None
        optimizer.load_state_dict(states_like(kept, optimizer))
        self._scheduler().load_state_dict(_read(Path(checkpoint) / SCHEDULER_NAME))

    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        return cast("torch.optim.lr_scheduler.LRScheduler", self.lr_scheduler)


def checkpoint_in(state: Path) -> Path:
    """The folder in a state that the Trainer has written."""
    return next(state.glob("checkpoint-*"))


def _read(file: Path) -> Any:
    """Tensors on the CPU, read from the disk where they are used; no code of the file runs."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
