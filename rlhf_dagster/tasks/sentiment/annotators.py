"""A dozen simulated annotators who read the same texts and do not quite agree.

Each judges by a noisy utility: its own weights on the gold judge's features, a liking for some words, and Gumbel
noise, which makes its best-of-K choices follow the Plackett-Luce model and its pairs Bradley-Terry.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.kinds import ORDERED_KINDS, RANKED_KINDS
from rlhf_dagster.records.outcome import ranks_from_ratings
from rlhf_dagster.tasks.base import Judgment
from rlhf_dagster.tasks.sentiment.gold import features
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS

CREW_SIZE = 12
FAVOURITES = 8
"""Domain words that an annotator likes to read about."""
READING_SECONDS = 0.12
"""Seconds for each word shown, at pace 1."""
MUCH_BETTER = 2.5
"""A gap between two utilities from which the better response is much better; about the median of sampled pairs."""
MIDDLE_RATING, UTILITY_PER_RATING = 4, 1.75
"""A utility of 0 is rated 4, each 1.75 more one higher, within 1 to 7; a tenth of the task's responses fall on the two
ends."""
SPREAD_OF_SECONDS = 0.4
"""Deviation of the logarithm of the time for a label."""


@dataclass(frozen=True)
class Annotator:
    """One simulated person. Utilities are in units of the gold score."""

    name: str
    seed: int
    noise: float = 1.0
    """Scale of the Gumbel noise on each utility."""
    tie_threshold: float = 0.25
    """Utilities closer than this look equally good."""
    sentiment: float = 1.0
    grammar: float = 1.0
    repetition: float = 1.0
    off_topic: float = 0.5
    taste: float = 0.15
    """Gain for each favourite word in the text."""
    favourites: frozenset[str] = field(default_factory=frozenset)
    first_bias: float = 0.0
    """Gain of the response shown first."""
    careless: float = 0.0
    """Share of comparisons answered at random, without reading."""
    pace: float = 1.0
    """Factor on the time for a label."""

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        """Compare ``responses`` in the order shown; see :class:`rlhf_dagster.tasks.base.SimulatedAnnotator`.

        The responses are put into an order, in which those tie that are within the threshold of the best one not ranked
        yet, and the kind says what that order amounts to: for the best of K it is None (cannot decide) where all tie.
        A rating is a step function of the utility, the same on all axes, and ranks by it.
        """
        _check(responses, kind)
        rng = _rng(self.name, self.seed, key, prompt, list(responses), kind)
        if rng.random() < self.careless:
            return self._at_random(rng, len(responses), kind)
        utilities = [self.utility(prompt, response, key) for response in responses]
        utilities[0] += self.first_bias
        words = sum(len(text.split()) for text in (prompt, *responses))
        seconds = self._seconds(rng, words)
        if kind == "rating":
            return _rated([_rating(utility) for utility in utilities], seconds)
        ranks = RANKED_KINDS[kind].of_order(self._order(utilities))
        return Judgment(ranks, seconds, _strength(ranks, abs(utilities[0] - utilities[1])) if kind == "pair" else None)

    def utility(self, prompt: str, response: str, key: str) -> float:
        """How much the annotator likes the response, with the noise of comparison ``key``; position plays no part."""
        seen = features(prompt, response)
        value = self.sentiment * seen.sentiment + self.taste * len(self.favourites & seen.words)
        value -= self.grammar * seen.errors + self.repetition * seen.repetition + self.off_topic * seen.off_topic
        return value + self.noise * _gumbel(_rng(self.name, self.seed, key, response))

    def _at_random(self, rng: random.Random, k: int, kind: str) -> Judgment:
        """A judgment without reading. The order of the draws matters: what one seed gives stays the same."""
        best = rng.randrange(k)
        ranks: list[int] | None = [1 if position == best else 2 for position in range(k)]
        seconds = self._seconds(rng, words=0)
        if kind == "rating":
            return _rated([rng.randint(1, 7) for _ in range(k)], seconds)
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


# What is peculiar about some of the annotators, by position; the others differ in degree only.
PECULIAR: dict[int, dict[str, float]] = {
    3: {"first_bias": 1.5},
    6: {"careless": 1 / 3, "pace": 0.4},
    8: {"pace": 3.0},
    10: {"tie_threshold": 1.2},
}


def make_annotators(seed: int) -> list[Annotator]:
    """``ann-01`` to ``ann-12``.

    ``ann-04`` prefers the first position, ``ann-07`` is careless, ``ann-09`` slow, and ``ann-11`` often ties.
    """
    return [_make(position, seed) for position in range(CREW_SIZE)]


def _make(position: int, seed: int) -> Annotator:
    name = f"ann-{position + 1:02d}"
    rng = _rng("character", name, seed)
    nouns = sorted({word for domain in DOMAINS for slot in ("aspect", "aspects") for word in domain.words[slot]})
    character = {
        "noise": rng.uniform(0.7, 1.3),
        "tie_threshold": rng.uniform(0.05, 0.3),
        "sentiment": rng.uniform(0.8, 1.2),
        "grammar": rng.uniform(0.5, 1.5),
        "repetition": rng.uniform(0.5, 1.5),
        "off_topic": rng.uniform(0.2, 0.8),
        "taste": rng.uniform(0.1, 0.4),
        "pace": math.exp(rng.gauss(0.0, 0.2)),
    }
    favourites = frozenset(rng.sample(nouns, FAVOURITES))
    return Annotator(name=name, seed=seed, favourites=favourites, **(character | PECULIAR.get(position, {})))


def _rating(utility: float) -> int:
    return min(7, max(1, round(MIDDLE_RATING + utility / UTILITY_PER_RATING)))


def _rated(ratings: list[int], seconds: float) -> Judgment:
    return Judgment(ranks_from_ratings(ratings), seconds, ratings={"overall": ratings})


def _strength(ranks: Sequence[int] | None, gap: float) -> float | None:
    if ranks is None or ranks[0] == ranks[1]:
        return None
    return 1.0 if gap >= MUCH_BETTER else 0.5


def _rng(*parts: object) -> random.Random:
    return random.Random(int(content_hash("annotator", *parts), 16))


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
