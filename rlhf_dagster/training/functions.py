"""Functions that a spec names, as `module:function` or `file.py:function`. Importing this imports no torch."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_dagster.common.functions import FILE, load_object
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import content_of

FORM = "give it as module:function or file.py:function"


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function that ``name`` refers to; raises UserError, which begins with ``what``, where there is none."""
    found: Callable[..., Any] = load_object(name, what, FORM)
    if not callable(found):
        raise UserError(f"{what} {name!r} is not a function; {FORM}.")
    return found


def source_of(name: str) -> str:
    """A hash of the file that holds the function ``name``, so that a changed function is noticed."""
    place, _, _ = name.rpartition(":")
    if place.endswith(FILE):
        return content_of(Path(place))
    try:
        spec = find_spec(place)
    except Exception:  # load_function reports this error
        spec = None
    return content_of(Path(spec.origin)) if spec is not None and spec.origin else "absent"
