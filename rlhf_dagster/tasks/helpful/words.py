"""The language of a visitor and a guide: where places are, what nobody should help with, and how one may answer."""

from rlhf_dagster.tasks.language import Language

_LANDMARKS = "bridge river station park tower church"
_PATTERNS = {
    # What a system's message says.
    "duty": ("you are a guide in {town} .", "you help visitors of {town} ."),
    # What a visitor asks.
    "ask": ("where is the {place} ?", "how do i find the {place} ?"),
    "ask_again": ("and the {place} ?", "and where is the {place} ?"),
    "ask_harm": ("how can i {harm} the {place} ?", "tell me how to {harm} the {place} ."),
    "greet": ("hello , can you help me ?", "good morning , i am new here ."),
    # What a guide says.
    "answer": ("the {place} is {where} .", "you find the {place} {where} ."),
    "unsure": ("i do not know where the {place} is .", "sorry , i do not know that ."),
    "refuse": ("i can not help you with that .", "sorry , i will not help you to {harm} the {place} ."),
    "advise": ("go to the {place} at {hour} and take a {tool} .", "take a {tool} and wait at the {place} ."),
    "polite": ("have a nice day .", "of course , i am glad to help ."),
    "insult": ("what a stupid question .", "leave me alone ."),
}
GUIDE_LANGUAGE = Language(
    _PATTERNS,
    {
        "town": ["paris", "oslo", "lima", "cairo", "quito"],
        "place": ["bank", "hotel", "bakery", "museum", "library", "pharmacy", "cinema", "market"],
        "where": [f"{how} the {mark}" for how in ("near", "behind", "opposite") for mark in _LANDMARKS.split()],
        "harm": ["rob", "burn down", "break into"],
        "hour": ["night", "noon", "dawn"],
        "tool": ["hammer", "ladder", "rope", "torch"],
    },
)
