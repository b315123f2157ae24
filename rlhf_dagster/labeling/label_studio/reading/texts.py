"""Tasks whose texts are not those that were sent: every member of the organization can write other ones into them.

What is answered to such a task is about other texts than its comparison's, so that it is not recorded while they are
there. What was read before is about the right ones, and counts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rlhf_dagster.labeling.label_studio.records.seen import SentTask
from rlhf_dagster.records.ids import ID_LENGTH

OTHER_TEXTS = "its texts are not those that were sent"
"""The reason why a task is set aside."""

_Tasks = Mapping[int, Mapping[str, Any]]


def data_digest(data: Any) -> str:
    """Tells the data of one task from those of another."""
    # Escaped, since a text that somebody writes there may be none in UTF-8.
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:ID_LENGTH]


def with_other_texts(tasks: _Tasks, known: Mapping[int, SentTask]) -> dict[int, str]:
    """The tasks on record that have other data now than then, with the reason."""
    return {
        key: OTHER_TEXTS for key, task in tasks.items() if _was(known.get(key)) not in ("", data_digest(task["data"]))
    }


def first_digests(tasks: _Tasks, known: Mapping[int, SentTask]) -> dict[int, str]:
    """Digests of tasks for which none is on record, as in loops of earlier releases."""
    return {key: data_digest(task["data"]) for key, task in tasks.items() if not _was(known.get(key))}


def made_by_others(tasks: _Tasks, known: Mapping[int, SentTask]) -> set[int]:
    """New tasks that call themselves after a comparison which has a task already, and show other texts."""
    right = {task.comparison_id: task.data_digest for task in reversed(list(known.values())) if task.data_digest}
    others = set()
    for key, task in sorted(tasks.items()):
        digest = data_digest(task["data"])
        if key not in known and right.setdefault(task["data"]["comparison"], digest) != digest:
            others.add(key)
    return others


def read_again(aside: Mapping[int, str]) -> dict[int, str]:
    """Of the tasks that are set aside those that the server could not show: each is asked for by itself."""
    return {task: reason for task, reason in aside.items() if reason != OTHER_TEXTS}


def still_aside(aside: Mapping[int, str], there: Iterable[int], read: Iterable[int]) -> dict[int, str]:
    """Of the tasks that are set aside those whose texts were others, and which were not read since."""
    left = set(there) - set(read)
    return {task: reason for task, reason in aside.items() if reason == OTHER_TEXTS and task in left}


def _was(task: SentTask | None) -> str:
    return task.data_digest if task else ""
