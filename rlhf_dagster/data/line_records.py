"""The records that a line can hold, checked key by key."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from rlhf_dagster.data.line_values import name_of, optional_text, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in, with_prompt, with_response
from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.records.ids import content_hash


@dataclass(frozen=True)
class PromptLine:
    prompt: Prompt
    source: str
    """Empty if the line names none."""
    user: str


@dataclass(frozen=True)
class DemonstrationLine:
    prompt: Prompt
    response: str
    source: str
    user: str


@dataclass(frozen=True)
class FeedbackLine:
    """One response, which somebody liked or did not, with nothing to compare it to."""

    prompt: Prompt
    response: str
    liked: bool
    weight: float
    user: str
    source: str


@dataclass(frozen=True)
class JudgmentLine:
    """What one judge said once about some responses; what the file does not say stays unknown."""

    comparison: str
    """The comparison's name in the file; empty where it has none, and prompt and responses identify it."""
    prompt: Prompt
    responses: tuple[str, ...]
    """Two or more texts, which may be empty or equal."""
    annotator: str
    """The name in the file. Only the key file keeps it; elsewhere there is a pseudonym. Empty: not known."""
    ranks: tuple[int, ...] | None
    """Rank of each response, 1 best, equal ranks tie, none left out; None for `cannot decide`."""
    kind: str
    """Of RANKED_KINDS."""
    order_known: bool = True
    """Whether ``responses`` are in the order in which this annotator saw them."""
    ratings: Mapping[str, tuple[int, ...]] | None = None
    """By axis, one for each response; with the kind `rating` alone."""
    strength: float | None = None
    """How much better the best response is, from 0 to 1."""
    policies: tuple[str, ...] = ()
    """Who wrote each response, empty where it is not known; an empty tuple where none is."""
    flags: tuple[str, ...] = ()
    """Out of FLAGS."""
    reason: str = ""
    started_at: datetime | None = None
    submitted_at: datetime | None = None
    seconds: float | None = None
    withdrawn: bool = False
    """Whether the annotator takes the judgment back; what it says beside is not read."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says, by its name there; values that JSON can hold."""

    @property
    def name(self) -> str:
        """The comparison's name, or a hash of prompt and responses, in any order, where it has none."""
        return self.listing.name

    @property
    def listing(self) -> "Listing":
        return Listing(self.comparison, self.prompt, self.responses, self.policies)

    @property
    def parts(self) -> "JudgmentParts":
        decision = Decision(*(getattr(self, name) for name in Decision._fields))
        return JudgmentParts(self.listing, self.annotator, decision)


class Listing(NamedTuple):
    """What a :class:`JudgmentLine` compares, with responses and policies in its order; many lines may share one."""

    comparison: str
    prompt: Prompt
    responses: tuple[str, ...]
    policies: tuple[str, ...]

    @property
    def name(self) -> str:
        """As that of a :class:`JudgmentLine`."""
        if self.comparison:
            return self.comparison
        return content_hash("unnamed comparison", messages_of(self.prompt) or self.prompt, sorted(self.responses))


class Decision(NamedTuple):
    """What a :class:`JudgmentLine` says of that; many lines may share one."""

    ranks: tuple[int, ...] | None
    kind: str
    order_known: bool = True
    ratings: Mapping[str, tuple[int, ...]] | None = None
    strength: float | None = None
    flags: tuple[str, ...] = ()
    reason: str = ""
    started_at: datetime | None = None
    submitted_at: datetime | None = None
    seconds: float | None = None
    withdrawn: bool = False
    metadata: Mapping[str, Any] = {}  # nobody changes it


class JudgmentParts(NamedTuple):
    """A :class:`JudgmentLine` in the parts that it may share with others."""

    listing: Listing
    annotator: str
    decision: Decision


@dataclass(frozen=True)
class GoldLine:
    """A comparison whose best response is known."""

    prompt: Prompt
    responses: tuple[str, ...]
    best: int


def parse_gold(values: Mapping[str, Any]) -> GoldLine:
    values = with_prompt(values)
    _check_keys(values, required=("prompt", "responses", "choice"), optional=())
    responses = _responses(values["responses"])
    return GoldLine(prompt_in(values), responses, _best(values["choice"], len(responses)))


def parse_prompt(values: Mapping[str, Any]) -> PromptLine:
    values = with_prompt(values)
    _check_keys(values, required=("prompt",), optional=("source", "user"))
    return PromptLine(prompt_in(values), optional_text(values, "source"), name_of(values, "user"))


def parse_demonstration(values: Mapping[str, Any]) -> DemonstrationLine:
    values = with_response(values)
    _check_keys(values, required=("prompt", "response"), optional=("source", "user"))
    return DemonstrationLine(
        prompt_in(values),
        _response(values["response"]),
        optional_text(values, "source"),
        name_of(values, "user"),
    )


def _check_keys(values: Mapping[str, Any], required: Collection[str], optional: Collection[str]) -> None:
    missing = [key for key in required if key not in values]
    if missing:
        raise BadLineError(f"`{missing[0]}` is missing")
    unknown = sorted(set(values) - set(required) - set(optional))
    if unknown:
        raise BadLineError(f"`{unknown[0][:40]}` is not a key here; known: {', '.join([*required, *optional])}")


def _response(value: Any) -> str:
    text = response_in(value, "`response`")
    if not text.strip():
        raise BadLineError("`response` is empty")
    return text


def _responses(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise BadLineError("`responses` is not a list of at least two texts")
    texts = [response_in(text, f"`responses[{index}]`") for index, text in enumerate(value)]
    stripped = [text.strip() for text in texts]
    if "" in stripped:
        raise BadLineError(f"`responses[{stripped.index('')}]` is empty")
    if len(set(stripped)) < len(stripped):
        raise BadLineError("the same response is there twice, so there is nothing to choose")
    return tuple(texts)


def _best(choice: Any, k: int) -> int:
    best = whole_number(choice)
    if best is None:
        raise BadLineError("a gold question has one best response: `choice` must be its number")
    if not 0 <= best < k:
        raise BadLineError(f"`choice` names response {str(choice)[:20]}, but there are only 0 to {k - 1}")
    return best
