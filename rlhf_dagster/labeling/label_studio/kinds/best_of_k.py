"""Several responses, the best of which is marked."""

from collections.abc import Iterable
from typing import Any

from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Page, Result, Values, choices_in
from rlhf_dagster.labeling.label_studio.markup import CANNOT_KEY, answer_panel, heading, response_cards
from rlhf_dagster.labeling.label_studio.ranker import LETTERS
from rlhf_dagster.records.answers import UnreadableError

CANNOT_CHOICE = {"value": "Cannot decide", "alias": CANNOT_DECIDE, "hotkey": CANNOT_KEY}


class BestPage(Page):
    def instructions(self) -> str:
        return "Read the prompt and all responses, then mark the best one. Mark several if they are equally good."

    def markup(self) -> Iterable[str]:
        # The choices come with the task: some prompts have fewer distinct responses than others.
        choices = (
            '<Choices name="best" toName="prompt" choice="multiple" showInline="true" required="true" '
            'requiredMessage="Mark the best response, or skip the task." value="$choices"/>'
        )
        asked = answer_panel(heading("Which is best? (several, if equally good)"), choices)
        return [response_cards(self.room), asked]

    def controls(self, k: int) -> dict[str, Control]:
        return {"best": Control("choices")}

    def task_data(self, k: int) -> dict[str, Any]:
        letters = enumerate(LETTERS[:k].upper(), start=1)
        choices = [{"value": letter, "alias": letter, "hotkey": str(n)} for n, letter in letters]
        return {"choices": [*choices, CANNOT_CHOICE]}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        letters = LETTERS[:k].upper()
        chosen = choices_in(values, "best", [*letters, CANNOT_DECIDE])
        if chosen == [CANNOT_DECIDE]:
            return {"cannot_decide": True}
        if CANNOT_DECIDE in chosen:
            raise UnreadableError("`best` says that it cannot be decided and names a response.")
        if not chosen:
            raise UnreadableError("`best` names no response.")
        positions = sorted(letters.index(letter) for letter in chosen)
        return {"best": positions[0] if len(positions) == 1 else positions}

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"best": [CANNOT_DECIDE]}
        best = result["best"] if isinstance(result["best"], list) else [result["best"]]
        return {"best": [LETTERS[position].upper() for position in best]}
