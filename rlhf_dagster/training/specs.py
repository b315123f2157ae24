"""What each training stage is given and what it returns: plain values and paths. Importing this imports no torch."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError, create_model

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
    TinyModelSettings,
    is_of_loops,
)
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.functions import from_folder


class Progress(Protocol):
    """Called after each optimiser step (each update in PPO) with the numbers that move."""

    def __call__(self, step: int, total: int, **numbers: float) -> None: ...


def silent(step: int, total: int, **numbers: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished stage: where the checkpoint is, final numbers, one list per curve, and what looked wrong."""

    folder: Path
    metrics: dict[str, float]
    curves: dict[str, list[float]]
    warnings: list[str] = field(default_factory=list)


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
    """Train a reward model from the SFT checkpoint on a PREFERENCES table, normalised on prompts of a PROMPTS table."""

    sft: Path
    preferences: Path
    prompts: Path
    output: Path
    settings: RewardModelSettings = field(default_factory=RewardModelSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)


@dataclass(frozen=True)
class PpoSpec:
    """Optimise ``start`` (normally the SFT checkpoint) against a reward model, with ``sft`` as the fixed reference.

    ``pretraining_text`` is a PRETRAINING_TEXT table, used where `settings.pretraining_coef` is above 0.
    ``reward_function`` ("module:function" or "file.py:function") takes the reward model's place: called with a list of
    prompts and a list of their responses, it gives one finite number for each. The reward model is then only what a
    separate value model begins as, and may be None.
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


@dataclass(frozen=True)
class DpoSpec:
    """Optimise ``sft`` on the `train` labels of a PREFERENCES table by DPO, with itself as the fixed reference."""

    sft: Path
    preferences: Path
    output: Path
    settings: DpoSettings = field(default_factory=DpoSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int = 0
    compute: ComputeSettings = field(default_factory=ComputeSettings)


Spec = TypeVar("Spec", TinyModelSpec, SftSpec, RewardModelSpec, PpoSpec, DpoSpec)


def spec_to_json(spec: TinyModelSpec | SftSpec | RewardModelSpec | PpoSpec | DpoSpec) -> str:
    return TypeAdapter(type(spec)).dump_json(spec, indent=1).decode()


def spec_from_json(kind: type[Spec], text: str, source: str) -> Spec:
    """The spec in ``text``; raises UserError naming ``source`` and the first wrong setting."""
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{source}: `{path}`: {first['msg']}; please correct it.") from None


MEANINGS = {
    "output": "Where the model goes: a folder that is not there yet.",
    "model": "Folder of the model to start from: any causal language model with safetensors weights.",
    "sft": "Folder of the SFT checkpoint, which is the reference policy.",
    "start": "Folder of the policy to start from, normally the SFT checkpoint.",
    "reward_model": "Folder of the reward model.",
    "pretraining_text": "Parquet table of documents (columns of PRETRAINING_TEXT).",
    "demonstrations": "Parquet table of prompts and responses (columns of DEMONSTRATIONS).",
    "preferences": "Parquet table of labels (columns of PREFERENCES).",
    "prompts": "Parquet table of prompts (columns of PROMPTS).",
    "seed": "Everything random in the training derives from it.",
    "reward_function": "In place of a reward model: module:function or file.py:function, called with lists of prompts "
    "and responses.",
}
"""What the fields of specs are, for people who write one."""


def spec_model(kind: type[Spec]) -> type[Settings]:
    """The same fields as settings: with the defaults of the spec, and a sentence for each wrong key or value."""
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for part in fields(kind):
        default = part.default if part.default_factory is MISSING else part.default_factory()
        value = Field(... if default is MISSING else default, description=MEANINGS.get(part.name))
        made[part.name] = (hints[part.name], value)
    return create_model(kind.__name__, __base__=Settings, **made)


def spec_from_values(kind: type[Spec], values: Any, source: str, folder: Path) -> Spec:
    """The spec that a person wrote; relative paths begin at ``folder``.

    Raises UserError naming ``source`` and the first wrong key or value.
    """
    parsed = spec_model(kind).parse(values, source)
    _refuse_what_loops_use(getattr(parsed, "settings", None), source)
    found = ((part.name, getattr(parsed, part.name)) for part in fields(kind))
    arguments: dict[str, Any] = {name: folder / value if isinstance(value, Path) else value for name, value in found}
    if function := arguments.get("reward_function"):
        arguments["reward_function"] = from_folder(function, folder)
    return kind(**arguments)


def _refuse_what_loops_use(settings: Settings | None, source: str) -> None:
    """Raise UserError for a setting that is given and would be ignored, because stages of a loop alone read it."""
    if settings is None:
        return
    for name in settings.model_fields_set:
        if is_of_loops(type(settings).model_fields[name]):
            raise UserError(f"{source}: `settings.{name}` is for loops, and a spec says it itself; leave it out.")
