"""Settings of evaluation and of the promotion gate."""

import math
from statistics import NormalDist

from pydantic import Field

from rlhf_dagster.config.base import LATER, Settings

CONFIDENCE = 0.95


class EvaluationSettings(Settings):
    prompts: int = Field(512, ge=1)
    """Held-out prompts that every policy answers."""
    human_judgments: int | None = Field(None, ge=0)
    """A/B judgments asked of annotators, shared equally between SFT and the champion as opponents; null asks for as
    many as `precision` needs, 0 for none."""
    precision: float = Field(0.05, gt=0, lt=0.5)
    """Half-width of the 95% interval that each win rate by people shall have; 0.05 takes 385 judgments of an opponent.
    Used where `human_judgments` is null."""

    best_of_n: int = Field(0, ge=0)
    """Also report the best of so many samples of the SFT policy by the reward model for each prompt; 0 samples none."""

    @property
    def asks_people(self) -> bool:
        """Whether people judge policies at all."""
        return self.human_judgments != 0

    def judgments(self, opponents: int) -> int:
        """A/B judgments to ask for, against all opponents together."""
        if self.human_judgments is not None:
            return self.human_judgments
        return opponents * judgments_for(self.precision)


class GateSettings(Settings):
    """When a policy may become the champion. A rule that is null is switched off."""

    min_win_rate: float | None = Field(0.5, ge=0, le=1)
    """The lower end of the 95% interval of the win rate against the champion must be above this: by the reward model
    before people are asked, then by people's A/B judgments. Where the loop asks nobody, the reward model decides."""
    min_length_controlled_win_rate: float | None = Field(None, ge=0, le=1, json_schema_extra=LATER)
    """The same for what the win rate would be if both responses were equally long (as AlpacaEval 2 corrects it)."""
    min_judgments: int = Field(100, ge=1)
    """Fewer judgments than this are `not enough judgments`, which is never a pass."""
    max_kl: float | None = Field(10.0, gt=0)
    """Largest mean sequence KL to SFT, in nats."""
    max_length_ratio: float | None = Field(1.5, gt=1)
    """Mean response length may be at most this many times SFT's, and at least its inverse."""
    min_distinct: float | None = Field(0.95, ge=0, le=1)
    """Smallest share of distinct responses."""
    max_repetition: float | None = Field(0.1, ge=0, le=1)
    """The mean share of a response's word pairs that repeat an earlier one may exceed SFT's by at most this. Where a
    script writes no spaces between words (Chinese, Japanese, Thai and others), characters count as words here."""
    max_copying: float | None = Field(0.2, ge=0, le=1)
    """The mean share of a response's word triples that stand in its prompt may exceed SFT's by at most this."""
    max_copied_sentences: float | None = Field(None, ge=0, le=1, json_schema_extra=LATER)
    """The mean share of a response's sentences that stand in its prompt, or in the text that the task's prompt is
    about, may exceed SFT's by at most this."""
    max_perplexity_ratio: float | None = Field(2.0, gt=1)
    """Alignment tax: perplexity on held-out pretraining text may be at most this many times SFT's."""
    max_reward_drift: float | None = Field(0.15, ge=0, le=1)
    """Over-optimisation alarm: reward models trained on halves of the labels, and the one on all, may differ in the
    policy's win rate against SFT by at most this, beyond chance; null also saves the training of the two."""
    approval: bool = False
    """A policy that passes waits for a person, who approves it with a reason: the job `approve`, or `rlhf promote`."""


class CheckSettings(Settings):
    """What the asset checks of data, labels and reward model warn of. They stop nothing; null switches one off."""

    max_near_duplicates: float | None = Field(0.01, ge=0, le=1)
    """Largest share of prompts that equal another one but for case, spaces and punctuation."""
    max_cut: float | None = Field(0.01, ge=0, le=1)
    """Largest share of demonstrations that are longer than what SFT reads of them."""
    min_alpha: float | None = Field(0.2, ge=-1, le=1)
    """Least agreement of people who judge the same comparisons (Krippendorff's alpha: 0 by chance). Pairs on which two
    people agree in 63% of all cases, as in Bai et al. 2022, have about 0.26."""
    min_gold_accuracy: float | None = Field(0.7, ge=0, le=1)
    """Least share of gold questions that are answered right."""
    max_position_bias: float | None = Field(0.05, ge=0, le=1)
    """How far the share of choices that fall on the response shown first may be from chance."""
    max_quarantined: float | None = Field(0.02, ge=0, le=1)
    """Largest share of annotations that cannot be read."""
    max_calibration_error: float | None = Field(0.1, ge=0, le=1)
    """By how much the reward model's probabilities may be off on average (expected calibration error)."""
    max_label_age_days: float | None = Field(90.0, gt=0)
    """How old a round's newest label may be."""


def judgments_for(half_width: float) -> int:
    """How many judgments give a win rate's 95% interval at most this half-width, whatever the rate.

    n = z^2 p (1 - p) / h^2 of the normal approximation, at p = 1/2 where it is largest (Cochran 1977, section 4.4).
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return math.ceil(z * z / 4 / half_width**2)
