"""Functions that a spec names, as `module:function` or `file.py:function`, and rewards that do.

Importing this imports no torch.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_dagster.common.functions import FILE, from_folder, load_object
from rlhf_dagster.config.judging.reward import (
    ClassifierReward,
    EnsembleReward,
    FunctionReward,
    HttpReward,
    RewardSettings,
    RewardTerm,
    terms_of,
)
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


def variables_of(spec: Any) -> list[str]:
    """Environment variables that a spec's rewards are reached by: addresses and keys of judges."""
    reward = getattr(spec, "reward", None)
    services = [term.service for term in (terms_of(reward) if reward else ()) if isinstance(term, HttpReward)]
    return [name for service in services for name in (service.url_variable, service.key_variable)]


def reward_from_folder(reward: RewardSettings, folder: Path) -> RewardSettings:
    """``reward`` with relative paths resolved against ``folder``."""
    if isinstance(reward, EnsembleReward):
        return reward.model_copy(update={"parts": [_term_from_folder(term, folder) for term in reward.parts]})
    return _term_from_folder(reward, folder)


def _term_from_folder(term: RewardTerm, folder: Path) -> RewardTerm:
    if isinstance(term, FunctionReward):
        return term.model_copy(update={"function": from_folder(term.function, folder)})
    if isinstance(term, ClassifierReward):
        return term.model_copy(update={"folder": str(folder / term.folder)})
    return term


def decisive_reward(reward: RewardSettings) -> dict[str, dict[str, Any]]:
    """What of a reward decides its scores, by part: hashes of code and models in place of paths.

    How a judge's server is reached is no part of it, so that a budget can be raised in the middle of a training.
    """
    return {f"{number}_{term.kind}": _decisive_term(term) for number, term in enumerate(terms_of(reward), start=1)}


def _decisive_term(term: RewardTerm) -> dict[str, Any]:
    values = {name: value for name, value in term.recorded().items() if name != "service"}
    if isinstance(term, FunctionReward):
        values["function"] = f"{term.function.rpartition(':')[2]} {source_of(term.function)}"
    if isinstance(term, ClassifierReward):
        values["folder"] = content_of(Path(term.folder))
    return values
