"""The probes by name."""

from collections.abc import Callable
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.probes.annotator_folds import annotator_folds
from rlhf_dagster.replication.probes.best_of_n import best_of_n_gains
from rlhf_dagster.replication.probes.last_words import last_words
from rlhf_dagster.replication.probes.responses import zero_shot
from rlhf_dagster.replication.probes.reward_accuracy import accuracy_on_new_pairs

ProbeFunction = Callable[..., Any]
"""Takes the finished loop and the probe's options, and gives what JSON can hold."""
PROBES: dict[str, ProbeFunction] = {
    "zero_shot": zero_shot,
    "best_of_n": best_of_n_gains,
    "reward_accuracy": accuracy_on_new_pairs,
    "annotator_folds": annotator_folds,
    "last_words": last_words,
}


def find_probe(name: str) -> ProbeFunction:
    """The probe of that name; raises UserError with all names where there is none."""
    if name not in PROBES:
        raise UserError(f"There is no probe {name}; choose one of {', '.join(PROBES)}.")
    return PROBES[name]
