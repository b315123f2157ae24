"""Resources of each loop under keys of its own: functions ask for `loop`, and are given the one of their loop."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from rlhf_dagster.records.loop_names import LoopNames

RESOURCES = ("loop", "tables", "json", "models", "compute", "notifier")
"""The resources of a loop, by the names that a loop alone has for them."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_own_resources(function: _Function, names: LoopNames) -> _Function:
    """The function as Dagster is to see it: where it asks for a resource, for the one under the loop's key."""
    signature = inspect.signature(function)
    asked = {names.own(name): name for name in signature.parameters if name in RESOURCES}
    if all(key == name for key, name in asked.items()):
        return function

    def given(keywords: dict[str, Any]) -> dict[str, Any]:
        return {asked.get(key, key): value for key, value in keywords.items()}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **given(kwargs))

    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        yield from function(*args, **given(kwargs))

    # Dagster looks at a function to see how it gives its results.
    as_seen = generate if inspect.isgeneratorfunction(function) else call
    keys = {name: key for key, name in asked.items()}
    parameters = [one.replace(name=keys.get(one.name, one.name)) for one in signature.parameters.values()]
    as_seen.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return as_seen  # type: ignore[return-value]
