"""Loops that a Dagster project declares as components, for the commands that work on them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg

from rlhf_dagster.loop.folder import LoopFolder


def _undeclared() -> dg.Definitions:
    raise NotImplementedError


@dataclass(frozen=True)
class DeclaredLoop(LoopFolder):
    """A loop of a project: its runs are on the instance that is configured, and its definitions are the component's."""

    definitions: Callable[[], dg.Definitions] = field(default=_undeclared, compare=False)
    code_location: str = ""
    """The project's code location, by which the UI lists the runs."""
