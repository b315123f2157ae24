"""What was found out about a model by running it, kept with it: in its object, and in its folder beside the weights.

The record holds for one architecture, for the versions of torch and transformers that it was made with, and for the
config beside it; for others a model is tried again. It is no part of the model's digest.
"""

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import PreTrainedModel

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import ABILITIES
from rlhf_dagster.lineage.weight_files import CONFIG
from rlhf_dagster.training.runtime.distributed import is_main


@dataclass(frozen=True)
class Reading:
    """How rows of a batch are given to a model."""

    padding: Literal["left", "right"] = "left"
    """Where padding may stand; with `right`, rows are moved to the left edge (:mod:`~.layout`)."""
    positions: bool = True
    """Whether positions are given with padding on the left; the model otherwise takes them from the mask."""


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn from a model."""

    by: Literal["cache", "generate", "whole"] = "cache"
    """`cache`: all rows at once with a cache of this package. `generate`: rows of one length by the model's own
    `generate`. `whole`: every token so far is read again for the next one."""
    rows_leave: bool = True
    """Whether rows that have ended can leave the batch before the others have."""


@dataclass
class Abilities:
    """None stands for what was not tried yet."""

    reading: Reading | None = None
    drawing: Drawing | None = None
    batching: str | None = None
    """Why transformers' continuous batching is not used; empty where it samples from the model."""
    trunk: str | None = None
    """The name of the module below the output head, without which the head runs alone; empty where it does not."""


def abilities_of(model: Any) -> Abilities:
    """What is known about ``model``, which may be wrapped for training on several ranks; to be added to."""
    model = getattr(model, "module", model)
    known: Abilities | None = getattr(model, "abilities", None)
    if known is None:
        known = model.abilities = Abilities()
    return known


def keep_abilities(model: PreTrainedModel, folder: Path) -> None:
    """Write what is known about ``model`` into the checkpoint in ``folder``, on the rank that has written it."""
    if is_main():
        (folder / ABILITIES).write_bytes(seal(asdict(abilities_of(model)) | _holds_for(folder)))


def recall_abilities(model: PreTrainedModel, folder: Path) -> None:
    """Take over what is kept in the folder that ``model`` was opened from, where it still holds."""
    # Whatever is wrong with the record, the model is tried again.
    with suppress(OSError, UserError, KeyError, TypeError):
        kept = unseal((folder / ABILITIES).read_bytes(), ABILITIES)
        if all(kept[name] == value for name, value in _holds_for(folder).items()):
            model.abilities = _abilities(kept)  # type: ignore[assignment]


def _abilities(kept: dict[str, Any]) -> Abilities:
    reading, drawing = kept["reading"], kept["drawing"]
    return Abilities(
        None if reading is None else Reading(**reading),
        None if drawing is None else Drawing(**drawing),
        kept["batching"],
        kept.get("trunk"),  # version 0.1 did not ask
    )


def _holds_for(folder: Path) -> dict[str, str]:
    config = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    return {"torch": torch.__version__, "transformers": transformers.__version__, "config": config}
