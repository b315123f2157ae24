"""What each training stage is given and what it returns: plain values and paths. Importing this imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from rlhf_dagster.config.base import LATER
from rlhf_dagster.config.judging.reward import RewardSettings, uses_reward_model
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
    TinyModelSettings,
)
from rlhf_dagster.errors import UserError


class OnStep(Protocol):
    """Called after each optimiser step (each update in PPO) with the current numbers, such as the loss."""

    def __call__(self, step: int, total: int, **numbers: float) -> None: ...


def silent(step: int, total: int, **numbers: float) -> None:
    """An :class:`OnStep` that does nothing."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished stage: where the checkpoint is, final numbers, one list per curve, and what looked wrong."""

    folder: Path
    metrics: dict[str, float]
    curves: dict[str, list[float]]
    warnings: list[str] = field(default_factory=list)


class Spec(Protocol):
    """The fields that the spec of every training has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def output(self) -> Path: ...

    @property
    def compute(self) -> ComputeSettings: ...


@dataclass(frozen=True)
class TinyModelSpec:
    """Pretrain a tiny model on the `train` rows of a PRETRAINING_TEXT table."""

    pretraining_text: Path
    output: Path
    settings: TinyModelSettings = field(default_factory=TinyModelSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)


@dataclass(frozen=True)
class SftSpec:
    """Fine-tune ``model`` on the `train` rows of a DEMONSTRATIONS table; its `validation` rows are only measured."""

    model: Path
    demonstrations: Path
    output: Path
    settings: SftSettings = field(default_factory=SftSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)


@dataclass(frozen=True)
class RewardModelSpec:
    """Train a reward model from the SFT checkpoint on a PREFERENCES table, normalised on prompts of a PROMPTS table.

    ``demonstrations`` is a DEMONSTRATIONS table, given for `settings.normalisation: demonstrations` and only for it.
    """

    sft: Path
    preferences: Path
    prompts: Path
    output: Path
    settings: RewardModelSettings = field(default_factory=RewardModelSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    demonstrations: Path | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class PpoSpec:
    """Optimise ``start`` (normally the SFT checkpoint) against a reward model, with ``sft`` as the fixed reference.

    ``pretraining_text`` is a PRETRAINING_TEXT table, used where `settings.pretraining_coef` is above 0.
    ``reward_function`` ("module:function" or "file.py:function") takes the reward model's place: called with a list of
    prompts and a list of their responses, it gives one finite number for each. ``reward`` takes its place as well, or
    adds other rewards to it. Where the reward model does not reward, it only initialises a separate value model, and
    may be None.
    """

    sft: Path
    start: Path
    reward_model: Path | None
    prompts: Path
    pretraining_text: Path | None
    output: Path
    settings: PpoSettings = field(default_factory=PpoSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    reward_function: str | None = None
    reward: RewardSettings | None = field(default=None, metadata=LATER)
    answers: str = ""
    """Address of the store that keeps what judges of ``reward`` have answered; empty: a folder beside ``output``."""

    @property
    def rewarded_by_model(self) -> bool:
        """Whether the reward model's score is the reward, or a part of it."""
        return self.reward_function is None and (self.reward is None or uses_reward_model(self.reward))


@dataclass(frozen=True)
class DpoSpec:
    """Optimise ``sft`` on the `train` labels of a PREFERENCES table by DPO; its start is the fixed reference.

    ``feedback`` is a FEEDBACK table, of responses that people liked or did not, which the loss `kto` learns from too.
    """

    sft: Path
    preferences: Path
    output: Path
    settings: DpoSettings = field(default_factory=DpoSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    feedback: Path | None = field(default=None, metadata=LATER)


_Spec = TypeVar("_Spec", bound=Spec)


def spec_to_json(spec: Spec) -> str:
    return TypeAdapter(type(spec)).dump_json(spec, indent=1).decode()


def spec_from_json(kind: type[_Spec], text: str, source: str) -> _Spec:
    """The spec in ``text``; raises UserError naming ``source`` and the first wrong setting."""
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{source}: `{path}`: {first['msg']}; please correct it.") from None
