"""Which kind of a task's simulated annotators labels."""

from collections.abc import Sequence

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import HasAnnotatorKinds, SimulatedAnnotator, Task


def require_kind(task: Task, kind: str) -> None:
    """Raise UserError where ``task`` has no annotators of this kind; the empty kind is everybody's."""
    kinds = task.annotator_kinds if isinstance(task, HasAnnotatorKinds) else ()
    if not kind or kind in kinds:
        return
    choose = f"choose one of: {', '.join(kinds)}" if kinds else "it has one kind, so leave the setting out"
    raise UserError(f"data.annotator_kind: the task `{task.name}` has no annotators of the kind `{kind}`; {choose}.")


def annotators_of(task: Task, kind: str, seed: int) -> Sequence[SimulatedAnnotator]:
    """The annotators of a kind; the empty one is the task's first. Raises UserError where there is no such kind."""
    require_kind(task, kind)
    if kind and isinstance(task, HasAnnotatorKinds):
        return task.annotators_of_kind(kind, seed)
    return task.annotators(seed)
