"""The config as text for people: a commented YAML file, and the reference page."""

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.config.training import is_of_loops

HEAD = """\
# The config of one loop. What stands behind `# ` is the default; take the mark away to change it.
# A wrong key or value is refused with its name when the loop is opened.
"""
HEAD_OF_CHOSEN = """\
# The config of one loop: what differs from the defaults. docs/config.md has every setting, and so has the file that
# `rlhf init FOLDER --all-settings` writes. A wrong key or value is refused with its name when the loop is opened.
"""
REASON_WIDTH = 100
_SECTIONS = {type(field.default) for field in LoopConfig.model_fields.values()}
"""The classes of the sections' settings."""
NO_REASONS: Mapping[str, Any] = {}


def commented_yaml(chosen: dict[str, Any], reasons: Mapping[str, Any] = NO_REASONS) -> str:
    """A config file with the chosen settings, and every other one as a comment with its default and its meaning.

    ``reasons`` say why a setting is chosen, by section and name as ``chosen`` itself.
    """
    return HEAD + "\n".join(commented_lines(LoopConfig(**chosen), chosen, reasons=reasons)) + "\n"


def chosen_yaml(chosen: dict[str, Any], reasons: Mapping[str, Any] = NO_REASONS) -> str:
    """A config file with the chosen settings alone, each below its meaning and its reason."""
    return HEAD_OF_CHOSEN + "\n".join(_chosen_lines(LoopConfig(**chosen), chosen, reasons)) + "\n"


def _chosen_lines(model: BaseModel, chosen: Mapping[str, Any], reasons: Mapping[str, Any]) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        if name not in chosen:
            continue
        value, why = getattr(model, name), reasons.get(name, "")
        yield from (f"# {line.strip()}" for line in (field.description or "").splitlines())
        yield from (f"# > {line}" for line in ([] if isinstance(why, Mapping) else textwrap.wrap(why, REASON_WIDTH)))
        if isinstance(value, BaseModel) and isinstance(chosen[name], Mapping):
            inner = why if isinstance(why, Mapping) else NO_REASONS
            yield from [f"{name}:", *(f"  {line}" for line in _chosen_lines(value, chosen[name], inner))]
        else:
            yield f"{name}: {_yaml(_plain_value(value))}"


def commented_lines(
    model: BaseModel,
    chosen: dict[str, Any],
    everything: bool = False,
    in_loop: bool = True,
    reasons: Mapping[str, Any] = NO_REASONS,
) -> Iterator[str]:
    """Lines of YAML: what is chosen as it is, every other setting as a comment, each below its meaning and its reason.

    With ``everything`` nothing is a comment; outside a loop (``in_loop``) its own settings are left out. Of a section
    that varies another one, settings that are neither its own nor chosen are left out: they are as in the other.
    """
    own = _own_fields(type(model))
    for name, field in type(model).model_fields.items():
        if (is_of_loops(field) and not in_loop) or (name not in own and name not in chosen):
            continue
        yield from (f"# {line.strip()}" for line in (field.description or "").splitlines())
        why = reasons.get(name, "")
        yield from (f"# > {line}" for line in ([] if isinstance(why, Mapping) else textwrap.wrap(why, REASON_WIDTH)))
        inner = why if isinstance(why, Mapping) else NO_REASONS
        block = _block(name, getattr(model, name), chosen.get(name), everything, in_loop, inner)
        yield from block if everything or name in chosen else (f"# {line}" for line in block)


def reference_page() -> str:
    """Markdown tables of every setting, one for each section."""
    lines = [
        "# Settings",
        "",
        "Every setting of `loop.yaml` (and of the component's `attributes`), with its default.",
        "",
    ]
    lines += _table("The loop", LoopConfig())
    for name, field in LoopConfig.model_fields.items():
        if isinstance(field.default, BaseModel):
            lines += _table(f"`{name}`", field.default)
            for inner, inner_field in _own_fields(type(field.default)).items():
                if isinstance(inner_field.default, BaseModel):
                    lines += _table(f"`{name}.{inner}`", inner_field.default)
    for optional in _optional_models(LoopConfig):
        lines += _table(f"{optional.__name__}, where it is given", optional.model_construct())
        for inner, inner_field in optional.model_fields.items():
            if isinstance(inner_field.default, BaseModel):
                lines += _table(f"`{inner}` of {optional.__name__}", inner_field.default)
    return "\n".join(lines)


def presets_table() -> str:
    """A Markdown table of every setting in which presets differ, a column for each preset."""
    shown = {preset: _of_stages(LoopConfig(preset=preset)) for preset in PRESETS}
    paths = dict.fromkeys(path for values in shown.values() for path in values)
    rows = [(path, [values.get(path, "–") for values in shown.values()]) for path in paths]
    lines = [f"| setting | {' | '.join(f'`{preset}`' for preset in PRESETS)} |", "|---" * (len(PRESETS) + 1) + "|"]
    lines += [f"| `{path}` | {' | '.join(values)} |" for path, values in rows if len(set(values)) > 1]
    return "\n".join(lines)


def _of_stages(config: LoopConfig) -> dict[str, str]:
    """The settings of the sections that presets have, as `section.name`, and their values as YAML."""
    sections = (name for name in LoopConfig.model_fields if name in PRESETS["small"])
    return dict(pair for section in sections for pair in _flat(section, getattr(config, section)))


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, BaseModel):
        yield path, _yaml(value)
        return
    for name, inner in value:
        # Where a setting may hold settings, its null says no more than that they are missing.
        if inner is not None or name != "lora":
            yield from _flat(f"{path}.{name}", inner)


def _optional_models(model: type[BaseModel]) -> dict[type[BaseModel], None]:
    """Models that a setting may hold in place of its default, each once, in the order of the settings."""
    found: dict[type[BaseModel], None] = {}
    for field in model.model_fields.values():
        if isinstance(field.default, BaseModel):
            found |= _optional_models(type(field.default))
        parts = [_plain_type(part) for part in _parts(field.annotation)]
        others = [part for part in parts if inspect.isclass(part) and part is not type(field.default)]
        found |= dict.fromkeys(part for part in others if issubclass(part, BaseModel))
    return found


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; empty for any other type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _plain_type(annotation: Any) -> Any:
    """A type without what is annotated to it."""
    return _plain_type(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _block(name: str, value: Any, given: Any, everything: bool, in_loop: bool, reasons: Mapping[str, Any]) -> list[str]:
    if isinstance(value, BaseModel):
        lines = commented_lines(value, given or {}, everything or given is None, in_loop, reasons)
        return [f"{name}:", *(f"  {line}" for line in lines)]
    return [f"{name}: {_yaml(_plain_value(value))}"]


def _plain_value(value: Any) -> Any:
    """A value that YAML can hold."""
    if isinstance(value, list):
        return [_plain_value(one) for one in value]
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _table(title: str, model: BaseModel) -> list[str]:
    rows = [
        f"| `{name}` | {_type(field.annotation)} | {_default(model, name)} | {_one_line(field.description)} |"
        for name, field in _own_fields(type(model)).items()
        if not isinstance(getattr(model, name, None), BaseModel)
    ]
    about = inspect.getdoc(type(model)) if type(model).__doc__ else None
    head = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    return [f"## {title}", "", *([about, ""] if about else []), *head, *rows, ""]


def _own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings of a section; of one that varies another's, those alone in which they differ."""
    others = [base for base in model.__mro__[1:] if base in _SECTIONS]
    inherited = others[0].model_fields if others else {}
    return {name: field for name, field in model.model_fields.items() if not _is_same(field, inherited.get(name))}


def _is_same(one: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and (one.default, one.description) == (other.default, other.description)


def _default(model: BaseModel, name: str) -> str:
    return "required" if type(model).model_fields[name].is_required() else f"`{_yaml(getattr(model, name))}`"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(annotation: Any) -> str:
    """A type as a person would say it: the choices of a literal, the parts of a union."""
    annotation = _plain_type(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if parts := _parts(annotation):
        return " or ".join(map(_type, parts))
    if annotation is NoneType:
        return "null"
    if get_origin(annotation) is list:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"mapping of names to {_type(get_args(annotation)[1])}"
    return str(annotation) if get_origin(annotation) else annotation.__name__


if __name__ == "__main__":
    print(reference_page())  # noqa: T201
