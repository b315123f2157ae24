"""Sampling responses with a key-value cache, and scoring given responses under another policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.models.log_probs import Decoding, decoding_of
from rlhf_dagster.training.models.passes.logit_pieces import log_probs_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.runtime.device import precision
from rlhf_dagster.training.sampling.backend import Responses, RolloutBackend
from rlhf_dagster.training.sampling.importance import require_same_model
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.specs import OnStep, silent
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, decode_responses, encode_prompts, pad


@dataclass(frozen=True)
class Sample:
    """One response. ``token_ids`` include the end-of-text token where one was drawn, ``text`` does not.

    The text is what people see (:func:`~rlhf_dagster.training.texts.tokens.decode_responses`); its ids need not be the
    ids that were drawn.
    """

    text: str
    token_ids: list[int]
    log_probs: list[float]
    """Of each token under the sampling policy, in nats."""


def sample(
    policy: Path | Policy,
    prompts: Sequence[Prompt],
    sampling: SamplingSettings,
    seed: int,
    samples_per_prompt: int = 1,
    *,
    greedy: bool = False,
    compute: ComputeSettings | None = None,
    backend: RolloutBackend | None = None,
    cuts: Cuts | None = None,
    progress: OnStep = silent,
) -> list[Sample]:
    """Sample responses, all of the first prompt's first.

    Each sample has its own row of random numbers, drawn up front from ``seed``: the batch size changes the result only
    through rounding. ``greedy`` takes the likeliest token instead (temperature 0). ``backend`` is by default that of
    ``compute``; one of another program gets all prompts at once, and log-probs of its samples are computed here again.
    ``cuts`` counts what is lost of prompts, and the responses that do not end; ``progress`` is told of the responses.

    Raises:
        UserError: the checkpoint cannot be opened, prompt and response do not fit its context, or the backend does not
            sample from the policy.
    """
    if backend is None:
        with rollout_backend(compute, sampling.batch_size) as own:
            return sample(
                policy,
                prompts,
                sampling,
                seed,
                samples_per_prompt,
                greedy=greedy,
                compute=compute,
                backend=own,
                cuts=cuts,
                progress=progress,
            )
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    _require_fit(policy, sampling)
    decoding = decoding_of(policy.tokenizer, sampling)
    encoded = encode_prompts(policy.tokenizer, prompts, sampling.prompt_tokens, cuts)
    rows = [ids for ids in encoded for _ in range(samples_per_prompt)]
    generator = torch.Generator().manual_seed(seed)
    uniforms = None if greedy else draw_uniforms(len(rows), sampling.response_tokens, generator)
    at_once = sampling.batch_size if backend.own_arithmetic else max(len(rows), 1)
    samples = _drawn(policy, rows, uniforms, decoding, at_once, backend, compute, progress)
    if cuts is not None:
        count_unended(cuts, samples, sampling, decoding)
    if backend.own_arithmetic:
        return samples
    repeated = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    return _measured(policy, repeated, samples, sampling, compute, greedy)


def sample_part(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: SamplingSettings,
    seed: int,
    samples_per_prompt: int,
    rows: range,
    compute: ComputeSettings,
) -> list[Sample]:
    """The samples ``rows`` of those that :func:`sample` gives with the backend `native`.

    They are the same bytes where ``rows`` begin at a multiple of `sampling.batch_size`: batches are then the same.
    """
    _require_fit(policy, sampling)
    decoding, count = decoding_of(policy.tokenizer, sampling), len(prompts) * samples_per_prompt
    first = rows.start // samples_per_prompt
    asked = prompts[first : -(-rows.stop // samples_per_prompt)]
    encoded = encode_prompts(policy.tokenizer, asked, sampling.prompt_tokens)
    repeated = [ids for ids in encoded for _ in range(samples_per_prompt)]
    own = repeated[rows.start - first * samples_per_prompt :][: len(rows)]
    uniforms = draw_uniforms(count, sampling.response_tokens, torch.Generator().manual_seed(seed))
    with rollout_backend(compute, sampling.batch_size) as backend:
        return _drawn(
            policy, own, uniforms[rows.start : rows.stop], decoding, sampling.batch_size, backend, compute, silent
        )


def count_unended(cuts: Cuts, samples: Sequence[Sample], sampling: SamplingSettings, decoding: Decoding) -> None:
    """Count samples that do not end within `sampling.response_tokens`; where their length is fixed none has to."""
    if not sampling.fixed_length:
        cuts.unended += sum(drawn.token_ids[-1] not in decoding.end_ids for drawn in samples)


def _drawn(
    policy: Policy,
    rows: Sequence[TokenIds],
    uniforms: torch.Tensor | None,
    decoding: Decoding,
    at_once: int,
    backend: RolloutBackend,
    compute: ComputeSettings | None,
    progress: OnStep,
) -> list[Sample]:
    """A response to each of ``rows``, which are encoded prompts, decided by the row's ``uniforms``."""
    samples: list[Sample] = []
    with precision(compute):
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            batch = pad(rows[part], decoding.pad_id, "left").to(policy.device)
            noise = None if uniforms is None else uniforms[part].to(policy.device)
            samples += _as_samples(backend.generate(policy.model, batch, noise, decoding), rows[part], policy)
            progress(len(samples), len(rows))
    return samples


@torch.no_grad()
def response_log_probs(
    policy: Path | Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[TokenIds],
    sampling: SamplingSettings,
    compute: ComputeSettings | None = None,
) -> list[list[float]]:
    """Log-prob of each token of given responses under ``policy``, in nats, at the sampling temperature.

    Log-probs recorded while sampling minus these, summed over a response, estimate the sequence KL of two policies.

    Raises:
        UserError: the checkpoint cannot be opened, or a prompt with its response does not fit its context.
    """
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    decoding = decoding_of(policy.tokenizer, sampling)
    encoded = encode_prompts(policy.tokenizer, prompts, sampling.prompt_tokens)
    # The last token predicts nothing and is not read.
    read = [len(prompt) + len(response) - 1 for prompt, response in zip(encoded, responses, strict=True)]
    require_context(policy.model.config, max(read, default=0), "A prompt with its response")
    log_probs: list[list[float]] = []
    for start in range(0, len(encoded), sampling.batch_size):
        part = slice(start, start + sampling.batch_size)
        left = pad(encoded[part], decoding.pad_id, "left").to(policy.device)
        right = pad([list(ids) for ids in responses[part]], decoding.pad_id, "right").to(policy.device)
        ids = torch.cat([left.input_ids, right.input_ids], dim=1)
        mask = torch.cat([left.attention_mask, right.attention_mask], dim=1)
        with precision(compute):
            part_log_probs, _ = log_probs_of(policy.model, PaddedBatch(ids, mask), *right, decoding)
        lengths = right.attention_mask.sum(dim=1).tolist()
        log_probs += [row[:n] for row, n in zip(part_log_probs.tolist(), lengths, strict=True)]
    return log_probs


def _measured(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: Sequence[Sample],
    sampling: SamplingSettings,
    compute: ComputeSettings | None,
    greedy: bool,
) -> list[Sample]:
    """Samples of another program with log-probs computed here, as those of a reference policy will be."""
    log_probs = response_log_probs(policy, prompts, [drawn.token_ids for drawn in samples], sampling, compute)
    if not greedy:  # greedy tokens are not drawn: there is no probability to compare
        ours, theirs = (
            torch.tensor([number for row in rows for number in row])
            for rows in (log_probs, [drawn.log_probs for drawn in samples])
        )
        require_same_model(ours, theirs, torch.ones_like(ours))
    return [replace(drawn, log_probs=row) for drawn, row in zip(samples, log_probs, strict=True)]


def _as_samples(responses: Responses, prompts: Sequence[TokenIds], policy: Policy) -> list[Sample]:
    lengths = responses.mask.sum(dim=1).tolist()
    ids = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
    texts = decode_responses(policy.tokenizer, prompts, ids)
    log_probs = [row[:n] for row, n in zip(responses.log_probs.tolist(), lengths, strict=True)]
    return [Sample(*parts) for parts in zip(texts, ids, log_probs, strict=True)]


def _require_fit(policy: Policy, sampling: SamplingSettings) -> None:
    needed = sampling.prompt_tokens + sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
