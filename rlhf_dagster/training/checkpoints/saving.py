"""Writing a model, so that what is written opens as the same model again."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.checkpoints.misfits import misfits_of, require_fit
from rlhf_dagster.training.checkpoints.narrow_types import name_type, narrow_type, narrowed
from rlhf_dagster.training.checkpoints.sources import foreign_errors
from rlhf_dagster.training.runtime.distributed import is_main, world

PART = "5GB"
"""Of a checkpoint that several ranks have trained, in one file."""
COMPARED = 1 << 26
"""Parameters up to which every number is compared; of a larger model only names and shapes, which costs little."""


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights and configs to ``folder``, and open them again.

    Weights all of whose numbers 16 bits have, as those of a base model that came so, are written in 16 bits.

    The names of tensors in a file are not those of the module in every architecture, and a tensor that is left out
    would be random numbers where the checkpoint is next opened.

    Raises:
        UserError: transformers cannot save the model, or what it saved is not this model.
    """
    kind = type(model).__name__
    try:
        _save(model, folder)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise UserError(f"Transformers cannot save a {kind} ({first_line(error)}); take another model.") from None
    # Of several ranks transformers has the main one write.
    if is_main():
        _require_same(model, folder)


def _save(model: PreTrainedModel, folder: Path) -> None:
    # A model of several ranks is a large one: in several files no reader needs all of it at once.
    cut: dict[str, Any] = {"max_shard_size": PART} if world() > 1 else {}
    if narrow_type(model.parameters()) is None:
        model.save_pretrained(folder, **cut)
        return
    state = model.state_dict()  # with the buffers that are saved
    kind = narrow_type(state.values())
    model.save_pretrained(folder, state_dict=state if kind is None else narrowed(state, kind), **cut)
    if kind is not None and is_main():
        name_type(folder, kind)


def _require_same(model: PreTrainedModel, folder: Path) -> None:
    place, whole = f"What transformers saved of a {type(model).__name__}", model.num_parameters() <= COMPARED
    opened, report = _opened(model, folder, place, None if whole else "meta")
    require_fit(place, opened, misfits_of(opened, report, (), heads=False))
    if whole and (wrong := _different(model, opened)) is not None:
        raise UserError(f"{place} has other numbers in {wrong}; take another model.")


def _opened(model: PreTrainedModel, folder: Path, place: str, device: str | None) -> tuple[PreTrainedModel, Any]:
    """The model in ``folder`` and the report on its weights; on the device `meta` without numbers."""
    with foreign_errors(place, "the checkpoint", "take another model"):
        found: Any = type(model).from_pretrained(
            folder,
            dtype=model.dtype,
            device_map=device,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return found[0], found[1]


def _different(model: PreTrainedModel, again: PreTrainedModel) -> str | None:
    opened = again.state_dict()
    return next((name for name, saved in model.state_dict().items() if not _equal(saved, opened.get(name))), None)


def _equal(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(one.detach().cpu(), other.to(one.dtype))
