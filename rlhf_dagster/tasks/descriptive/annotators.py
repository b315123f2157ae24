"""Two kinds of people who judge descriptions: those who were told what counts, and those who were told little.

With vague instructions each person decides what a good description is: one wants colours, another smells, a third likes
to read about feelings. So they agree less with each other than those with clear ones (Ziegler et al. 2019, section 4.3,
on ambiguous tasks).
"""

from dataclasses import dataclass

from rlhf_dagster.tasks.crew import NoisyJudge, make_crew
from rlhf_dagster.tasks.descriptive.gold import MIDDLE_OF_STORIES, OFF_PLACE, story_features
from rlhf_dagster.tasks.descriptive.words import SENSES
from rlhf_dagster.tasks.scoring import saturate

KINDS_OF_ONLOOKERS = ("clear", "vague")


@dataclass(frozen=True)
class Onlooker(NoisyJudge):
    """A person's weights on each sense, on feelings, and on faults."""

    colour: float = 1.0
    shape: float = 1.0
    touch: float = 1.0
    scent: float = 1.0
    sound: float = 1.0
    feelings: float = 0.0
    faults: float = 1.0

    def liking(self, prompt: str, response: str) -> float:
        seen = story_features(prompt, response)
        value = sum(getattr(self, sense) * seen.noticed[sense] for sense in SENSES) + self.feelings * seen.moods
        faults = seen.repetition + seen.errors + OFF_PLACE * seen.off_place
        return saturate(value) - self.faults * faults - MIDDLE_OF_STORIES


_WEIGHTS = {
    "clear": dict.fromkeys(SENSES, (0.8, 1.2)) | {"faults": (0.5, 1.5)},
    "vague": dict.fromkeys(SENSES, (-1.0, 2.0)) | {"feelings": (0.0, 3.0), "faults": (0.5, 1.5)},
}


def make_onlookers(kind: str, seed: int) -> list[Onlooker]:
    """Twelve people of one of :data:`KINDS_OF_ONLOOKERS`."""
    return make_crew(Onlooker, kind, seed, _WEIGHTS[kind])
