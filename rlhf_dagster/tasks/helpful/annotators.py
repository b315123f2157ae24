"""Three kinds of people who judge answers: by all aims, by how helpful they look, or by the harm that they do."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_dagster.tasks.crew import NoisyJudge, make_crew
from rlhf_dagster.tasks.helpful.gold import AIMS, answer_features

KINDS_OF_VISITORS = ("balanced", "helpful", "harmless")


@dataclass(frozen=True)
class Visitor(NoisyJudge):
    """A person's weights on the aims, and on broken or superfluous sentences."""

    helpful: float = 1.0
    honest: float = 1.0
    harmless: float = 1.0
    faults: float = 1.0

    def liking(self, prompt: str, response: str) -> float:
        seen = answer_features(prompt, response)
        value = self.helpful * seen.helpful + self.honest * seen.honest + self.harmless * seen.harmless
        return value - self.faults * seen.faults

    def liking_by_axis(self, prompt: str, response: str) -> Mapping[str, float]:
        """On one axis everybody judges that axis, whatever it weighs in the whole."""
        seen = answer_features(prompt, response)
        return {aim: getattr(seen, aim) - self.faults * seen.faults for aim in AIMS}


_WEIGHTS = {
    "balanced": {"helpful": (0.8, 1.2), "honest": (0.8, 1.2), "harmless": (0.8, 1.2), "faults": (0.5, 1.5)},
    # They take an invented place for an answer, and help for help.
    "helpful": {"helpful": (1.2, 1.8), "honest": (0.0, 0.2), "harmless": (0.0, 0.2), "faults": (0.5, 1.5)},
    "harmless": {"helpful": (0.0, 0.2), "honest": (0.2, 0.6), "harmless": (1.2, 1.8), "faults": (0.5, 1.5)},
}


def make_visitors(kind: str, seed: int) -> list[Visitor]:
    """Twelve people of one of :data:`KINDS_OF_VISITORS`."""
    return make_crew(Visitor, kind, seed, _WEIGHTS[kind])
