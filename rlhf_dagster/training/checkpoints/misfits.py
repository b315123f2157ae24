"""What a report of loaded weights says about a checkpoint: that they are the model's, or why not."""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.weight_files import OUTPUT_HEADS

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_model", "base_layer")
"""What data parallelism, `torch.compile`, sharding, checkpointing and adapters put into the names of weights."""
OLD_BUFFERS = re.compile(r"(^|\.)(masked_bias|causal_mask|inv_freq|position_ids|version)$")
"""Constants that earlier versions of transformers saved and that later ones compute."""
VALUE_HEAD = "v_head."
"""Head that trl keeps beside a policy, which the policy does not read."""


class Misfits(NamedTuple):
    missing: list[str]
    """Weights of the model that the checkpoint lacks."""
    surplus: list[str]
    """Weights of the checkpoint that the model lacks, but for those that it never reads."""
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Name, shape in the checkpoint, shape in the model."""


def misfits_of(model: PreTrainedModel, report: Mapping[str, Any], new: Collection[str], heads: bool) -> Misfits:
    """What transformers reports and its own lists of harmless names leave.

    Args:
        new: weights that are to be made anew, wherever they are missing.
        heads: whether the heads of other tasks are harmless, as a policy's is for a reward model.
    """
    modules = {name for name, _ in model.named_children()} | {name for name, _ in model.named_parameters()}
    surplus = [
        name
        for name in sorted(report["unexpected_keys"])
        if not OLD_BUFFERS.search(name)
        and not name.startswith(VALUE_HEAD)
        and not (heads and name.split(".")[0] not in modules)
        and not name.endswith((".attn.bias", ".attention.bias"))
    ]
    reshaped = sorted((name, tuple(there), tuple(here)) for name, there, here in report["mismatched_keys"])
    return Misfits(sorted(set(report["missing_keys"]) - set(new)), surplus, reshaped)


def require_fit(place: str, model: PreTrainedModel, found: Misfits) -> None:
    """Raise UserError unless the model's weights are all the checkpoint's, and the checkpoint's all the model's.

    Transformers fills what does not fit with random numbers and only says so in its log.
    """
    wrong = _renamed(found) or _reshaped(found) or _other(type(model).__name__, found)
    if wrong is not None:
        raise UserError(f"{place}: {wrong}.")


def _renamed(found: Misfits) -> str | None:
    """What training has put into the names of weights."""
    missing, surplus, _ = found
    if wrapper := _wrapper(surplus):
        return (
            f"the names of its weights have {wrapper!r} in them, as {surplus[0]}, so that they are not found; save "
            "the model itself, without what wrapped it in training"
        )
    if prefix := _prefix(missing, surplus):
        return f"the names of its weights begin with {prefix!r}, so that they are not found; save them without it"
    if any("lora_" in name for name in surplus):
        return f"it has adapters ({surplus[0]}) that are not merged; merge them with peft's `merge_and_unload`"
    return None


def _reshaped(found: Misfits) -> str | None:
    for name, there, here in found.reshaped:
        return (
            f"{name} is {_shape(there)} in its weights and {_shape(here)} by config.json; put the right ones together"
        )
    return None


def _other(kind: str, found: Misfits) -> str | None:
    missing, surplus, _ = found
    if missing and not surplus and all(name.split(".")[0] in OUTPUT_HEADS for name in missing):
        return f"the checkpoint lacks {missing[0]}, so it has no language-model head; give the causal language model"
    if missing and surplus:
        return (
            f"the checkpoint lacks {_listed(missing)} and has {_listed(surplus)}, so that its weights are those of "
            f"another kind of model than config.json's ({kind}); put back the config.json that belongs to them"
        )
    if missing:
        return (
            f"the checkpoint lacks {_listed(missing)}; it is damaged or of another kind of model than {kind}, which "
            "would begin there with random numbers: fetch or make it again"
        )
    if surplus:
        return (
            f"the checkpoint has {_listed(surplus)}, which {kind} would leave out by config.json, and so compute "
            "something else; put back the config.json that belongs to the weights"
        )
    return None


def _wrapper(surplus: list[str]) -> str | None:
    """The part of a name that a wrapper put there, with the parts that it puts before it."""
    for name in surplus:
        parts = name.split(".")
        if parts[:2] == ["base_model", "model"]:
            return "base_model.model."
        if found := next((part for part in parts if part in WRAPPERS), None):
            return f"{found}."
    return None


def _prefix(missing: list[str], surplus: list[str]) -> str | None:
    """What stands before the names of all missing weights in the checkpoint."""
    if not missing:
        return None
    ends = {name.removesuffix(missing[0]) for name in surplus if name.endswith(f".{missing[0]}")}
    return next((end for end in ends if {f"{end}{name}" for name in missing} <= set(surplus)), None)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _shape(shape: Collection[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
