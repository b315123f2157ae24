"""The launchers by the names of the setting `compute.launch`."""

from collections.abc import Callable

from rlhf_dagster.compute.launchers.base import Launcher
from rlhf_dagster.compute.launchers.child_process import CHILD_PROCESS
from rlhf_dagster.compute.launchers.in_process import IN_PROCESS


def _on_ray() -> Launcher:
    from rlhf_dagster.compute.launchers.on_ray import ON_RAY

    return ON_RAY


LAUNCHERS: dict[str, Callable[[], Launcher]] = {
    "in_process": lambda: IN_PROCESS,
    "process": lambda: CHILD_PROCESS,
    "ray": _on_ray,
}
