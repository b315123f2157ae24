"""The responses of one policy to a loop's test prompts, and of several policies to the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.common.intervals import UNMEASURED, Rate, mean_interval
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.texts.figures import text_figures
from rlhf_dagster.evaluation.win_rate import POLICY
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.measuring.known_about import known_about
from rlhf_dagster.replication.measures.rounds import round_table
from rlhf_dagster.replication.verdicts import rate_of

EVALUATION = "evaluation_completions"


@dataclass(frozen=True)
class VariantAnswers:
    """One response to each test prompt; see :func:`answers_of` and :func:`given_answers`."""

    loop: LoopFolder
    rows: pd.DataFrame
    """Sorted by ``prompt_id``; also ``prompt``, ``text``, and where they are known ``log_probs`` and
    ``reference_log_probs``."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def gold(self) -> np.ndarray:
        """The task's gold score of each response, shape [n]."""
        score = self.loop.task.gold_score
        return np.array(list(map(score, self.rows["prompt"], self.rows["text"])), dtype=np.float64)

    @cached_property
    def nats(self) -> np.ndarray:
        """Log-ratio of each response under its policy and under SFT, shape [n], whose mean is the KL.

        Raises UserError where the probabilities are not known, as of the best of n.
        """
        known = {"log_probs", "reference_log_probs"} <= set(self.rows)
        pairs = list(zip(self.rows["log_probs"], self.rows["reference_log_probs"], strict=True)) if known else []
        if not pairs or any(own is None or not 0 < len(own) == len(other) for own, other in pairs):
            raise UserError(
                f"{self.loop.root}: the probabilities of these responses are not known, and so neither is their KL."
            )
        return np.array([np.sum(own, dtype=np.float64) - np.sum(other, dtype=np.float64) for own, other in pairs])

    def on(self, prompts: Sequence[str]) -> "VariantAnswers":
        """Those to these prompts, by id, in their order."""
        return replace(
            self, rows=self.rows.set_index("prompt_id", drop=False).loc[list(prompts)].reset_index(drop=True)
        )

    def mean_gold(self) -> Rate:
        return mean_interval(self.gold)

    def kl(self) -> Rate:
        """Mean KL to SFT in nats per response."""
        return mean_interval(self.nats)

    def words(self) -> dict[str, Any]:
        """``copying``, ``rouge`` and ``truthfulness`` as in reports (:func:`text_figures`), each a dict of rates."""
        return text_figures(self.rows, known_about(self.loop, self.rows))


def answers_of(loop: LoopFolder, role: str = POLICY, round_key: str = "") -> VariantAnswers:
    """The responses of a role in a round's evaluation: ``policy``, ``sft``, ``behaviour``, or an arm's name.

    By default the latest round that has an evaluation. Raises UserError where there is none, or nothing of this role.
    """
    table = round_table(loop, EVALUATION, round_key)
    return _answers(loop, table[table["role"] == role], f"{role} in {round_key or 'the latest round'}")


def given_answers(loop: LoopFolder, found: Sequence[Mapping[str, Any]]) -> VariantAnswers:
    """Responses that a probe has sampled: rows with ``prompt_id``, ``prompt`` and ``text``."""
    return _answers(loop, pd.DataFrame(list(found), columns=None if found else ["prompt_id"]), "a probe")


def on_same_prompts(*all_answers: VariantAnswers) -> list[VariantAnswers]:
    """Each of them on the prompts that all of them answer, in one order.

    The loops of one seed draw the same test prompts, though rounds of a different number draw them anew where the test
    split holds more than are asked. Raises UserError where no prompt is common to all.
    """
    common = set.intersection(*(set(one.rows["prompt_id"]) for one in all_answers))
    if not common:
        raise UserError(
            f"{', '.join(sorted({str(one.loop.root) for one in all_answers}))}: no test prompt is answered in all of "
            "them; give them the same seed, task and prompts."
        )
    return [one.on(sorted(common)) for one in all_answers]


def text_rate(words: Mapping[str, Any], group: str, name: str) -> Rate:
    """One figure of :meth:`VariantAnswers.words`, as ``rouge`` and ``rougeL``; unmeasured where the task knows none."""
    return rate_of(words[group][name]) if words[group] else UNMEASURED


def _answers(loop: LoopFolder, rows: pd.DataFrame, whose: str) -> VariantAnswers:
    if rows.empty:
        raise UserError(f"{loop.root}: there are no responses of {whose}; sample them first.")
    if rows["prompt_id"].duplicated().any():
        raise UserError(f"{loop.root}: {whose} answers a prompt more than once; one response to each is needed.")
    return VariantAnswers(loop, rows.sort_values("prompt_id").reset_index(drop=True))
