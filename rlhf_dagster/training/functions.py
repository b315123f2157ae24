"""Functions that a spec names, as `module:function` or `file.py:function`. Importing this imports no torch."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.lineage.model_folders import content_of

FILE = ".py"
FORM = "give it as module:function or file.py:function"


def from_folder(name: str, folder: Path) -> str:
    """``name`` with a relative file path resolved against ``folder``; the name of a module stays as it is."""
    place, _, function = name.rpartition(":")
    return f"{folder / place}:{function}" if place.endswith(FILE) else name


def load_function(name: str, what: str) -> Callable[..., Any]:
    """The function that ``name`` refers to; raises UserError, which begins with ``what``, where there is none."""
    place, _, function = name.rpartition(":")
    try:
        found = getattr(_module(place), function)
    except Exception as error:  # somebody else's code
        raise UserError(f"{what} {name!r} cannot be imported ({_reason(error)}); {FORM}.") from None
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


def _reason(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"


def _module(place: str) -> ModuleType:
    if not place.endswith(FILE):
        return import_module(place)
    spec = spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
