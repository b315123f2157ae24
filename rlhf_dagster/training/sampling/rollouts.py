"""The rollout backend that the compute settings name."""

from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.sampling.backend import RolloutBackend


@contextmanager
def rollout_backend(compute: ComputeSettings | None, rows: int) -> Iterator[RolloutBackend]:
    """The backend of ``compute``, which samples at most ``rows`` responses at once.

    Raises:
        UserError: it is not installed, or cannot run here.
    """
    backend = _open(compute or ComputeSettings(), rows)
    try:
        yield backend
    finally:
        backend.close()


def _open(compute: ComputeSettings, rows: int) -> RolloutBackend:
    # Imported here: each backend imports a program that the others do without.
    if compute.rollout_backend == "vllm":
        from rlhf_dagster.training.sampling.vllm_backend import VllmRollouts

        return VllmRollouts(compute, rows)
    if compute.rollout_backend == "vllm_server":
        from rlhf_dagster.training.sampling.engines.outside_rollouts import OutsideRollouts
        from rlhf_dagster.training.sampling.engines.vllm_server import VllmServer

        return OutsideRollouts(VllmServer(compute.rollout_server), rows)
    if compute.rollout_backend == "transformers":
        from rlhf_dagster.training.sampling.transformers_backend import TransformersRollouts

        return TransformersRollouts(compute, rows)
    from rlhf_dagster.training.sampling.native import NativeRollouts

    return NativeRollouts(compute, rows)
