"""The memory of each training, divided among GPUs, and how many of these it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term
from rlhf_dagster.planning.devices import IN_A_HOST, Gpu
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.footprint.weights import read_number, shares_base
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec

MOST_GPUS = 4096
"""That are tried."""
BYTES_IN_GB = 1e9


@dataclass(frozen=True)
class Sharded:
    """A training on several GPUs, each of which holds its share of weights, gradients and moments; bytes of one GPU."""

    title: str
    gpus: int
    whole: float
    """Bytes of weights, gradients and moments, of all GPUs together."""
    gathered: float
    """Of the weights that a GPU holds whole for a moment: two layers of one model, and what belongs to no layer."""
    own: float
    """Of activations, logits and cache."""

    @property
    def needed(self) -> float:
        return self.whole / self.gpus + self.gathered + self.own


def at_size(config: LoopConfig) -> LoopConfig:
    """The settings with which a loop is planned: products in bfloat16, and activations computed again."""
    compute = config.compute.changed(device="cuda", precision="bf16", gradient_checkpointing=True)
    return config.changed(compute=compute, base_model=BaseModelSettings(source="folder"))


def smallest(model: Path, config: LoopConfig, gpu: Gpu) -> list[Sharded]:
    """Each training on as few GPUs as it fits on; raises UserError for one that fits on none that is tried."""
    usable = gpu.gib * constants.GIB * BYTES_IN_GB * constants.USABLE.value
    return [_smallest(title, spec, usable, gpu) for title, spec in loop_specs(model, at_size(config)).items()]


def _smallest(title: str, spec: Spec, usable: float, gpu: Gpu) -> Sharded:
    for gpus in _counts():
        found = sharded(title, spec, gpus)
        if found.needed <= usable:
            return found
    raise UserError(
        f"{title} does not fit on {MOST_GPUS:,} GPUs of {gpu.gib:.0f} GiB: what each needs whole is too large. Take "
        "adapters (--train adapters), or lower sampling.prompt_tokens and sampling.response_tokens."
    )


def _counts() -> Iterator[int]:
    """Numbers of GPUs: 1, 2, 4, and whole hosts."""
    yield from (1, 2, 4)
    yield from range(IN_A_HOST, MOST_GPUS + 1, IN_A_HOST)


def sharded(title: str, spec: Spec, gpus: int) -> Sharded:
    """The estimate of one process, its weights and optimiser divided among ``gpus``.

    Batches are raised to a row for each GPU where they are smaller. The copy of all gradients that replicas exchange is
    not there: each GPU has the sum of its share alone.
    """
    spec = _with_rows(spec, gpus)
    alone = training_of(spec).peak_memory(spec)
    ranks = replace(spec, compute=spec.compute.changed(launch="process", processes=gpus))
    own = training_of(ranks).peak_memory(ranks)
    apart = _gathered(spec) if gpus > 1 else 0
    return Sharded(title, gpus, alone.weights + alone.optimizer, apart, own.activations + own.logits + own.cache)


def _with_rows(spec: Any, gpus: int) -> Any:
    if not hasattr(spec, "settings"):
        return spec
    settings = spec.settings
    together = settings.minibatches * settings.samples_per_prompt if isinstance(spec, PpoSpec) else 1
    rows = together * gpus
    return spec if settings.batch_size >= rows else replace(spec, settings=settings.changed(batch_size=rows))


def _gathered(spec: Spec) -> float:
    """A layer and the next one of a model, and of all models what is in no layer, in the precision of products."""
    models = _models(spec)
    layer = max(_of_a_layer(model) for model in models)
    return read_number(spec.compute) * (2 * layer + sum(model.parameters - model.in_maps for model in models))


def _of_a_layer(model: ModelSizes) -> float:
    return model.in_maps / max(model.shape.layers, 1)


def _models(spec: Any) -> list[ModelSizes]:
    """The models that a training has: what is trained, and what is read beside it. Adapters on one base are one."""
    if isinstance(spec, PpoSpec):
        count = 4 if spec.settings.value == "separate" else 3
        return [model_sizes(spec.start)] * (1 if shares_base(spec.settings.lora) else count)
    if isinstance(spec, SftSpec):
        return [model_sizes(spec.model)]
    if isinstance(spec, RewardModelSpec | DpoSpec):
        return [model_sizes(spec.sft)] * (1 if shares_base(spec.settings.lora) else 2)
    return []


def training_sheet(trainings: list[Sharded], gpu: Gpu) -> Sheet:
    """What each training needs, and on how many GPUs it fits."""
    sheet = Sheet("Memory of the trainings")
    memory = sheet.given("memory of a GPU", gpu.gib, "GiB", gpu.source)
    usable = sheet.result("of it planned with", "GB", memory * Term.of(constants.GIB) * sheet.known(constants.USABLE))
    for training in trainings:
        _lines_of(sheet, training)
    most = max(trainings, key=lambda training: training.gpus)
    sheet.given("GPUs for the trainings", most.gpus, "", f"those of {most.title}; each GPU has {usable.text} GB")
    return sheet


def _lines_of(sheet: Sheet, training: Sharded) -> None:
    title = training.title
    source = "the estimate of rlhf check-memory"
    whole = sheet.given(f"{title}: weights, gradients, moments", training.whole / 1e9, "GB", source)
    parts = whole / Term.of(training.gpus) + Term.of(training.gathered / 1e9) + Term.of(training.own / 1e9)
    sheet.result(f"{title}: a GPU of {training.gpus}", "GB", parts)


def samples_itself(ppo: Sharded, weights: float, gpu: Gpu) -> bool:
    """Whether PPO's GPUs have room for all ``weights`` (in bytes) whole while they draw responses."""
    usable = gpu.gib * constants.GIB * BYTES_IN_GB * constants.USABLE.value
    return ppo.needed + weights * (1 - 1 / ppo.gpus) <= usable
