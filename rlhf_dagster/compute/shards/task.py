"""What is sampled or scored, and where it is cut: between the batches that one process would make of it.

A part gives the bytes that one process gives, since its batches are those of one process, and its random numbers are
the rows' own. Importing this imports no torch.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import Damaged
from rlhf_dagster.lineage.model_folders import content_of, tokenizer_digest
from rlhf_dagster.records.chats import Chat, Prompt, messages_of
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.training.reward.memory import SCORED_AT_ONCE

if TYPE_CHECKING:
    from rlhf_dagster.training.models.policies import Policy
    from rlhf_dagster.training.reward.scores import RewardModel

MOST_PARTS_OF_SCORES = 64
"""Of a group of texts that are scored."""
PartRows = list[list[Any]]
"""One row of plain values for each sample, response or prompt."""


@dataclass(frozen=True)
class ShardTask:
    """``samples``: n of a policy for each prompt; ``log_probs`` of given responses under it; ``best``: for each prompt
    the one of n samples that a reward model scores highest; ``scores`` of given texts by a reward model."""

    kind: Literal["samples", "log_probs", "best", "scores"]
    policy: Path
    """The policy; of ``scores``, the reward model."""
    prompts: list[str | list[dict[str, str]]]
    """Texts, or messages of chats."""
    sampling: SamplingSettings
    compute: ComputeSettings
    seed: int = 0
    n: int = 1
    responses: list[list[int]] = field(default_factory=list)
    reward_model: Path | None = None
    texts: list[str] = field(default_factory=list)
    """What is scored, a text for each prompt."""
    drawn: list[list[int] | None] = field(default_factory=list)
    """The ids that a policy drew for each text, by the reward model's tokenizer, where they are known."""
    groups: list[int] = field(default_factory=list)
    """How many texts, one group after the other, are scored together: no batch has texts of two groups."""

    @property
    def identity(self) -> str:
        """Of what comes out."""
        models = [content_of(path) for path in (self.policy, self.reward_model) if path is not None]
        told = [self.kind, self.sampling.model_dump(), self.compute.model_dump(), self.seed, self.n]
        given = [self.prompts, self.responses, self.texts, self.drawn, self.groups]
        return content_hash("shards", models, told, *given)

    def parts(self) -> list[range]:
        """The rows of each part."""
        if self.kind == "scores":
            return [part for group in self.groups_of_rows() for part in _cut(group, _scored_in_part(len(group)))]
        rows = len(self.prompts) * (self.n if self.kind == "samples" else 1)
        batch = self.sampling.batch_size
        # Of ``best``, the prompts whose samples make about a batch.
        return _cut(range(rows), max(1, batch // self.n) if self.kind == "best" else batch)

    def groups_of_rows(self) -> list[range]:
        """The rows of each of :attr:`groups`."""
        ends = [0, *accumulate(self.groups)]
        return [range(*both) for both in pairwise(ends)]


def _scored_in_part(rows: int) -> int:
    """A batch at least. Each part reads all texts of its group, to know their lengths: so there are not too many."""
    return SCORED_AT_ONCE * max(1, math.ceil(rows / SCORED_AT_ONCE / MOST_PARTS_OF_SCORES))


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def plain_prompts(prompts: list[Prompt]) -> list[str | list[dict[str, str]]]:
    """Prompts as a task has them."""
    return [messages_of(prompt) or str(prompt) for prompt in prompts]


def task_to_json(task: ShardTask) -> str:
    return TypeAdapter(ShardTask).dump_json(task).decode()


def task_from_json(text: str, name: str) -> ShardTask:
    """Raises Damaged where the text is not that of a task."""
    try:
        return TypeAdapter(ShardTask).validate_json(text)
    except ValidationError as error:
        raise Damaged(f"{name} is damaged ({error.error_count()} fields).") from None


class OpenModels:
    """The models of a task, each opened when it is first asked for."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task

    @cached_property
    def policy(self) -> "Policy":
        from rlhf_dagster.training.models.policies import load_policy

        return load_policy(self._task.policy, self._task.compute)

    @cached_property
    def reward_model(self) -> "RewardModel":
        from rlhf_dagster.training.reward.scores import load_reward_model

        return load_reward_model(self._task.reward_model or self._task.policy, self._task.compute)


def rows_of_part(task: ShardTask, part: range, models: OpenModels) -> PartRows:
    """Do one part, or several that follow each other, in this process.

    Raises UserError where a model cannot be opened, or a prompt does not fit it.
    """
    do = {"samples": _samples, "log_probs": _log_probs, "best": _best, "scores": _scores}[task.kind]
    return do(task, part, models)


def _samples(task: ShardTask, part: range, models: OpenModels) -> PartRows:
    from rlhf_dagster.training.sampling.sample import sample_part

    drawn = sample_part(models.policy, _prompts(task), task.sampling, task.seed, task.n, part, task.compute)
    return [[one.text, one.token_ids, one.log_probs] for one in drawn]


def _log_probs(task: ShardTask, part: range, models: OpenModels) -> PartRows:
    from rlhf_dagster.training.sampling.sample import response_log_probs

    own = slice(part.start, part.stop)
    return response_log_probs(models.policy, _prompts(task, own), task.responses[own], task.sampling, task.compute)


def _best(task: ShardTask, part: range, models: OpenModels) -> PartRows:
    from rlhf_dagster.training.reward.scores import score_responses
    from rlhf_dagster.training.sampling.best_of_n import best_samples

    reward_model = task.reward_model or task.policy
    same = tokenizer_digest(task.policy) == tokenizer_digest(reward_model)

    def score(asked: Any, given: Any) -> Any:
        drawn = [one.token_ids if same else None for one in given]
        texts = [one.text for one in given]
        return score_responses(models.reward_model, asked, texts, task.sampling, task.compute, drawn)

    asked = _prompts(task, slice(part.start, part.stop))
    # Neighbouring parts have neighbouring seeds, as in one process.
    seed = task.seed + part.start
    best = best_samples(models.policy, asked, score, task.n, task.sampling, seed, task.compute)
    return [[one.sample.text, one.sample.token_ids, one.sample.log_probs, one.score, one.mean_score] for one in best]


def _scores(task: ShardTask, part: range, models: OpenModels) -> PartRows:
    """Those of the batches that begin in ``part``, a batch being of rows of similar length of its group."""
    from rlhf_dagster.training.reward.scores import scores_of_part

    (group,) = (group for group in task.groups_of_rows() if part.start in group)
    own, within = slice(group.start, group.stop), range(part.start - group.start, part.stop - group.start)
    asked, texts, drawn = _prompts(task, own), task.texts[own], task.drawn[own]
    scored = scores_of_part(models.reward_model, asked, texts, task.sampling, task.compute, drawn, within)
    return [[group.start + index, mean, heads] for index, mean, heads in scored]


def _prompts(task: ShardTask, part: slice = slice(None)) -> list[Prompt]:
    return [one if isinstance(one, str) else Chat.of(one) for one in task.prompts[part]]
