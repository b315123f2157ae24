"""deploy/compose/compose.yaml as Docker Compose reads it: anchors merged, variables put in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE = DEPLOY / "compose"
_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)(?::([-?])([^}]*))?\}")
"""`${NAME}`, `${NAME:-default}` and `${NAME:?error}`."""


def raw_compose(name: str = "compose.yaml") -> dict[str, Any]:
    """The file without variables put in."""
    return yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services with ``variables`` put in; KeyError where one that must be given is missing or empty."""
    return {name: _filled(service, variables) for name, service in raw_compose()["services"].items()}


def variables_in(value: Any) -> dict[str, str]:
    """The variables that a part of the file asks for: `?` where one must be given, `-` where it has a default."""
    return {match[1]: match[2] or "" for match in _VARIABLE.finditer(yaml.safe_dump(value, width=10_000))}


def example_variables() -> dict[str, str]:
    """What `.env.example` sets."""
    lines = (COMPOSE / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    return _VARIABLE.sub(lambda match: _value(match, variables), value) if isinstance(value, str) else value


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    given = variables.get(match[1], "")
    if match[2] == "?" and not given:
        raise KeyError(match[1])
    return given or (match[3] if match[2] == "-" else "")
