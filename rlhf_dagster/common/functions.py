"""What a setting names in somebody's own code, as `module:name` or `file.py:name`."""

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf_dagster.errors import UserError, first_line

FILE = ".py"


def from_folder(name: str, folder: Path) -> str:
    """``name`` with a relative file path resolved against ``folder``; the name of a module stays as it is."""
    place, _, function = name.rpartition(":")
    return f"{folder / place}:{function}" if place.endswith(FILE) else name


def load_object(name: str, what: str, form: str) -> Any:
    """What ``name`` refers to.

    Raises:
        UserError: it cannot be imported; the sentence begins with ``what``, and ``form`` says how to name it.
    """
    place, _, member = name.rpartition(":")
    try:
        return getattr(_module(place), member)
    except Exception as error:  # somebody else's code
        raise UserError(f"{what} {name!r} cannot be imported ({_reason(error)}); {form}.") from None


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
