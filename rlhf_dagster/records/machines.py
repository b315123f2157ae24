"""Annotators that are machines: language models whose labels stand beside people's."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MACHINE_MARK = "machine:"
"""Begins the name of every annotator that is a machine; no person's pseudonym does."""


def machine_name(name: str) -> str:
    return f"{MACHINE_MARK}{name}"


def is_machine(annotator: str) -> bool:
    return annotator.startswith(MACHINE_MARK)


def by_machine(annotators: "pd.Series") -> "pd.Series":
    """For each annotator, whether it is a machine."""
    return annotators.astype(str).str.startswith(MACHINE_MARK)


def by_people(labels: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a table with the column ``annotator`` that are by people."""
    return labels[~by_machine(labels["annotator"])]
