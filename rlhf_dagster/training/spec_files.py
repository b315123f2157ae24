"""Reads the specs that people write, and writes examples of them. Importing this imports no torch."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import Field, create_model

from rlhf_dagster.common.functions import from_folder
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.text import commented_lines
from rlhf_dagster.config.training import is_of_loops
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.functions import reward_from_folder
from rlhf_dagster.training.specs import Spec

MEANINGS = {
    "output": "Where the model goes: a folder that is not there yet.",
    "model": "Folder of the model to start from: any causal language model with safetensors weights.",
    "sft": "Folder of the SFT checkpoint, which is the reference policy.",
    "start": "Folder of the policy to start from, normally the SFT checkpoint.",
    "reward_model": "Folder of the reward model.",
    "pretraining_text": "Parquet table of documents (columns of PRETRAINING_TEXT).",
    "demonstrations": "Parquet table of prompts and responses (columns of DEMONSTRATIONS).",
    "preferences": "Parquet table of labels (columns of PREFERENCES).",
    "feedback": "Parquet table of responses that people liked or did not (columns of FEEDBACK), for `loss: kto`.",
    "prompts": "Parquet table of prompts (columns of PROMPTS).",
    "seed": "Everything random in the training derives from it.",
    "reward_function": "In place of a reward model: module:function or file.py:function, called with lists of prompts "
    "and responses.",
    "reward": "In place of a reward model, or added to it: as `reward` in a loop.yaml.",
    "answers": "Where what judges have answered is kept: a folder or the address of a store; empty: OUTPUT.answers.",
}
"""What the fields of specs are, for people who write one."""

_Spec = TypeVar("_Spec", bound=Spec)


def commented_spec(kind: type[Spec]) -> str:
    """A spec with paths to fill in, and every setting as a comment with its default and its meaning."""
    model = _spec_model(kind)
    chosen: dict[str, Any] = {
        name: f"PATH/TO/{name.upper()}" for name, field in model.model_fields.items() if field.is_required()
    }
    return "\n".join(commented_lines(model.model_construct(**chosen), chosen, in_loop=False)) + "\n"


def spec_from_values(kind: type[_Spec], values: Any, source: str, folder: Path) -> _Spec:
    """The spec that a person wrote; relative paths begin at ``folder``.

    Raises UserError naming ``source`` and the first wrong key or value.
    """
    parsed = _spec_model(kind).parse(values, source)
    _refuse_what_loops_use(getattr(parsed, "settings", None), source)
    found = ((part.name, getattr(parsed, part.name)) for part in fields(kind))
    arguments: dict[str, Any] = {name: folder / value if isinstance(value, Path) else value for name, value in found}
    if function := arguments.get("reward_function"):
        arguments["reward_function"] = from_folder(function, folder)
    if reward := arguments.get("reward"):
        arguments["reward"] = reward_from_folder(reward, folder)
    return kind(**arguments)


def _spec_model(kind: type[Spec]) -> type[Settings]:
    """Settings with the fields and defaults of ``kind``, which report each wrong key or value in a sentence."""
    hints = get_type_hints(kind, include_extras=True)
    made: dict[str, Any] = {}
    for part in fields(kind):
        default = part.default if part.default_factory is MISSING else part.default_factory()
        value = Field(... if default is MISSING else default, description=MEANINGS.get(part.name))
        made[part.name] = (hints[part.name], value)
    return create_model(kind.__name__, __base__=Settings, **made)


def _refuse_what_loops_use(settings: Settings | None, source: str) -> None:
    """Raise UserError for a given setting that only stages of a loop read, and that would be ignored here."""
    if settings is None:
        return
    for name in settings.model_fields_set:
        if is_of_loops(type(settings).model_fields[name]):
            raise UserError(f"{source}: `settings.{name}` is for loops, and a spec says it itself; leave it out.")
