"""A prompt, to which a response is written."""

from collections.abc import Iterable
from typing import Any

from rlhf_dagster.labeling.label_studio.kinds.base import Control, Page, Result, Values
from rlhf_dagster.labeling.label_studio.markup import FLAG_CHOICES, answer_panel
from rlhf_dagster.records.answers import UnreadableError, written_text


class DemonstrationPage(Page):
    advice = ""

    @property
    def room(self) -> int:
        return 0

    def instructions(self) -> str:
        return (
            "Write the response that an ideal assistant would give to this prompt. Markdown is allowed. `Shift+Enter` "
            "keeps what you have written so far; the pencil beside it changes it again."
        )

    def markup(self) -> Iterable[str]:
        text = (
            '<TextArea name="demonstration" toName="prompt" rows="14" editable="true" maxSubmissions="1" '
            'required="true" requiredMessage="Write a response, or skip the task." showSubmitButton="false" '
            'placeholder="The ideal response (Markdown allowed)"/>'
        )
        return [text, answer_panel(flags=FLAG_CHOICES[1:])]

    def controls(self, k: int) -> dict[str, Control]:
        return {"demonstration": Control("textarea")}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        texts = values.get("demonstration", [])
        if len(texts) != 1:
            raise UnreadableError(f"`demonstration` holds {len(texts)} texts, not one.")
        return {"text": written_text(texts[0], "text")}

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        return {"demonstration": [result["text"]]}
