"""Simulated annotators who read the same texts and do not quite agree: what they have in common in every task.

Each judges by a noisy utility: what it likes in a response, in units of the gold score, and Gumbel noise, which makes
its best-of-K choices follow the Plackett-Luce model and its pairs Bradley-Terry.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import HIGHEST_RATING, LOWEST_RATING, ORDERED_KINDS, PAIR, RANKED_KINDS
from rlhf_dagster.records.outcome import OVERALL, ranks_from_ratings
from rlhf_dagster.tasks.base import Judgment

CREW_SIZE = 12
READING_SECONDS = 0.12
"""Seconds for each word shown, at pace 1."""
MIDDLE_RATING = 4
"""What a utility of 0 is rated."""
SPREAD_OF_SECONDS = 0.4
"""Deviation of the logarithm of the time for a label."""
PECULIAR: dict[int, dict[str, float]] = {
    3: {"first_bias": 1.5},
    6: {"careless": 1 / 3, "pace": 0.4},
    8: {"pace": 3.0},
    10: {"tie_threshold": 1.2},
}
"""What is peculiar about some of a crew, by position; the others differ in degree only."""


@dataclass(frozen=True)
class NoisyJudge(ABC):
    """One simulated person. Utilities are in units of the gold score."""

    much_better: ClassVar[float] = 2.5
    """A gap between two utilities from which the better response is much better."""
    utility_per_rating: ClassVar[float] = 1.75
    """By how much the utility must grow for one rating more."""

    name: str
    seed: int
    noise: float = 1.0
    """Scale of the Gumbel noise on each utility."""
    tie_threshold: float = 0.25
    """Utilities closer than this look equally good."""
    first_bias: float = 0.0
    """Gain of the response shown first."""
    careless: float = 0.0
    """Share of comparisons answered at random, without reading."""
    pace: float = 1.0
    """Factor on the time for a label."""

    @abstractmethod
    def liking(self, prompt: str, response: str) -> float:
        """How much the annotator likes the response, without noise."""

    def liking_by_axis(self, prompt: str, response: str) -> Mapping[str, float]:
        """The same on each axis that the annotator tells apart; none by default."""
        return {}

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        """Compare ``responses`` in the order shown; see :class:`rlhf_dagster.tasks.base.SimulatedAnnotator`.

        The responses are put into an order, in which those tie that are within the threshold of the best one not ranked
        yet, and the kind says what that order amounts to: for the best of K it is None (cannot decide) where all tie.
        A rating is a step function of the utility, and ranks by it.
        """
        _check(responses, kind)
        rng = rng_of(self.name, self.seed, key, prompt, list(responses), kind)
        if rng.random() < self.careless:
            return self._at_random(rng, len(responses), kind)
        utilities = [self.utility(prompt, response, key) for response in responses]
        utilities[0] += self.first_bias
        words = sum(len(text.split()) for text in (prompt, *responses))
        seconds = self._seconds(rng, words)
        if kind == "rating":
            return _rated(self._ratings(utilities, prompt, responses, key), seconds)
        ranks = RANKED_KINDS[kind].of_order(self._order(utilities))
        if kind != PAIR.name:
            return Judgment(ranks, seconds)
        axes = self._by_axis(prompt, responses, key)
        by_axis = {axis: self._order(found) for axis, found in axes.items()}
        return Judgment(ranks, seconds, self._strength(ranks, utilities), axes=by_axis or None)

    def utility(self, prompt: str, response: str, key: str) -> float:
        """How much the annotator likes the response, with the noise of comparison ``key``; position plays no part."""
        return self.liking(prompt, response) + self._slip(response, key)

    def _slip(self, response: str, key: str) -> float:
        return self.noise * _gumbel(rng_of(self.name, self.seed, key, response))

    def _ratings(
        self, utilities: Sequence[float], prompt: str, responses: Sequence[str], key: str
    ) -> dict[str, list[int]]:
        by_axis = {OVERALL: utilities, **self._by_axis(prompt, responses, key)}
        return {axis: [self._rating(utility) for utility in found] for axis, found in by_axis.items()}

    def _by_axis(self, prompt: str, responses: Sequence[str], key: str) -> dict[str, list[float]]:
        """The utility of each response on each axis, with the same noise as in the whole."""
        found: dict[str, list[float]] = {}
        for response in responses:
            for axis, liking in self.liking_by_axis(prompt, response).items():
                found.setdefault(axis, []).append(liking + self._slip(response, key))
        return found

    def _at_random(self, rng: random.Random, k: int, kind: str) -> Judgment:
        """A judgment without reading. The order of the draws matters: what one seed gives stays the same."""
        best = rng.randrange(k)
        ranks: list[int] | None = [1 if position == best else 2 for position in range(k)]
        seconds = self._seconds(rng, words=0)
        if kind == "rating":
            return _rated({OVERALL: [rng.randint(LOWEST_RATING, HIGHEST_RATING) for _ in range(k)]}, seconds)
        if kind in ORDERED_KINDS:
            ranks = RANKED_KINDS[kind].of_order(rng.sample(range(1, k + 1), k))
        return Judgment(ranks, seconds, rng.choice((0.5, 1.0)) if kind == "pair" else None)

    def _order(self, utilities: Sequence[float]) -> list[int]:
        ranks, rank = [0] * len(utilities), 0
        while 0 in ranks:
            rank += 1
            best = max(utility for utility, given in zip(utilities, ranks, strict=True) if not given)
            for position, utility in enumerate(utilities):
                if not ranks[position] and best - utility <= self.tie_threshold:
                    ranks[position] = rank
        return ranks

    def _seconds(self, rng: random.Random, words: int) -> float:
        median = self.pace * (2.0 + READING_SECONDS * words)
        return round(median * math.exp(rng.gauss(0.0, SPREAD_OF_SECONDS)), 1)

    def _rating(self, utility: float) -> int:
        return min(HIGHEST_RATING, max(LOWEST_RATING, round(MIDDLE_RATING + utility / self.utility_per_rating)))

    def _strength(self, ranks: Sequence[int] | None, utilities: Sequence[float]) -> float | None:
        if ranks is None or ranks[0] == ranks[1]:
            return None
        return 1.0 if abs(utilities[0] - utilities[1]) >= self.much_better else 0.5


Person = TypeVar("Person", bound=NoisyJudge)


def make_crew(
    person: Callable[..., Person], kind: str, seed: int, weights: Mapping[str, tuple[float, float]]
) -> list[Person]:
    """``kind-01`` to ``kind-12``, the fourth, seventh, ninth and eleventh of whom are peculiar (:data:`PECULIAR`).

    ``weights`` maps what the others of a kind differ in to the range that it is drawn from.
    """
    return [_member(person, f"{kind}-{position + 1:02d}", position, seed, weights) for position in range(CREW_SIZE)]


def _member(
    person: Callable[..., Person], name: str, position: int, seed: int, weights: Mapping[str, tuple[float, float]]
) -> Person:
    rng = rng_of("character", name, seed)
    character = {"noise": rng.uniform(0.7, 1.3), "tie_threshold": rng.uniform(0.05, 0.3)}
    character |= {weight: rng.uniform(*between) for weight, between in weights.items()}
    character["pace"] = math.exp(rng.gauss(0.0, 0.2))
    return person(name=name, seed=seed, **(character | PECULIAR.get(position, {})))


def rng_of(*parts: object) -> random.Random:
    """Random numbers of an annotator that depend on ``parts`` alone."""
    return random.Random(int(content_hash("annotator", *parts), 16))


def _rated(ratings: Mapping[str, list[int]], seconds: float) -> Judgment:
    return Judgment(ranks_from_ratings(ratings[OVERALL]), seconds, ratings=ratings)


def _gumbel(rng: random.Random) -> float:
    """Standard Gumbel, by inverting its distribution function; the argument of the logarithm is never 0."""
    return -math.log(-math.log((rng.getrandbits(52) + 0.5) / 2**52))


def _check(responses: Sequence[str], kind: str) -> None:
    if kind not in RANKED_KINDS:
        known = ", ".join(RANKED_KINDS)
        raise UserError(f"`{kind}` is no kind of comparison that annotators know; use one of: {known}.")
    exactly = RANKED_KINDS[kind].responses
    if len(responses) < 2 or exactly not in (None, len(responses)):
        wanted = f"exactly {exactly}" if exactly else "at least 2"
        raise UserError(f"A comparison of kind `{kind}` has {len(responses)} responses; give it {wanted}.")
