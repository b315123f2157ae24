"""A prompt, to which a response is written."""

from collections.abc import Iterable
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import UnreadableError
from rlhf_dagster.labeling.label_studio.kinds.base import Control, Result, Values
from rlhf_dagster.labeling.label_studio.markup import _FLAGS, _answer


def _demonstration(_: LabelingSettings) -> Iterable[str]:
    text = (
        '<TextArea name="demonstration" toName="prompt" rows="14" editable="true" maxSubmissions="1" required="true" '
        'requiredMessage="Write a response, or skip the task." showSubmitButton="false" '
        'placeholder="The ideal response (Markdown allowed)"/>'
    )
    return [text, _answer(flags=_FLAGS[1:])]


class DemonstrationPage:
    def controls(self) -> dict[str, Control]:
        return {"demonstration": Control("textarea")}

    def decode(self, values: Values) -> dict[str, Any]:
        texts = values.get("demonstration", [])
        if len(texts) != 1:
            raise UnreadableError(f"`demonstration` holds {len(texts)} texts, not one.")
        return {"text": texts[0]}

    def encode(self, result: Result) -> dict[str, Any]:
        return {"demonstration": [result["text"]]}
