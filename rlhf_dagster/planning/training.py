"""The memory of each training, divided among GPUs, and how many of these it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import BaseModelSettings, ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term
from rlhf_dagster.planning.devices import IN_A_HOST, Gpu
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.specs import PpoSpec, Spec

MOST_GPUS = 1024
"""That are tried."""
_PLAIN = ComputeSettings()
BACKEND = ("rollout_backend", "rollout_server")
BYTES_IN_GB = 1e9


@dataclass(frozen=True)
class Sharded:
    """A training on several GPUs, its models in parts (`compute.sharding: full`); parts of the memory of one GPU."""

    title: str
    gpus: int
    learning: Parts
    drawing: Parts | None = None
    """None where it draws no responses, or others draw them for it."""

    @property
    def needed(self) -> float:
        """Bytes of a GPU."""
        return max(moment.total for moment in (self.learning, self.drawing) if moment)


def at_size(config: LoopConfig) -> LoopConfig:
    """The settings with which a loop is planned: products in bfloat16, and activations computed again.

    How many GPUs a training takes, and who draws its responses, is for the plan to say.
    """
    compute = config.compute.changed(
        **{name: getattr(_PLAIN, name) for name in ("launch", "processes", "sharding", "ray", *BACKEND)},
        device="cuda",
        precision="bf16",
        gradient_checkpointing=True,
    )
    return config.changed(compute=compute, base_model=BaseModelSettings(source="folder"))


def smallest(model: Path, config: LoopConfig, gpu: Gpu) -> list[Sharded]:
    """Each training on as few GPUs as it fits on; raises UserError for one that fits on none that is tried."""
    usable = gpu.gib * constants.GIB * BYTES_IN_GB * constants.USABLE.value
    return [_smallest(title, spec, usable, gpu) for title, spec in loop_specs(model, at_size(config)).items()]


def _smallest(title: str, spec: Spec, usable: float, gpu: Gpu) -> Sharded:
    for draws in (True, False):
        each = (sharded(title, spec, gpus, draws) for gpus in _counts(spec))
        if found := next((training for training in each if training.needed <= usable), None):
            return found
    if why := _why_whole(spec):
        raise UserError(
            f"{title} does not fit on a GPU of {gpu.gib:.0f} GiB, and is not divided among several: that needs {why}."
        )
    raise UserError(
        f"{title} does not fit on {MOST_GPUS:,} GPUs of {gpu.gib:.0f} GiB: what each needs whole is too large. Take "
        "adapters (--train adapters), or lower sampling.prompt_tokens and sampling.response_tokens."
    )


def _counts(spec: Spec) -> Iterator[int]:
    """Numbers of GPUs: 1, 2, 4, and whole hosts."""
    yield 1
    if not _why_whole(spec):
        yield from (2, 4)
        yield from range(IN_A_HOST, MOST_GPUS + 1, IN_A_HOST)


def _why_whole(spec: Any) -> str:
    """What models in parts need that the settings do not have; empty where they can be."""
    if (lora := spec.settings.lora) is not None and lora.base_bits is not None:
        return "`lora.base_bits: null`"
    return spec.compute.changed(launch="process", processes=2).needed_to_shard()


def sharded(title: str, spec: Spec, gpus: int, draws: bool = True) -> Sharded:
    """A training on ``gpus``, by the estimate that starts it there and that `rlhf check-memory` prints.

    Batches are raised to a row for each GPU where they are smaller. ``draws``: whether the training draws its responses
    itself, for which every GPU has the whole policy.
    """
    if gpus > 1:
        compute = spec.compute.changed(launch="process", processes=gpus, sharding="full")
        spec = replace(_with_rows(spec, gpus), compute=compute)
    training = training_of(spec)
    drawing = training.drawing_memory(spec) if draws or gpus == 1 else Parts()
    return Sharded(title, gpus, training.learning_memory(spec), drawing if drawing.total else None)


def _with_rows(spec: Any, gpus: int) -> Any:
    if not hasattr(spec, "settings"):
        return spec
    settings = spec.settings
    together = settings.minibatches * settings.samples_per_prompt if isinstance(spec, PpoSpec) else 1
    rows = together * gpus
    return spec if settings.batch_size >= rows else replace(spec, settings=settings.changed(batch_size=rows))


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
    title, source = training.title, "the estimate of rlhf check-memory, with compute.sharding: full"
    learning = training.learning
    whole = sheet.given(f"{title}: weights, gradients, moments", _divided(training, learning), "GB", source)
    sheet.result(f"{title}: a GPU of {training.gpus}", "GB", _of_a_gpu(training, whole, learning))
    if training.drawing:
        held = sheet.given(
            f"{title}: weights and moments while it draws responses", _divided(training, training.drawing), "GB", source
        )
        name = f"{title}: the same while it draws responses"
        sheet.result(name, "GB", _of_a_gpu(training, held, training.drawing))


def _divided(training: Sharded, moment: Parts) -> float:
    """GB of which each GPU has its share."""
    return training.gpus * (moment.weights + moment.optimizer) / BYTES_IN_GB


def _of_a_gpu(training: Sharded, divided: Term, moment: Parts) -> Term:
    """Its share, what it has whole for a time, and activations, logits and cache of its rows."""
    own = moment.activations + moment.logits + moment.cache
    return divided / Term.of(training.gpus) + Term.of(moment.gathered / BYTES_IN_GB) + Term.of(own / BYTES_IN_GB)


def draws_for_itself(training: Sharded) -> bool:
    """Whether a training that draws responses can draw them on its own GPUs."""
    return training.gpus == 1 or training.drawing is not None
