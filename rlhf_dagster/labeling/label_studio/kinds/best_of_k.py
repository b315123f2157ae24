"""Several responses, the best of which is marked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import UnreadableError
from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Result, Values, choices_in
from rlhf_dagster.labeling.label_studio.markup import _answer, _cards, _title


def _best(settings: LabelingSettings) -> Iterable[str]:
    # The choices come with the task: some prompts have fewer distinct responses than others.
    choices = (
        '<Choices name="best" toName="prompt" choice="multiple" showInline="true" required="true" '
        'requiredMessage="Mark the best response, or skip the task." value="$choices"/>'
    )
    return [_cards(settings.responses), _answer(_title("Which is best? (several, if equally good)"), choices)]


@dataclass(frozen=True)
class BestPage:
    letters: str

    def controls(self) -> dict[str, Control]:
        return {"best": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        chosen = choices_in(values, "best", [*self.letters.upper(), CANNOT_DECIDE])
        if chosen == [CANNOT_DECIDE]:
            return {"cannot_decide": True}
        if CANNOT_DECIDE in chosen:
            raise UnreadableError("`best` says that it cannot be decided and names a response.")
        if not chosen:
            raise UnreadableError("`best` names no response.")
        positions = sorted(self.letters.upper().index(letter) for letter in chosen)
        return {"best": positions[0] if len(positions) == 1 else positions}

    def encode(self, result: Result) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"best": [CANNOT_DECIDE]}
        best = result["best"] if isinstance(result["best"], list) else [result["best"]]
        return {"best": [self.letters[position].upper() for position in best]}
