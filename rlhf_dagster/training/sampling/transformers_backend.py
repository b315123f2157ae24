"""Rollouts by transformers' continuous batching: a row that has ended makes room for the next prompt."""

import gc
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import ContinuousBatchingConfig

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.abilities import abilities_of
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.reading import as_in_sampling
from rlhf_dagster.training.runtime.seeding import random_state, restore_random_state
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.drawing import are_likeliest, are_right, trial
from rlhf_dagster.training.sampling.foreign_responses import as_responses, rows_of, seeds
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds

_PAGE = 32
"""Tokens in a block of the cache: each response wastes half a block."""
_PATIENCE = 1.0
"""Seconds between looks at whether the thread that samples still lives."""


class TransformersRollouts:
    """Continuous batching on the model itself, in a thread of its own; nothing is kept between two calls.

    It draws with PyTorch's own generator, for all rows of a step at once: the same rows together give the same
    responses, but a row sampled together with other rows gives another response.
    """

    own_arithmetic = False

    def __init__(self, compute: ComputeSettings, rows: int) -> None:
        self.rows = rows

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> Responses:
        self.require_right(model)
        return self._sample(model, prompts, uniforms, decoding)

    def close(self) -> None:
        """Nothing is kept."""

    def require_right(self, model: PreTrainedModel) -> None:
        """Raise UserError where what continuous batching samples from is not the model; tried once for each model."""
        known = abilities_of(model)
        if known.batching is None:
            known.batching = self._difference(model)
        if known.batching:
            raise UserError(known.batching)

    def _difference(self, model: PreTrainedModel) -> str:
        """Why responses of continuous batching are not the model's, in a sentence; empty where they are."""
        sampled, likeliest = trial(model)
        with as_in_sampling(model):
            rows, drawn = rows_of(sampled.prompts), [self._sample(model, *asked) for asked in (sampled, likeliest)]
            if are_right(model, rows, drawn[0]) and are_likeliest(model, rows, drawn[1]):
                return ""
        return (
            f"Transformers' continuous batching samples from another policy than {type(model).__name__} is, whose "
            "positions or attention it does not know; set `compute.rollout_backend: native`."
        )

    def _sample(
        self, model: PreTrainedModel, prompts: PaddedBatch, uniforms: Tensor | None, decoding: Decoding
    ) -> Responses:
        rows, before = rows_of(prompts), random_state()
        seed = 0 if uniforms is None else seeds(uniforms)[0]
        try:
            with _little_garbage(), _only_errors():
                outputs = _drawn(
                    model,
                    rows,
                    _generation(decoding, model.config.get_text_config().vocab_size, greedy=uniforms is None),
                    _batching(min(self.rows, len(rows)), prompts.input_ids.shape[1], decoding, seed),
                )
        except (ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
            raise UserError(
                f"Transformers' continuous batching cannot sample from {type(model).__name__} here "
                f"({first_line(error)}); set `compute.rollout_backend: native`."
            ) from None
        finally:
            restore_random_state(before)
        tokens, log_probs = [output.generated_tokens for output in outputs], [output.logprobs for output in outputs]
        return as_responses(tokens, log_probs, decoding, prompts.input_ids.device)


def _generation(decoding: Decoding, width: int, greedy: bool) -> GenerationConfig:
    """Without `min_new_tokens`, which continuous batching must not be given: end-of-text is suppressed instead."""
    return GenerationConfig(
        do_sample=not greedy,
        temperature=None if greedy else decoding.temperature,
        top_k=None if greedy else 0,
        top_p=None if greedy else 1.0,
        max_new_tokens=decoding.max_tokens,
        suppress_tokens=decoding.never_drawn(width) or None,
        eos_token_id=list(decoding.end_ids),
        pad_token_id=decoding.pad_id,
    )


def _batching(rows: int, prompt_tokens: int, decoding: Decoding, seed: int) -> ContinuousBatchingConfig:
    """A cache for ``rows`` whole sequences. Blocks are not shared: a prefix cached before an update would be stale."""
    return ContinuousBatchingConfig(
        page_size=_PAGE,
        num_blocks=rows * (math.ceil((prompt_tokens + decoding.max_tokens) / _PAGE) + 1),
        max_batch_tokens=rows + prompt_tokens,
        max_requests_per_batch=rows,
        max_blocks_per_request=0,
        allow_block_sharing=False,
        return_logprobs=True,
        seed=seed,
        # FlashAttention does not multiply float32, in which the weights are.
        auto_switch_to_flash=False,
        use_async_batching=False,
        use_cuda_graph=False,
    )


def _drawn(
    model: PreTrainedModel, prompts: list[TokenIds], generation: GenerationConfig, batching: ContinuousBatchingConfig
) -> list[Any]:
    """The outputs in the order of ``prompts``; raises RuntimeError where one failed."""
    manager = cast("Any", model).init_continuous_batching(generation, batching)
    # All requests wait before the first step, so that which rows share a step does not depend on the threads' timing.
    names = manager.add_requests(prompts, max_new_tokens=generation.max_new_tokens)
    outputs: dict[str, Any] = {}
    manager.start()
    try:
        while len(outputs) < len(names):
            output = manager.get_result(timeout=_PATIENCE)
            if output is not None and output.error is not None:
                raise RuntimeError(output.error)
            if output is not None and output.is_finished():
                outputs[output.request_id] = output
            elif output is None and not manager.is_running():
                raise RuntimeError("its thread ended before all responses did")
    finally:
        manager.stop(hard_stop=len(outputs) < len(names))
        manager.destroy()
    return [outputs[name] for name in names]


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Spare what is loaded from garbage collection: the manager, when it stops, collects twice, half a second each."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _only_errors() -> Iterator[None]:
    """Each call would warn that suppressing tokens has not been tried with continuous batching; here it has."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
