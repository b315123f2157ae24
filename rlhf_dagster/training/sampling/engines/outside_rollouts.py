"""Rollouts by an engine in another process, which samples while this one trains."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.runtime.distributed import on_main
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.engines.engine import EngineFacts, RolloutEngine
from rlhf_dagster.training.sampling.engines.transfer import WeightTransfer, weight_transfer
from rlhf_dagster.training.sampling.foreign_responses import as_responses, rows_of, seeds
from rlhf_dagster.training.texts.tokens import PaddedBatch

PROCESSED = "processed_logprobs"
"""Log-probabilities at the temperature, without what cannot be drawn: those of what is drawn from."""
MOST_THREADS = 512
NEVER = -100.0
"""The largest bias against a token that vLLM takes, in nats; what it leaves is e^-100 of the token's probability."""


class OutsideRollouts:
    """Sends ``engine`` the weights anew at every call, since PPO changes them between two, and asks it for each row.

    Of several ranks the main one sends, and each asks for its own rows.
    """

    own_arithmetic = False

    def __init__(self, engine: RolloutEngine, rows: int) -> None:
        self.engine, self._threads = engine, ThreadPoolExecutor(min(max(rows, 1), MOST_THREADS), "rollouts")
        self._facts: EngineFacts | None = None
        self._transfer: WeightTransfer | None = None

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> Responses:
        return self.begin(model, prompts, uniforms, decoding)()

    def begin(
        self, model: PreTrainedModel, prompts: PaddedBatch, uniforms: Tensor | None, decoding: Decoding
    ) -> Callable[[], Responses]:
        self._require_room(prompts.input_ids.shape[1] + decoding.max_tokens)
        on_main(partial(self._send, model))
        rows = rows_of(prompts)
        asked = [
            self._threads.submit(self.engine.draw, *each)
            for each in zip(rows, _parameters(uniforms, len(rows), decoding, model.config), strict=True)
        ]

        def responses() -> Responses:
            drawn = [each.result() for each in asked]
            tokens, log_probs = [each.tokens for each in drawn], [each.log_probs for each in drawn]
            return as_responses(tokens, log_probs, decoding, prompts.input_ids.device)

        return responses

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._transfer is not None:
            self.engine.shutdown_weight_transfer_engine()
        self.engine.close()

    def _require_room(self, tokens: int) -> None:
        facts = self._facts = self._facts or self.engine.facts()
        if facts.log_probs != PROCESSED:
            raise UserError(
                f"The engine of `compute.rollout_server` gives {facts.log_probs}, which are not those of what it draws "
                f"from; start it with --logprobs-mode {PROCESSED}."
            )
        if tokens > facts.longest:
            raise UserError(
                f"Prompt and response have up to {tokens} tokens, and the engine of `compute.rollout_server` room for "
                f"{facts.longest}; start it with --max-model-len {tokens}."
            )

    def _send(self, model: PreTrainedModel) -> None:
        assert self._facts is not None  # noqa: S101  # asked for before
        self._transfer = self._transfer or weight_transfer(self.engine, self._facts)
        self.engine.pause()
        self._transfer.send(model)
        self.engine.resume()


def _parameters(
    uniforms: Tensor | None, rows: int, decoding: Decoding, config: PreTrainedConfig
) -> list[dict[str, Any]]:
    """vLLM's sampling parameters. Each row has its own seed, so that it draws the same whatever is beside it; and
    nothing is left to what a checkpoint may bring, such as a top-k."""
    never = decoding.never_drawn(config.get_text_config().vocab_size)
    common = {
        "temperature": 0.0 if uniforms is None else decoding.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": decoding.max_tokens,
        "ignore_eos": True,
        "stop_token_ids": [] if decoding.fixed_length else list(decoding.end_ids),
        "logit_bias": {str(token): NEVER for token in never},
    }
    row_seeds = [0] * rows if uniforms is None else seeds(uniforms)
    return [common | {"seed": seed} for seed in row_seeds]
