"""A dozen simulated annotators who read the same reviews and do not quite agree.

Each has its own weights on the gold judge's features, and a liking for some words.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from rlhf_dagster.tasks.crew import CREW_SIZE, PECULIAR, NoisyJudge, rng_of
from rlhf_dagster.tasks.sentiment.gold import features
from rlhf_dagster.tasks.sentiment.vocabulary import DOMAINS

FAVOURITES = 8
"""Domain words that an annotator likes to read about."""


@dataclass(frozen=True)
class Annotator(NoisyJudge):
    """One simulated person. Utilities are in units of the gold score."""

    # About the median of sampled pairs.
    much_better: ClassVar[float] = 2.5
    # A tenth of the task's responses fall on the two ends of the scale.
    utility_per_rating: ClassVar[float] = 1.75

    sentiment: float = 1.0
    grammar: float = 1.0
    repetition: float = 1.0
    off_topic: float = 0.5
    taste: float = 0.15
    """Gain for each favourite word in the text."""
    favourites: frozenset[str] = field(default_factory=frozenset)

    def liking(self, prompt: str, response: str) -> float:
        seen = features(prompt, response)
        value = self.sentiment * seen.sentiment + self.taste * len(self.favourites & seen.words)
        return value - (
            self.grammar * seen.errors + self.repetition * seen.repetition + self.off_topic * seen.off_topic
        )


def make_annotators(seed: int) -> list[Annotator]:
    """``ann-01`` to ``ann-12``.

    ``ann-04`` prefers the first position, ``ann-07`` is careless, ``ann-09`` slow, and ``ann-11`` often ties.
    """
    return [_make(position, seed) for position in range(CREW_SIZE)]


def _make(position: int, seed: int) -> Annotator:
    name = f"ann-{position + 1:02d}"
    rng = rng_of("character", name, seed)
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
