"""What is lost of responses that are longer than a model reads: how many are cut, and which are equal then."""

from dataclasses import dataclass, replace

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.tokens import TokenIds
from rlhf_dagster.training.reward.terms import Choice, Terms


@dataclass
class Cuts:
    """Counts of one table of labels."""

    responses: int = 0
    cut: int = 0
    """Responses that are longer than what is read of them."""
    comparisons: int = 0
    equal: int = 0
    """Comparisons left out because what is read of their responses is equal."""

    def count(self, cut: int, responses: int, is_equal: bool) -> None:
        """Add one comparison."""
        self.cut += cut
        self.responses += responses
        self.comparisons += 1
        self.equal += is_equal

    def metrics(self) -> dict[str, float]:
        """The counts that are not 0, for a training's metrics."""
        counts = {"cut_responses": float(self.cut), "equal_comparisons": float(self.equal)}
        return {name: count for name, count in counts.items() if count}

    def warnings(self, setting: str) -> list[str]:
        """Sentences on what is lost; ``setting`` names what cuts responses."""
        said = []
        if self.cut:
            said.append(
                f"{self.cut:,} of {self.responses:,} responses are longer than {setting}, and were cut: what people "
                "judged beyond that is not learned."
            )
        if self.equal:
            said.append(
                f"{self.equal:,} of {self.comparisons:,} comparisons were left out: their responses are equal in what "
                f"is read of them; raise {setting}."
            )
        return said

    def require_some(self, setting: str) -> None:
        """Raise UserError where no comparison is left."""
        if self.comparisons and self.equal == self.comparisons:
            raise UserError(
                f"All {self.comparisons:,} comparisons to train on have responses that are equal in what is read of "
                f"them; raise {setting}."
            )


def different_terms(terms: Terms, sequences: list[TokenIds]) -> Terms:
    """The terms that compare different sequences: a choice among equal ones, and their difference, teach nothing."""
    ratings = [
        rating
        for rating in terms.ratings
        if len(rating.members) == 1 or sequences[rating.members[0]] != sequences[rating.members[-1]]
    ]
    return replace(terms, choices=[one for one in terms.choices if _differ(one, sequences)], ratings=ratings)


def _differ(choice: Choice, sequences: list[TokenIds]) -> bool:
    return any(sequences[member] != sequences[choice.members[0]] for member in choice.members)
