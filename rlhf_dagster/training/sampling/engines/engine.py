"""What an engine in another process offers, whichever way it is reached: a server over HTTP, or an actor of Ray."""

from dataclasses import dataclass
from typing import Any, Protocol

from rlhf_dagster.training.texts.tokens import TokenIds


@dataclass(frozen=True)
class EngineFacts:
    """What has to be known of an engine before it is used."""

    transfer: str
    """How it takes weights: the `backend` of its `WeightTransferConfig`; empty where it takes none."""
    workers: int
    """How many processes hold a copy or a part of its model."""
    log_probs: str
    """Its `logprobs_mode`."""
    longest: int
    """Tokens of prompt and response that it has room for."""


@dataclass(frozen=True)
class EngineResponse:
    """One response: its ids, and the log-probability of each under what they were drawn from."""

    tokens: TokenIds
    log_probs: list[float]


class RolloutEngine(Protocol):
    """A vLLM engine. The methods about weights are those of vLLM's `VLLMWeightSyncClient`, which its trainer-side
    engines drive. Every method blocks, is given plain values alone, and raises UserError where it cannot be done."""

    def facts(self) -> EngineFacts: ...

    def pause(self) -> None:
        """Finish the requests that are being answered, forget what was computed of prompts, and let new ones wait."""
        ...

    def resume(self) -> None: ...

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: dict[str, Any]) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...

    def shutdown_weight_transfer_engine(self) -> None: ...

    def draw(self, prompt: TokenIds, parameters: dict[str, Any]) -> EngineResponse:
        """A response to ``prompt``, by vLLM's names of sampling parameters. Several threads call it at once."""
        ...

    def close(self) -> None:
        """Let go of the connection; the engine goes on."""
        ...
