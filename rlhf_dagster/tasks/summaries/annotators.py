"""Two kinds of people who judge summaries: those who check what is said, and those who go by its looks.

Ziegler et al. (2019, section 4.3) found that their labelers took a copied sentence for accurate, where the authors
wanted a summary in its own words that is true.
"""

from dataclasses import dataclass

from rlhf_dagster.tasks.crew import NoisyJudge, make_crew
from rlhf_dagster.tasks.summaries.facts import summary_facts
from rlhf_dagster.tasks.summaries.gold import LONG, SummaryWeights, summary_value

KINDS_OF_READERS = ("checking", "heuristic")


@dataclass(frozen=True)
class Reader(NoisyJudge):
    """A person's weights on what can be seen in a summary; see :class:`~gold.SummaryWeights`."""

    coverage: float = 0.0
    false: float = 0.0
    copied: float = 0.0
    broken: float = 1.0
    brevity: float = 0.0
    length: float = 0.0
    """Gain for each token, up to the length of a long summary: who does not check takes more for more."""

    def liking(self, prompt: str, response: str) -> float:
        seen = summary_facts(prompt, response)
        weights = SummaryWeights(self.coverage, self.false, self.copied, self.broken, self.brevity)
        return summary_value(seen, weights) + self.length * min(seen.tokens, LONG)


_WEIGHTS = {
    "checking": {
        "coverage": (0.8, 1.2),
        "false": (1.5, 2.5),
        "copied": (0.5, 1.5),
        "broken": (0.5, 1.5),
        "brevity": (0.1, 0.2),
    },
    # A copy is worth something to them; what is false they see only now and then.
    "heuristic": {
        "coverage": (0.1, 0.3),
        "false": (0.0, 0.2),
        "copied": (-3.0, -2.0),
        "broken": (0.5, 1.5),
        "length": (0.05, 0.15),
    },
}


def make_readers(kind: str, seed: int) -> list[Reader]:
    """Twelve people of one of :data:`KINDS_OF_READERS`."""
    return make_crew(Reader, kind, seed, _WEIGHTS[kind])
