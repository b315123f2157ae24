"""Annotators that are no person: machines that label beside people, and files that do not say who labelled."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MACHINE_MARK = "machine:"
"""Begins the name of every annotator that is a machine; no person's pseudonym does."""
SOURCE_MARK = "source:"
"""Begins what stands for the annotators of a file that names none: one source, of one person or of a thousand."""


def machine_name(name: str) -> str:
    return f"{MACHINE_MARK}{name}"


def is_machine(annotator: str) -> bool:
    return annotator.startswith(MACHINE_MARK)


def source_name(name: str) -> str:
    return f"{SOURCE_MARK}{name}"


def is_source(annotator: str) -> bool:
    return annotator.startswith(SOURCE_MARK)


def is_person(annotator: str) -> bool:
    return not is_machine(annotator) and not is_source(annotator)


def by_machine(annotators: "pd.Series") -> "pd.Series":
    """For each annotator, whether it is a machine."""
    return annotators.astype(str).str.startswith(MACHINE_MARK)


def by_source(annotators: "pd.Series") -> "pd.Series":
    """For each annotator, whether it is a source without annotators."""
    return annotators.astype(str).str.startswith(SOURCE_MARK)


def by_people(labels: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a table with the column ``annotator`` that are by people who are told apart."""
    return labels[~by_machine(labels["annotator"]) & ~by_source(labels["annotator"])]


def without_machines(labels: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a table with the column ``annotator`` that are by people, whether they are told apart or not."""
    return labels[~by_machine(labels["annotator"])]
