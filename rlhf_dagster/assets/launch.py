"""Settings that can be changed for one run in the launchpad."""

from typing import Any, Literal, TypeVar, get_args, get_origin

import dagster as dg
from pydantic import Field, create_model

from rlhf_dagster.config.base import Settings, overlaid

Stage = TypeVar("Stage", bound=Settings)


def launch_config(settings: type[Settings]) -> type[dg.Config]:
    """A Dagster config with every setting of a stage, unset by default: what is set wins over the loop's config."""
    fields: dict[str, Any] = {
        name: (_launchable(field.annotation), Field(None, description=field.description))
        for name, field in settings.model_fields.items()
    }
    return create_model(f"{settings.__name__}ForThisRun", __base__=dg.Config, **fields)


def for_this_run(settings: Stage, launched: dg.Config) -> Stage:
    """The loop's settings with the ones set in the launchpad."""
    given = {name: value for name, value in launched.model_dump().items() if value is not None}
    return type(settings).parse(overlaid(settings.model_dump(), given), "run config")


def _launchable(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return str | None
    # Settings within settings, such as adapters, are checked with the rest of the stage's.
    options = get_args(annotation) or (annotation,)
    nested = any(isinstance(option, type) and issubclass(option, Settings) for option in options)
    return dict[str, Any] | None if nested else annotation | None
