"""Sampling: what is drawn and with which log-probs, by this package and by continuous batching."""

from collections.abc import Sequence

import torch

from benchmarks.models.inputs import COMPUTE, ROWS, SAMPLING
from benchmarks.models.plain import Plain
from benchmarks.models.trial import Trial, WrongNumberError, require_rows_close
from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.sampling.best_of_n import best_of_n
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.sampling.sample import Sample, sample
from rlhf_dagster.training.texts.tokens import encode_prompts, pad

MOST_SEEDS = 20
"""With one of these, some rows end before others."""
CONTINUOUS = COMPUTE.changed(rollout_backend="transformers")


def sampled(trial: Trial) -> None:
    """Drawn tokens have the log-probs that transformers gives them; rows end at different steps."""
    policy, lengths = load_policy(trial.base, COMPUTE), set[int]()
    for seed in range(MOST_SEEDS):
        drawn = sample(policy, trial.inputs.texts, SAMPLING, seed, compute=COMPUTE)
        _require_log_probs(trial, trial.inputs.texts, drawn)
        lengths = {len(one.token_ids) for one in drawn}
        if len(lengths) > 1:
            return
    raise WrongNumberError("trial: no response ends before the others")


def greedy(trial: Trial) -> None:
    """Each token is the likeliest one."""
    _require_greedy(trial, COMPUTE, SAMPLING.changed(fixed_length=True))
    _require_greedy(trial, COMPUTE, SAMPLING)


def continuous(trial: Trial) -> None:
    """Continuous batching draws from the policy itself, greedily and by chance."""
    _require_greedy(trial, CONTINUOUS, SAMPLING)
    policy = load_policy(trial.base, COMPUTE)
    sample(policy, trial.inputs.texts, SAMPLING, seed=0, compute=CONTINUOUS)
    decoding = decoding_of(policy.tokenizer, SAMPLING)
    prompts = encode_prompts(policy.tokenizer, trial.inputs.texts, SAMPLING.prompt_tokens)
    with rollout_backend(CONTINUOUS, ROWS) as backend:
        uniforms = draw_uniforms(ROWS, SAMPLING.response_tokens, torch.Generator().manual_seed(0))
        drawn = backend.generate(policy.model, pad(prompts, decoding.pad_id, "left"), uniforms, decoding)
    lengths = drawn.mask.sum(dim=1).tolist()
    tokens, log_probs = (
        [row[:n] for row, n in zip(rows.tolist(), lengths, strict=True)] for rows in (drawn.tokens, drawn.log_probs)
    )
    expected = [trial.plain.log_probs(prompt, row) for prompt, row in zip(prompts, tokens, strict=True)]
    require_rows_close("its own log-probs", log_probs, expected)


def best(trial: Trial) -> None:
    """The best of two responses, the longer one."""
    texts = trial.inputs.texts[:4]
    kept = best_of_n(trial.base, texts, lambda _, responses: [len(text) for text in responses], 2, SAMPLING, 0, COMPUTE)
    _require_log_probs(trial, texts, [one.sample for one in kept])


def _require_greedy(trial: Trial, compute: ComputeSettings, sampling: SamplingSettings) -> None:
    policy = load_policy(trial.base, COMPUTE)
    drawn = sample(policy, trial.inputs.texts, sampling, seed=0, greedy=True, compute=compute)
    _require_log_probs(trial, trial.inputs.texts, drawn, sampling.fixed_length)
    likeliest = [
        _likeliest(trial.plain, text, one.token_ids, sampling.fixed_length)
        for text, one in zip(trial.inputs.texts, drawn, strict=True)
    ]
    require_rows_close("greedy", [one.log_probs for one in drawn], likeliest)


def _require_log_probs(trial: Trial, texts: Sequence[str], drawn: Sequence[Sample], endless: bool = False) -> None:
    plain = trial.plain
    expected = [_log_probs(plain, text, one.token_ids, endless) for text, one in zip(texts, drawn, strict=True)]
    require_rows_close("log-probs", [one.log_probs for one in drawn], expected)


def _log_probs(plain: Plain, text: str, tokens: list[int], endless: bool) -> list[float]:
    return plain.log_probs(plain.ids(text), tokens, endless=endless)


def _likeliest(plain: Plain, text: str, tokens: list[int], endless: bool) -> list[float]:
    """The log-prob of the likeliest token wherever one was drawn."""
    highest: list[float] = plain.distributions(plain.ids(text), tokens, endless=endless).amax(dim=-1).tolist()
    return highest
