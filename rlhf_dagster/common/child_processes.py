"""What processes that we start are given: Python without the working folder, and an environment without secrets.

Python looks for modules in the working folder first where it is started with `-m`. A file that is called `queue.py` or
`yaml.py` there, whoever put it there, would be imported in place of the real one.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable by which a Python, and every Python that it starts, leaves the working folder out (`-P`)."""
MODULE_PLACES = "PYTHONPATH"
_SET_DEATH_SIGNAL = 1
_SECRET_NAME = re.compile(
    r"PASSW|PASSPHRASE|PASSFILE|SECRET|CREDENTIAL|PRIVATE|APIKEY|TOKEN(?!IZER)|WEBHOOK"
    r"|(^|_)(KEY|KEYS|AUTH|PASS|PAT|DSN|COOKIE)(_|$)|_PWD$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"://[^/?#\s]*:[^/?#\s]*@"  # an address with a password
    r"|-----BEGIN "
    r"|^(sk-|rk-|pk-|hf_|gh[oprsu]_|github_pat_|glpat-|xox[abeoprs]-|A[KS]IA[0-9A-Z]{12}|eyJ[\w-]+\.)"
)
"""How keys of well-known services begin, besides what any service may call a secret."""


def python_command(*arguments: str) -> list[str]:
    """This Python with ``arguments``, without the working folder among the places of its modules."""
    return [sys.executable, "-P", *arguments]


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable looks like one that holds a secret, by its name or its value."""
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))


def plain_environment(needed: Iterable[str] = (), prefixes: Iterable[str] = ()) -> dict[str, str]:
    """This process's environment for one that needs no secrets, but for variables ``needed`` or with ``prefixes``."""
    kept, beginnings = set(needed), tuple(prefixes)
    plain = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(beginnings) or not is_secret(name, value)
    }
    if MODULE_PLACES in plain:
        plain[MODULE_PLACES] = os.pathsep.join(_places(plain))
    return plain | {SAFE_PATH: "1"}


def dagster_environment(given: Mapping[str, str]) -> dict[str, str]:
    """``given`` for a service of Dagster, and for the runs that it starts, which need what the loop needs.

    Dagster takes the first place of modules for the working folder and leaves it out itself: it gets one that is empty.
    """
    return {**given, SAFE_PATH: "1", MODULE_PLACES: os.pathsep.join([os.devnull, *_places(given)])}


def end_with_parent() -> None:
    """Have this process, a child that is just starting, asked to end when its parent does, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def _places(environment: Mapping[str, str]) -> list[str]:
    """The places of modules that an environment names; an empty one, as after a last colon, is the working folder."""
    return [place for place in environment.get(MODULE_PLACES, "").split(os.pathsep) if place]
