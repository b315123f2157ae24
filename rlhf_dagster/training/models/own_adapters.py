"""Adapters that stay adapters (`lora.merge: false`): begun on a plain model, gone on with, saved beside that model.

The folder has them as peft does, so that `PeftModel.from_pretrained` opens them on the plain model, and besides the
config, the tokenizer and `base.json` (:mod:`rlhf_dagster.lineage.adapter_folders`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import Damaged, UserError, first_line
from rlhf_dagster.lineage.adapter_folders import ADAPTER_WEIGHTS, AdapterBase, named_base, write_base
from rlhf_dagster.lineage.model_folders import ADAPTER_CONFIG
from rlhf_dagster.training.models.adapted_layers import ADAPTER, share_adapters
from rlhf_dagster.training.models.lora import add_lora, inner_model, merge_lora, wrapped_by_peft
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear, plain_layers
from rlhf_dagster.training.runtime.distributed import is_main

PREFIX = "base_model.model."
"""How peft begins the names of a model's tensors."""


@dataclass
class OwnAdapters:
    """The adapters in a model that is saved as adapters."""

    peft: PeftModel
    base: AdapterBase
    plain: Path
    """The folder of the plain model."""
    heads: tuple[str, ...] = ()
    """Modules that the plain model lacks, which are saved with the adapters, such as a reward model's `score`."""


def own_adapters(model: Any) -> OwnAdapters | None:
    """The adapters of ``model``, which may be wrapped; None where it is a plain one."""
    return getattr(getattr(model, "module", model), "own_adapters", None)


def begin_adapters(
    model: PreTrainedModel,
    settings: LoraSettings,
    opened_from: Path,
    heads: Sequence[str] = (),
    new: Sequence[str] = (),
) -> PeftModel:
    """``model`` with adapters to be trained: new ones, or those that it was opened with.

    Args:
        model: what was opened from the folder ``opened_from``.
        heads: modules of the model that are trained and saved whole, such as `score`.
        new: further modules that are trained whole, and not saved.

    Raises:
        UserError: the model cannot have adapters, or has others than ``settings`` say.
    """
    own = own_adapters(model)
    if own is None:
        adapted = add_lora(model, settings, keep=[*heads, *new])
        if not settings.merge:
            base = named_base(opened_from, settings.base_bits, settings.targets)
            model.own_adapters = OwnAdapters(adapted, base, opened_from, tuple(heads))  # type: ignore[assignment]
        return adapted
    _require_same(own, settings, opened_from)
    _train_alone(own.peft, [*heads, *new])
    return own.peft


def end_adapters(adapted: PeftModel, settings: LoraSettings) -> PreTrainedModel:
    """The trained model: plain, with its adapters added into the weights, or as it is where they stay adapters."""
    if not settings.merge:
        return inner_model(adapted)
    model = inner_model(adapted)
    return merge_lora(adapted) if own_adapters(model) is None else merged_adapters(model)


def merged_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model in float32 that a ``model`` with adapters of its own is; what others share stays as it is."""
    own = own_adapters(model)
    assert own is not None  # noqa: S101  # the caller knows
    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(coded := module.get_base_layer(), QuantisedLinear):
            module.base_layer = coded.plain_layer()
            module.fan_in_fan_out = coded.turned  # type: ignore[assignment]
    plain_layers(model)
    for weight in model.parameters():
        weight.data = weight.data.float().clone()
    del model.own_adapters
    return merge_lora(own.peft)


def require_no_adapters(model: PreTrainedModel, setting: str) -> None:
    """Raise UserError where all weights are to be trained of a model that was opened with adapters."""
    if (own := own_adapters(model)) is not None:
        raise UserError(
            f"The model that training starts from is adapters on {own.base.name}, and `{setting}` is not set, which "
            "would train all weights; set it as it was for these adapters, or make them a plain model by `rlhf merge`."
        )


def write_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapters and heads of ``model`` and what they belong to into ``folder``, on the main rank."""
    own = own_adapters(model)
    assert own is not None  # noqa: S101  # the caller asked
    if not is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in _saved(model, own).items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    _write_config(own, folder)
    write_base(folder, own.plain, own.base)


def add_saved_adapters(
    model: PreTrainedModel,
    folder: Path,
    base: AdapterBase,
    plain: Path,
    heads: Sequence[str] = (),
    new: Sequence[str] = (),
) -> PreTrainedModel:
    """``model``, on the weights at ``plain``, with the adapters and ``heads`` in ``folder``, none of which is trained.

    Tensors named in ``new`` may be missing. Raises Damaged where the files do not fit the model.
    """
    config = _read_config(folder)
    with wrapped_by_peft():
        adapted = PeftModel(cast("Any", model), config, adapter_name=ADAPTER)
    share_adapters(adapted)
    model.own_adapters = OwnAdapters(adapted, base, plain, tuple(heads))  # type: ignore[assignment]
    _take(model, folder, new)
    return model.requires_grad_(False)


def trained_in_adapters(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return ".lora_" in name


def _saved(model: PreTrainedModel, own: OwnAdapters) -> dict[str, Tensor]:
    """Adapters and heads, under the names that peft gives them in a file."""
    named = model.named_parameters(remove_duplicate=False)
    heads = tuple(f"{head}." for head in own.heads)
    kept = {name: tensor for name, tensor in named if trained_in_adapters(name) or name.startswith(heads or ("\n",))}
    return {PREFIX + name.replace(f".{ADAPTER}.", "."): kept[name] for name in sorted(kept)}


@torch.no_grad()
def _take(model: PreTrainedModel, folder: Path, new: Sequence[str]) -> None:
    own = own_adapters(model)
    assert own is not None  # noqa: S101  # set by the caller
    file = folder / ADAPTER_WEIGHTS
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{file} cannot be opened ({first_line(error)}); make the model again.") from None
    places = _saved(model, own)
    missing = {name for name in places.keys() - found.keys() if name.removeprefix(PREFIX) not in new}
    if wrong := sorted(missing | (found.keys() - places.keys())):
        raise Damaged(f"{file} has other adapters than its model, such as {wrong[0]}; make the model again.")
    for name, tensor in found.items():
        if tensor.shape != places[name].shape or not tensor.isfinite().all():
            raise Damaged(f"{file}: {name} has another shape than in its model, or NaN in it; make the model again.")
        places[name].copy_(tensor)


def _write_config(own: OwnAdapters, folder: Path) -> None:
    """Peft's config, in the same bytes each time: it keeps the layers as a set."""
    config = own.peft.peft_config[ADAPTER].to_dict()
    config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": own.base.name}
    config |= {"modules_to_save": list(own.heads) or None, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    (folder / ADAPTER_CONFIG).write_text(f"{text}\n", encoding="utf-8")


def _read_config(folder: Path) -> LoraConfig:
    file = folder / ADAPTER_CONFIG
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        return LoraConfig(
            r=content["r"],
            lora_alpha=content["lora_alpha"],
            lora_dropout=0.0,
            target_modules=content["target_modules"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{file} is damaged ({first_line(error)}); make the model again.") from None


def _require_same(own: OwnAdapters, settings: LoraSettings, place: Path) -> None:
    config, base = cast("LoraConfig", own.peft.peft_config[ADAPTER]), own.base
    if settings.merge and base.bits is not None:
        raise UserError(
            f"{place}: its adapters are on {base.bits}-bit weights, into which nothing can be added exactly; set "
            "`lora.merge: false`."
        )
    asked = {"rank": settings.rank, "alpha": settings.alpha, "targets": settings.targets}
    had = {"rank": config.r, "alpha": float(config.lora_alpha), "targets": base.targets}
    if not settings.merge:
        asked, had = asked | {"base_bits": settings.base_bits}, had | {"base_bits": base.bits}
    wrong = next((name for name in asked if asked[name] != had[name]), None)
    if wrong is not None:
        raise UserError(
            f"{place}: its adapters have the {wrong} {_said(had[wrong])} and `lora.{wrong}` is {_said(asked[wrong])}, "
            "but training goes on with the same adapters; set it to theirs, or make a plain model by `rlhf merge`."
        )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "null" if value is None else f"{value:g}"


def _train_alone(adapted: PeftModel, whole: Sequence[str]) -> None:
    """Train adapters and the modules ``whole``, and nothing else."""
    model = inner_model(adapted)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained_in_adapters(name))
    for name in whole:
        model.get_submodule(name).requires_grad_(True)
