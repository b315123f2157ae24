"""Answers of one policy, which is opened once, to any number of prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.texts.cuts import Cuts

if TYPE_CHECKING:
    from rlhf_dagster.training.sampling.sample import Sample


@dataclass(frozen=True)
class PolicyAnswer:
    text: str
    tokens: int
    """How many were drawn, the one that ends the answer included."""
    finish_reason: Literal["stop", "length"]
    """`stop` where the policy ended the answer, `length` where `sampling.response_tokens` did."""


@dataclass(frozen=True)
class PolicyAnswers:
    """What a policy answers to one prompt."""

    answers: list[PolicyAnswer]
    unread: int
    """Tokens at the beginning of the prompt that do not fit `sampling.prompt_tokens`, and were not read."""


@dataclass(frozen=True)
class OpenPolicy:
    """A policy that is ready to answer."""

    policy_id: str
    reads_chats: bool
    """Whether its prompts are chats; they are texts to go on with otherwise."""
    answer: Callable[[Prompt, int | None, int], PolicyAnswers]
    """The answers to a prompt: with a seed, None for the likeliest tokens, and how many."""


def open_policy(loop: LoopFolder, checkpoint: Checkpoint) -> OpenPolicy:
    """Open a loop's model with the loop's sampling settings; raises UserError where it cannot be opened.

    Its answers raise UserError for a prompt that it does not read.
    """
    from rlhf_dagster.training.models.log_probs import decoding_of
    from rlhf_dagster.training.models.policies import load_policy
    from rlhf_dagster.training.sampling.native import NativeRollouts
    from rlhf_dagster.training.sampling.sample import sample
    from rlhf_dagster.training.texts.chats.encoding import reads_chats

    sampling, compute = loop.config.sampling, loop.config.compute
    policy = load_policy(checkpoint.folder, compute)
    ends = decoding_of(policy.tokenizer, sampling).end_ids
    # Another program would be started anew for each prompt.
    backend = NativeRollouts()

    def answer(prompt: Prompt, seed: int | None, n: int) -> PolicyAnswers:
        cuts, greedy = Cuts(), seed is None
        drawn = sample(
            policy, [prompt], sampling, seed or 0, n, greedy=greedy, compute=compute, backend=backend, cuts=cuts
        )
        return PolicyAnswers([_answer(one, ends, sampling) for one in drawn], cuts.prompts.lost)

    return OpenPolicy(checkpoint.model_id, reads_chats(policy.tokenizer), answer)


def _answer(drawn: "Sample", ends: tuple[int, ...], sampling: SamplingSettings) -> PolicyAnswer:
    ended = not sampling.fixed_length and drawn.token_ids[-1] in ends
    return PolicyAnswer(drawn.text, len(drawn.token_ids), "stop" if ended else "length")
