"""The GPU-backed resource: what training and sampling run on."""

from dataclasses import replace
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.loop.folder import LoopFolder


def _described(name: str) -> Any:
    field = ComputeSettings.model_fields[name]
    default = field.default.model_dump() if isinstance(field.default, Settings) else field.default
    return Field(default, description=field.description)


class Compute(dg.ConfigurableResource):
    """Where assets train and sample: in the run's own process, or in one child or several under `torchrun`,
    or on Ray.

    Made from the loop's ``compute`` settings; replace it in definitions of your own to run the same loop elsewhere.
    """

    threads: int = _described("threads")
    device: Literal["auto", "cpu", "cuda"] = _described("device")
    precision: Literal["fp32", "bf16"] = _described("precision")
    trained_weights: Literal["fp32", "bf16"] = _described("trained_weights")
    optimizer: Literal["adamw", "adamw_8bit"] = _described("optimizer")
    gradient_checkpointing: bool = _described("gradient_checkpointing")
    logits_mib: int = _described("logits_mib")
    launch: Literal["in_process", "process", "ray"] = _described("launch")
    processes: int = _described("processes")
    ray: dict[str, Any] = _described("ray")
    sharding: Literal["none", "full", "auto"] = _described("sharding")
    checkpoint_seconds: float = _described("checkpoint_seconds")
    grace_seconds: float = _described("grace_seconds")
    retries: int = _described("retries")
    trackers: list[str] = _described("trackers")
    pass_variables: list[str] = _described("pass_variables")
    rollout_backend: Literal["native", "transformers", "vllm", "vllm_server"] = _described("rollout_backend")
    rollout_server: str = _described("rollout_server")

    @classmethod
    def of(cls, settings: ComputeSettings) -> "Compute":
        return cls(**settings.model_dump())

    def on(self, loop: LoopFolder) -> LoopFolder:
        """A copy of the loop whose stages run on this compute."""
        settings = ComputeSettings.parse(self.model_dump(), "the resource `compute`")
        return replace(loop, config=loop.config.changed(compute=settings))
