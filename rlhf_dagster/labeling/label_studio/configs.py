"""Labelling configs: what a Label Studio page shows for each kind of comparison, and what it asks.

Aliases, not the words on the screen, are what is stored. Names of controls are those that
:mod:`rlhf_dagster.labeling.label_studio.kinds` reads.
"""

from collections.abc import Callable, Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from rlhf_dagster.labeling.forms import HIGHEST_RATING, STOP
from rlhf_dagster.labeling.label_studio.html import to_html
from rlhf_dagster.labeling.label_studio.ranker import BUCKETS, LETTERS
from rlhf_dagster.labeling.label_studio.style import STYLE
from rlhf_dagster.labeling.settings import LabelingSettings
from rlhf_dagster.lineage.ids import content_hash

KEYS = "123456789asdfghjklzxcvbnmrtyio"
"""Hotkeys of answers, in the order of the page. Label Studio itself takes `u`; a control without a key of its own would
be given one of these, so every control has one as long as there are any."""
CANNOT_KEY = "0"
FLAG_KEYS = "qwep"
"""The key that asks to stop the training lies apart, so that no slip of a finger presses it."""

INSTRUCTIONS = {
    "pair": "Read the prompt and both responses, then say which response is better{strength}.",
    "best_of_k": "Read the prompt and all responses, then mark the best one. Mark several if they are equally good.",
    "ranking": "Read the prompt and all responses, then drag every letter into a rank, **1** being the best. Responses "
    "of the same rank are equally good. When all have a rank, mark the order as final. On the keyboard: Tab to a "
    "letter, Space to lift it, arrow keys to move it, Space to drop it.",
    "rating": "Rate every response from 1 star (very poor) to 7 stars (excellent) on every scale. Each press of a "
    "scale's key adds a star.",
    "demonstration": "Write the response that an ideal assistant would give to this prompt. Markdown is allowed. "
    "`Shift+Enter` keeps what you have written so far; the pencil beside it changes it again.",
    "evaluation": "Read the prompt and both responses, then say which is better.",
}
JUDGING = """
Judge what is written, not how long it is. The order of the responses means nothing.

- *Cannot decide*: you have read everything and could go either way, or you lack the knowledge.
- **Skip**: you do not want to judge this task at all.
- Mark what applies: *All are bad*, *Unsafe content*, *Broken prompt*. A sentence on why is welcome.
- *Stop the training* if something is badly wrong with the tasks as a whole, and say what.
"""
KEYBOARD = """
The keys in brackets choose, `Ctrl+Enter` submits, `Ctrl+Space` skips. In a text field, press `Shift+Enter` first.
"""


def labelling_config(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """The XML of the page on which a kind of comparison is judged (or a demonstration written)."""
    page = _AB_PAGE if (kind, purpose) == ("pair", "evaluation") else _PAGES[kind]
    parts = [f"<Style>{escape(STYLE)}</Style>", _PROMPT, *page(settings)]
    return "<View>\n" + "\n".join(parts) + "\n</View>\n"


def instructions_html(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """What annotators are told before they begin: the settings' own words, or general ones for the kind."""
    if settings.instructions.strip():
        return _as_text(settings.instructions)
    words = INSTRUCTIONS["evaluation" if purpose == "evaluation" else kind]
    strength = ", and how much better" if settings.strength else ""
    judging = "" if kind == "demonstration" else JUDGING
    return _as_text(words.format(strength=strength) + "\n" + judging + KEYBOARD)


def _as_text(markdown: str) -> str:
    """With the styles that texts have on the page: it is shown in front of one."""
    return f'<div class="rl-text">{to_html(markdown)}</div>'


def config_hash(xml: str) -> str:
    """Tells one labelling page from another."""
    return content_hash("labelling config", xml)


def _pair(settings: LabelingSettings) -> Iterable[str]:
    strong = [("A is much better", "A2"), ("A is slightly better", "A1"), ("Tie", "tie")]
    strong += [("B is slightly better", "B1"), ("B is much better", "B2")]
    options = strong if settings.strength else _SIDES
    asked = _choices("preference", options, iter(KEYS), cannot=True, required="Choose one, or skip the task.")
    return [_cards(2), _answer(asked)]


def _best(settings: LabelingSettings) -> Iterable[str]:
    # The choices come with the task: some prompts have fewer distinct responses than others.
    choices = (
        '<Choices name="best" toName="prompt" choice="multiple" showInline="true" required="true" '
        'requiredMessage="Mark the best response, or skip the task." value="$choices"/>'
    )
    return [_cards(settings.responses), _answer(_title("Which is best? (several, if equally good)"), choices)]


def _ranking(settings: LabelingSettings) -> Iterable[str]:
    ranks = range(1, settings.responses + 1)
    titles = {rank: f"{rank} (best)" if rank == 1 else str(rank) for rank in ranks}
    buckets = [f"<Bucket name={quoteattr(BUCKETS[rank - 1])} title={quoteattr(titles[rank])}/>" for rank in ranks]
    ranker = ['<Ranker name="rank" toName="responses" collapsible="false">', *buckets, "</Ranker>"]
    final = [("Order is final", "final")]
    status = _choices(
        "rank_status", final, iter(KEYS), cannot=True, required="Say whether the order is final, or skip the task."
    )
    items = '<List name="responses" value="$items" title="Not ranked"/>'
    return [_cards(settings.responses), _answer(items, "\n".join(ranker), status)]


def _rating(settings: LabelingSettings) -> Iterable[str]:
    keys = iter(KEYS)

    def stars(letter: str) -> str:
        scales = [_scale(f"{letter}_{axis}", letter, _words(axis), keys) for axis in settings.rating_axes]
        there = f'<View className="rl-ratings" {_unless("absent", letter.upper())}>' + "\n".join(scales) + "</View>"
        return f"<View {_unless('rating_status', 'cannot_decide')}>{there}</View>"

    # What is hidden need not be answered: all stars where it cannot be decided, and those of a response that a task
    # does not have. That comes with the task, as a choice made already.
    absent = '<Choices name="absent" toName="prompt" choice="multiple" value="$absent"/>'
    status = _choices("rating_status", [], keys, cannot=True, multiple=True)
    cards = _cards(settings.responses, stars)
    return [f'<View className="rl-absences">{absent}</View>', cards, _answer(status)]


def _ab(settings: LabelingSettings) -> Iterable[str]:
    keys, decided = iter(KEYS), _unless("overall", "cannot_decide")
    axes = []
    for axis in settings.evaluation_axes:
        required = f"Choose for {_words(axis)} too, or skip the task."
        asked = _choices(f"axis_{axis}", _SIDES, keys, required=required, unless=decided)
        axes.append(f"<View {decided}>{_title(_words(axis))}{asked}</View>")
    overall = _choices("overall", _SIDES, keys, cannot=True, required="Choose one overall, or skip the task.")
    row = ['<View className="rl-axes">', *axes, "</View>"] if axes else []
    return [_cards(2), _answer(*row, _title("Overall"), overall)]


def _demonstration(_: LabelingSettings) -> Iterable[str]:
    text = (
        '<TextArea name="demonstration" toName="prompt" rows="14" editable="true" maxSubmissions="1" required="true" '
        'requiredMessage="Write a response, or skip the task." showSubmitButton="false" '
        'placeholder="The ideal response (Markdown allowed)"/>'
    )
    return [text, _answer(flags=_FLAGS[1:])]


_SIDES = [("A is better", "A"), ("Tie", "tie"), ("B is better", "B")]
_FLAGS = [
    ("All are bad", "both_bad"),
    ("Unsafe content", "unsafe"),
    ("Broken prompt", "bad_prompt"),
    ("Stop the training: something is badly wrong", STOP),
]
_PROMPT = '<View className="rl-prompt"><HyperText name="prompt" value="$prompt_html" inline="true"/></View>'
_PAGES: dict[str, Callable[[LabelingSettings], Iterable[str]]] = {
    "pair": _pair,
    "best_of_k": _best,
    "ranking": _ranking,
    "rating": _rating,
    "demonstration": _demonstration,
}
_AB_PAGE = _ab


def _cards(k: int, above: Callable[[str], str] = lambda letter: "") -> str:
    """The responses; what is ``above`` a text is asked about it alone."""
    cards = [
        f'<View className="rl-card">{_title(f"Response {letter.upper()}")}{above(letter)}'
        f'<HyperText name="{letter}" value="${letter}_html" inline="true"/></View>'
        for letter in LETTERS[:k]
    ]
    return f'<View className="rl-cards{" rl-square" if k == 4 else ""}">\n' + "\n".join(cards) + "\n</View>"


def _answer(*controls: str, flags: list[tuple[str, str]] = _FLAGS) -> str:
    """What is asked, with the flags and the free reason of every page."""
    reason = (
        '<TextArea name="rationale" toName="prompt" rows="2" editable="true" maxSubmissions="1" '
        'showSubmitButton="false" placeholder="Why? (optional)"/>'
    )
    marks = _choices("flags", flags, iter(FLAG_KEYS[-len(flags) :]), multiple=True)
    asked = [*controls, '<View className="rl-extras">', marks, reason, "</View>"]
    return '<View className="rl-answer">\n' + "\n".join(asked) + "\n</View>"


def _choices(
    name: str,
    options: Iterable[tuple[str, str]],
    keys: Iterator[str],
    cannot: bool = False,
    required: str = "",
    multiple: bool = False,
    unless: str = "",
) -> str:
    """A row of choices, with the next ``keys`` and, at the end, the choice not to decide."""
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


def _scale(name: str, letter: str, words: str, keys: Iterator[str]) -> str:
    key = next(keys, None)
    stars = (
        f'<Rating name={quoteattr(name)} toName="{letter}" maxRating="{HIGHEST_RATING}" size="small" required="true" '
        f"requiredMessage={quoteattr(f'Rate {words} of response {letter.upper()} too, or skip the task.')}"
        f"{_hotkey(key)}/>"
    )
    # Label Studio shows the keys of choices, not those of stars.
    return _title(f"{words} [{key}]" if key else words) + stars


def _unless(control: str, alias: str) -> str:
    """Attributes of what is hidden, and need not be answered, while a choice is made."""
    return f'visibleWhen="choice-unselected" whenTagName="{control}" whenChoiceValue="{alias}"'


def _hotkey(key: str | None) -> str:
    return f' hotkey="{key}"' if key else ""


def _title(words: str) -> str:
    return f'<Header value={quoteattr(words)} size="5"/>'


def _words(axis: str) -> str:
    return axis.replace("_", " ").capitalize()
