"""The memory of each training, divided among GPUs, and how many of these it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import BaseModelSettings, LoraSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term
from rlhf_dagster.planning.devices import IN_A_HOST, Gpu
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.footprint.weights import HALF, NUMBER, shares_base
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec

MOST_GPUS = 1024
"""That are tried."""
BYTES_IN_GB = 1e9


@dataclass(frozen=True)
class WhileDrawing:
    """Bytes while a training draws responses: ``held`` of all GPUs together, and ``whole`` on each of them."""

    held: float
    whole: float


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
    drawing: WhileDrawing | None = None
    """None where it draws no responses, or others draw them for it."""

    @property
    def needed(self) -> float:
        return max(self.learning, self.sampling)

    @property
    def learning(self) -> float:
        return self.whole / self.gpus + self.gathered + self.own

    @property
    def sampling(self) -> float:
        """While it draws responses; 0 where it draws none."""
        return self.drawing.held / self.gpus + self.drawing.whole + self.own if self.drawing else 0


def at_size(config: LoopConfig) -> LoopConfig:
    """The settings with which a loop is planned: products in bfloat16, and activations computed again."""
    compute = config.compute.changed(device="cuda", precision="bf16", gradient_checkpointing=True)
    return config.changed(compute=compute, base_model=BaseModelSettings(source="folder"))


def smallest(model: Path, config: LoopConfig, gpu: Gpu) -> list[Sharded]:
    """Each training on as few GPUs as it fits on; raises UserError for one that fits on none that is tried."""
    usable = gpu.gib * constants.GIB * BYTES_IN_GB * constants.USABLE.value
    return [_smallest(title, spec, usable, gpu) for title, spec in loop_specs(model, at_size(config)).items()]


def _smallest(title: str, spec: Spec, usable: float, gpu: Gpu) -> Sharded:
    for draws in (True, False):
        each = (sharded(title, spec, gpus, draws) for gpus in _counts())
        if found := next((training for training in each if training.needed <= usable), None):
            return found
    raise UserError(
        f"{title} does not fit on {MOST_GPUS:,} GPUs of {gpu.gib:.0f} GiB: what each needs whole is too large. Take "
        "adapters (--train adapters), or lower sampling.prompt_tokens and sampling.response_tokens."
    )


def _counts() -> Iterator[int]:
    """Numbers of GPUs: 1, 2, 4, and whole hosts."""
    yield from (1, 2, 4)
    yield from range(IN_A_HOST, MOST_GPUS + 1, IN_A_HOST)


def sharded(title: str, spec: Spec, gpus: int, draws: bool = True) -> Sharded:
    """The estimate of one process, its weights and optimiser divided among ``gpus``.

    Batches are raised to a row for each GPU where they are smaller. The copy of all gradients that replicas exchange is
    not there: each GPU has the sum of its share alone. ``draws``: whether the training draws its responses itself, for
    which every GPU has the whole policy.
    """
    spec = _with_rows(spec, gpus)
    alone = training_of(spec).peak_memory(spec)
    ranks = replace(spec, compute=spec.compute.changed(launch="process", processes=gpus))
    own = training_of(ranks).peak_memory(ranks)
    apart, several = own.activations + own.logits + own.cache, gpus > 1
    drawing = _drawing(spec, alone, gpus) if draws and several else None
    return Sharded(title, gpus, alone.weights + alone.optimizer, _gathered(spec) if several else 0, apart, drawing)


def _drawing(spec: Any, alone: Parts, gpus: int) -> WhileDrawing | None:
    """PPO draws from the policy that it trains, in a copy in bfloat16; a reward model's scale is set on samples of SFT.

    There are no gradients then, a third of what Adam has in float32.
    """
    others = 1 - 1 / gpus
    if isinstance(spec, PpoSpec):
        trained = spec.settings.lora is None
        each = NUMBER * others + HALF if trained else HALF * others
        return WhileDrawing(alone.weights + alone.optimizer * 2 / 3, each * model_sizes(spec.start).parameters)
    if isinstance(spec, RewardModelSpec) and spec.settings.normalisation == "samples":
        parameters = model_sizes(spec.sft).parameters
        held = HALF if shares_base(spec.settings.lora) else NUMBER + HALF
        return WhileDrawing(held * parameters, HALF * others * parameters)
    return None


def _with_rows(spec: Any, gpus: int) -> Any:
    if not hasattr(spec, "settings"):
        return spec
    settings = spec.settings
    together = settings.minibatches * settings.samples_per_prompt if isinstance(spec, PpoSpec) else 1
    rows = together * gpus
    return spec if settings.batch_size >= rows else replace(spec, settings=settings.changed(batch_size=rows))


def _gathered(spec: Any) -> float:
    """A layer and the next one of a model, and of all models what is in no layer, as they are held."""
    models = _models(spec)
    if not models:
        return 0
    layer = max(each * model.in_maps / max(model.shape.layers, 1) for model, each in models)
    return 2 * layer + sum(each * (model.parameters - model.in_maps) for model, each in models)


def _models(spec: Any) -> list[tuple[ModelSizes, int]]:
    """The models that a training has, with the bytes of a weight: what is trained has 4, what is read 2.

    Adapters on one base are one model, which is read.
    """
    if isinstance(spec, PpoSpec):
        trained = 2 if spec.settings.value == "separate" else 1
        return _held(spec.start, trained, 2, spec.settings.lora)
    if isinstance(spec, SftSpec):
        return _held(spec.model, 1, 0, spec.settings.lora)
    if isinstance(spec, RewardModelSpec | DpoSpec):
        return _held(spec.sft, 1, 1, spec.settings.lora)
    return []


def _held(folder: Path, trained: int, read: int, lora: LoraSettings | None) -> list[tuple[ModelSizes, int]]:
    model = model_sizes(folder)
    if lora is not None:
        return [(model, HALF)] * (1 if shares_base(lora) else trained + read)
    return [(model, NUMBER)] * trained + [(model, HALF)] * read


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
    title, gpus = training.title, Term.of(training.gpus)
    source = "the estimate of rlhf check-memory"
    whole = sheet.given(f"{title}: weights, gradients, moments", training.whole / 1e9, "GB", source)
    own = Term.of(training.own / 1e9)
    sheet.result(f"{title}: a GPU of {training.gpus}", "GB", whole / gpus + Term.of(training.gathered / 1e9) + own)
    if training.drawing:
        held, whole = Term.of(training.drawing.held / 1e9), Term.of(training.drawing.whole / 1e9)
        sheet.result(f"{title}: the same while it draws responses", "GB", held / gpus + whole + own)


def draws_for_itself(training: Sharded) -> bool:
    """Whether a training that draws responses can draw them on its own GPUs."""
    return training.gpus == 1 or training.drawing is not None
