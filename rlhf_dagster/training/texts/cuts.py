"""What is lost of prompts and responses that are longer than a model reads."""

from dataclasses import dataclass, field

from rlhf_dagster.errors import UserError

WARNED_SHARE = 0.01
"""Where more than this share of prompts, or of demonstrated responses, is cut, there is a warning. Where a response is
cut that people judged, there always is."""

COUNTED = ("cut_prompts", "cut_responses", "equal_comparisons", "unended_responses")
"""Metrics (:meth:`Cuts.metrics`) that count what is not read, or not read to its end; they are there where not 0."""


@dataclass
class Cut:
    """How many texts are longer than what is read of them, and by how much."""

    rows: int = 0
    cut: int = 0
    lost: int = 0
    """Tokens beyond what is read."""

    def count(self, whole: int, read: int) -> None:
        """Add a text of ``whole`` tokens, of which at most ``read`` are read."""
        self.rows += 1
        self.cut += whole > read
        self.lost += max(whole - read, 0)

    def metrics(self, name: str) -> dict[str, float]:
        """The counts, where they are not 0; ``name`` says what is cut."""
        counts = {f"cut_{name}s": float(self.cut), f"cut_{name}_tokens": float(self.lost)}
        return {key: count for key, count in counts.items() if count} | self._share(name)

    def _share(self, name: str) -> dict[str, float]:
        return {f"cut_{name}_share": self.cut / self.rows} if self.cut else {}

    @property
    def is_much(self) -> bool:
        """Whether more than `WARNED_SHARE` of the texts are cut."""
        return self.cut > WARNED_SHARE * self.rows

    def sentence(self, name: str, setting: str) -> str:
        """What was lost; ``setting`` names what cuts."""
        return (
            f"{self.cut:,} of {self.rows:,} {name}s are longer than {setting}, and were cut, by "
            f"{self.lost / max(self.cut, 1):,.0f} tokens on average"
        )


@dataclass
class Cuts:
    """Counts of what one training or sampling run reads."""

    prompts: Cut = field(default_factory=Cut)
    responses: Cut = field(default_factory=Cut)
    comparisons: int = 0
    unended: int = 0
    """Responses sampled that do not end within `sampling.response_tokens`."""
    equal: int = 0
    """Comparisons left out because what is read of their responses is equal."""

    def compare(self, is_equal: bool) -> None:
        """Add one comparison."""
        self.comparisons += 1
        self.equal += is_equal

    def metrics(self) -> dict[str, float]:
        """The counts that are not 0, for a training's metrics."""
        others = {"unended_responses": float(self.unended), "equal_comparisons": float(self.equal)}
        there = {name: count for name, count in others.items() if count}
        return self.prompts.metrics("prompt") | self.responses.metrics("response") | there

    def warnings(self, setting: str, judged: bool = True) -> list[str]:
        """Sentences on what is lost; ``setting`` names what cuts responses, which people ``judged`` or demonstrated."""
        said = []
        if self.prompts.is_much:
            said.append(f"{self.prompts.sentence('prompt', 'sampling.prompt_tokens')}: their beginning is not read.")
        if self.responses.is_much or (judged and self.responses.cut):
            what = "what people judged" if judged else "what people wrote"
            said.append(f"{self.responses.sentence('response', setting)}: {what} beyond that is not learned.")
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
