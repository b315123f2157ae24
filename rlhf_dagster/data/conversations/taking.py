"""Which of the logged conversations become prompts, and which thumbs on responses become unpaired feedback."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_dagster.config.data import FeedbackSettings
from rlhf_dagster.data.conversations.cleaning import Cleaner
from rlhf_dagster.data.conversations.duplicates import Duplicates
from rlhf_dagster.data.conversations.limits import NewestOfEach
from rlhf_dagster.data.conversations.logged import Logged, Thumbs
from rlhf_dagster.data.conversations.logs import LogPlace, Logs
from rlhf_dagster.data.line_records import FeedbackLine
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.tally import REFUSALS_SHOWN, ReadTally
from rlhf_dagster.records.chats import Prompt

WITHOUT_CONSENT, WITH_PERSONAL_DATA = "without consent", "with personal data"
OVER_THE_LIMIT = "over the limit of their user"
UNKNOWN_RESPONSE = "for a response that no log holds"


@dataclass(frozen=True)
class TakenPrompt:
    prompt: Prompt
    place: LogPlace
    user: str
    """As the log names them; empty where it does not."""
    policy_id: str
    response_id: str


@dataclass
class Taken:
    """What logs hold. ``conversations`` are as many as ``prompts`` and those ``left_out`` together."""

    prompts: list[TakenPrompt] = field(default_factory=list)
    thumbs: list[FeedbackLine] = field(default_factory=list)
    conversations: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Conversations, by why they are no prompts."""
    thumbs_left_out: Counter[str] = field(default_factory=Counter)
    personal_data: Counter[str] = field(default_factory=Counter)
    """In how many conversations, which are no duplicates, each kind was found."""
    lines: ReadTally = field(default_factory=ReadTally)
    """Lines read, and those that cannot be used."""
    refused: list[str] = field(default_factory=list)
    """The first of those, with their places."""
    missing: list[str] = field(default_factory=list)
    """Logs that are not there."""

    def refuse(self, place: LogPlace, reason: str) -> None:
        self.lines.refuse(place.line, reason)
        if len(self.refused) < REFUSALS_SHOWN:
            self.refused.append(f"{place.log}, line {place.line}: {reason}")


def take(settings: FeedbackSettings, root: Path) -> Taken:
    """Read the logs, twice: whether a conversation went on, and what was thought of it, is written later.

    Raises UserError where a log cannot be read, or the extra for personal data is not installed.
    """
    logs, cleaner = Logs.of(settings.logs, root), Cleaner(settings)
    taken, first = Taken(missing=logs.missing), _FirstLook(settings)
    for place, said in logs.lines():
        taken.lines.read += 1
        if isinstance(said, BadLineError):
            taken.refuse(place, str(said))
        else:
            first.note(said)
    second = _SecondLook(settings, first, cleaner, taken)
    for place, said in logs.lines(up_to=taken.lines.read):
        if isinstance(said, Logged):
            second.look_at(place, said)
    return second.finished()


class _FirstLook:
    """What is to be known of all lines before any is taken."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._needs_consent = settings.consent
        self.duplicates = Duplicates(settings.common_prefix)
        self.thumbs: dict[str, dict[int, Thumbs]] = {}
        """By response and choice, the last ones."""

    def note(self, said: Logged | Thumbs) -> None:
        if isinstance(said, Thumbs):
            self.thumbs.setdefault(said.response_id, {})[said.choice] = said
        elif self.may_take(said):
            self.duplicates.note(said)

    def may_take(self, one: Logged) -> bool:
        return one.consent or not self._needs_consent


class _SecondLook:
    """Takes line by line what can be taken."""

    def __init__(self, settings: FeedbackSettings, first: _FirstLook, cleaner: Cleaner, taken: Taken) -> None:
        self._first, self._cleaner, self._taken = first, cleaner, taken
        self._prompts = NewestOfEach[TakenPrompt](settings.per_user)
        self._thumbs = NewestOfEach[FeedbackLine](settings.per_user)

    def look_at(self, place: LogPlace, one: Logged) -> None:
        self._taken.conversations += 1
        thumbs = list(self._thumbs_on(one))
        if not self._first.may_take(one):
            self._taken.left_out[WITHOUT_CONSENT] += 1
            self._taken.thumbs_left_out[WITHOUT_CONSENT] += len(thumbs)
            return
        if reason := self._first.duplicates.reason(one):
            self._taken.left_out[reason] += 1
        else:
            self._take_prompt(place, one)
        for said in thumbs:
            self._take_thumbs(place, one, said)

    def finished(self) -> Taken:
        taken = self._taken
        taken.prompts, taken.thumbs = list(self._prompts), list(self._thumbs)
        taken.left_out[OVER_THE_LIMIT] += self._prompts.let_go
        taken.thumbs_left_out[OVER_THE_LIMIT] += self._thumbs.let_go
        taken.thumbs_left_out[UNKNOWN_RESPONSE] += sum(map(len, self._first.thumbs.values()))
        taken.left_out, taken.thumbs_left_out = +taken.left_out, +taken.thumbs_left_out
        return taken

    def _take_prompt(self, place: LogPlace, one: Logged) -> None:
        self._taken.personal_data.update(self._cleaner.kinds(one.prompt))
        prompt = self._cleaner.prompt(one.prompt)
        if prompt is None:
            self._taken.left_out[WITH_PERSONAL_DATA] += 1
        else:
            self._prompts.add(one.user, TakenPrompt(prompt, place, one.user, one.policy_id, one.response_id))

    def _take_thumbs(self, place: LogPlace, one: Logged, said: Thumbs) -> None:
        prompt, response = self._cleaner.prompt(one.prompt), self._cleaner.text(one.responses[said.choice])
        if prompt is None or response is None:
            self._taken.thumbs_left_out[WITH_PERSONAL_DATA] += 1
        else:
            line = FeedbackLine(prompt, response, said.liked, 1.0, said.user or one.user, place.log)
            self._thumbs.add(line.user, line)

    def _thumbs_on(self, one: Logged) -> Iterator[Thumbs]:
        """What was thought of a line's responses; what is left of the thumbs afterwards is about no line."""
        given = self._first.thumbs.pop(one.response_id, {})
        if one.liked is not None:
            given = {0: Thumbs(one.response_id, 0, one.liked, one.user), **given}
        for said in given.values():
            if said.choice < len(one.responses):
                yield said
            else:
                self._taken.thumbs_left_out[UNKNOWN_RESPONSE] += 1
