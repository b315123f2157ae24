"""The base of every settings class, and the sentence a wrong setting gets."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticKnownError

from rlhf_dagster.common.files import reading
from rlhf_dagster.config.yaml_files import parse_file
from rlhf_dagster.errors import UserError

LATER: JsonDict = {"later": True}
"""Marks a setting that settings of version 0.1 lack. At its default it is no part of their text and their record, which
the identities of trainings and models are made of: a training that version 0.1 began can go on."""
CONSENT: JsonDict = {"consent": True}
"""Marks a setting with which people let a loop go on, and which changes nothing of what a stage makes: it is no part of
that text and that record, so that a model stays the same when it is set. A training by itself does not read it."""
_REWORDED = {"path_type": "give a file or a folder"}
"""By Pydantic's name of an error, what is said in place of its own words, which name classes."""


class Settings(BaseModel):
    """Typed, frozen settings: an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic reads true as 1. Its strict mode would refuse that, but also 1e-3, which is a string in YAML.
        options = _options(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and bool not in options and options & {int, float}:
            raise PydanticKnownError("float_type" if float in options else "int_type")
        return value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from self._told()

    def recorded(self) -> dict[str, Any]:
        """The settings by name, for a record of what was made with them."""
        return {name: _plain(value) for name, value in self._told()}

    def _told(self) -> Iterator[tuple[str, Any]]:
        """Settings and their values, those that came later only where they are set."""
        for name, field in type(self).model_fields.items():
            value, mark = getattr(self, name), field.json_schema_extra
            if mark is not CONSENT and (mark is not LATER or value != field.default):
                yield name, value

    @classmethod
    def parse(cls, values: Any, source: str) -> Self:
        """Validate ``values``; raises :class:`UserError` naming ``source`` and the path of the first wrong setting."""
        if not isinstance(values, dict):
            raise UserError(f"{source}: expected a mapping of settings, found {type(values).__name__}.")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{source}: {explain(cls, error)}") from None

    def changed(self, **changes: Any) -> Self:
        """A validated copy with some settings replaced. What nobody has set stays unset."""
        return type(self).model_validate(self.model_dump(exclude_unset=True) | changes)


def overlaid(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The defaults with what is given in their place; of settings within settings only those that are given."""

    def value(name: str) -> Any:
        before, now = defaults.get(name), given[name]
        return overlaid(before, now) if isinstance(before, dict) and isinstance(now, dict) else now

    return defaults | {name: value(name) for name in given}


def _plain(value: Any) -> Any:
    """A setting's value without settings in it."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.recorded() if isinstance(value, Settings) else value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; `rlhf init DIR` writes one.")
    with reading(path):
        content = parse_file(path)
    return {} if content is None else content


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """One sentence about the first problem of a validation error, with a suggestion for a mistyped key."""
    # A mistyped key comes after the setting that it leaves missing, and explains it.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    path, known = _place(model, first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}."
        return f"`{path}` is not a setting; {hint}"
    if first["type"] == "missing":
        return f"`{path}` is missing; please set it."
    message = _REWORDED.get(first["type"]) or first["msg"].removeprefix("Value error, ").rstrip(".")
    shown = "" if isinstance(first["input"], dict) else f" (found {first['input']!r})"
    return f"{f'`{path}`: ' if path else ''}{message[:1].lower()}{message[1:]}{shown}."


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """The setting that a validation error is about, and the settings that are known where it stands.

    Where a setting has one form or another by its `kind`, Pydantic names the kind in between, as no part of the path.
    """
    models, path, known = [model], [], list[str]()
    for part in loc:
        kinds = [one for one in models if part in _kinds_of(one)]
        if len(models) > 1 and kinds:
            models = kinds
            continue
        path.append(str(part))
        if isinstance(part, str):
            known = sorted(_fields_of(models))
            models = _models_in(_fields_of(models)[part]) if part in _fields_of(models) else []
    return ".".join(path), known


def _fields_of(models: list[type[BaseModel]]) -> dict[str, Any]:
    """The fields that any of ``models`` has, and their types."""
    return {name: field.annotation for one in models for name, field in one.model_fields.items()}


def _kinds_of(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _options(annotation: Any) -> set[Any]:
    """The types that a setting may have: the members of a union, or the one type."""
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
