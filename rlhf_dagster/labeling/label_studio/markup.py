"""Pieces of XML that labelling pages are made of."""

from collections.abc import Callable, Iterable, Iterator
from xml.sax.saxutils import quoteattr

from rlhf_dagster.labeling.forms import STOP
from rlhf_dagster.labeling.label_studio.ranker import LETTERS
from rlhf_dagster.records.kinds import HIGHEST_RATING

KEYS = "123456789asdfghjklzxcvbnmrtyio"
"""Hotkeys of answers, in the order of the page. Label Studio itself uses `u`, and gives a control without a hotkey one
that another control may have; so every control gets one of these as long as any are left."""

CANNOT_KEY = "0"

FLAG_KEYS = "qwep"
"""Hotkeys of the flags. The one that asks to stop the training lies apart, so that nobody presses it by accident."""

SIDES = [("A is better", "A"), ("Tie", "tie"), ("B is better", "B")]

FLAG_CHOICES = [
    ("All are bad", "both_bad"),
    ("Unsafe content", "unsafe"),
    ("Broken prompt", "bad_prompt"),
    ("Stop the training: something is badly wrong", STOP),
]


def response_cards(k: int, above: Callable[[str], str] = lambda letter: "") -> str:
    """The responses; ``above`` gives what is asked about one response alone, shown above its text."""
    cards = [
        f'<View className="rl-card">{heading(f"Response {letter.upper()}")}{above(letter)}'
        f'<HyperText name="{letter}" value="${letter}_html" inline="true"/></View>'
        for letter in LETTERS[:k]
    ]
    return f'<View className="rl-cards{" rl-square" if k == 4 else ""}">\n' + "\n".join(cards) + "\n</View>"


def answer_panel(*controls: str, flags: list[tuple[str, str]] = FLAG_CHOICES) -> str:
    """What is asked, with the flags and the free reason of every page."""
    reason = (
        '<TextArea name="rationale" toName="prompt" rows="2" editable="true" maxSubmissions="1" '
        'showSubmitButton="false" placeholder="Why? (optional)"/>'
    )
    marks = choice_row("flags", flags, iter(FLAG_KEYS[-len(flags) :]), multiple=True)
    asked = [*controls, '<View className="rl-extras">', marks, reason, "</View>"]
    return '<View className="rl-answer">\n' + "\n".join(asked) + "\n</View>"


def choice_row(
    name: str,
    options: Iterable[tuple[str, str]],
    keys: Iterator[str],
    cannot: bool = False,
    required: str = "",
    multiple: bool = False,
    unless: str = "",
) -> str:
    """A row of choices, with the next ``keys`` and, with ``cannot``, a last choice not to decide."""
    lines = [_choice(words, alias, next(keys, None)) for words, alias in options]
    if cannot:
        lines.append(_choice("Cannot decide", "cannot_decide", CANNOT_KEY))
    needed = f' required="true" requiredMessage={quoteattr(required)}' if required else ""
    choice = "multiple" if multiple else "single-radio"
    shown = f" {unless}" if unless else ""
    head = f'<Choices name={quoteattr(name)} toName="prompt" choice="{choice}" showInline="true"{needed}{shown}>'
    return "\n".join([head, *lines, "</Choices>"])


def _choice(words: str, alias: str, key: str | None) -> str:
    return f"<Choice value={quoteattr(words)} alias={quoteattr(alias)}{_hotkey(key)}/>"


def star_scale(name: str, letter: str, words: str, keys: Iterator[str]) -> str:
    key = next(keys, None)
    stars = (
        f'<Rating name={quoteattr(name)} toName="{letter}" maxRating="{HIGHEST_RATING}" size="small" required="true" '
        f"requiredMessage={quoteattr(f'Rate {words} of response {letter.upper()} too, or skip the task.')}"
        f"{_hotkey(key)}/>"
    )
    # Label Studio shows the keys of choices, not those of stars.
    return heading(f"{words} [{key}]" if key else words) + stars


def unless_chosen(control: str, alias: str) -> str:
    """Attributes of what is hidden, and need not be answered, while a choice is made."""
    return f'visibleWhen="choice-unselected" whenTagName="{control}" whenChoiceValue="{alias}"'


def _hotkey(key: str | None) -> str:
    return f' hotkey="{key}"' if key else ""


def heading(words: str) -> str:
    return f'<Header value={quoteattr(words)} size="5"/>'


def axis_words(axis: str) -> str:
    return axis.replace("_", " ").capitalize()
