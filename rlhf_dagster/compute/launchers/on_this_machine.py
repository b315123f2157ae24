"""Trainings of this machine: the work folder made empty, and the memory asked for before anything starts."""

from rlhf_dagster.compute.work import Work
from rlhf_dagster.training.specs import Spec


def prepare_here(spec: Spec, work: Work) -> Spec:
    """Empty the work folder, but for the state, and give the spec with what `auto` means here.

    Raises UserError where it does not fit this machine.
    """
    from rlhf_dagster.compute.memory import require_memory, settled

    work.prepare()
    spec = settled(spec)
    require_memory(spec)
    return spec
