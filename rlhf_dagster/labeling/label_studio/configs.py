"""Labelling configs: what a Label Studio page shows for each kind of comparison, and what it asks.

Aliases, not the words on the screen, are what is stored. Names of controls are those that
:mod:`rlhf_dagster.labeling.label_studio.kinds` reads.
"""

from collections.abc import Callable, Iterable
from xml.sax.saxutils import quoteattr

from rlhf_dagster.labeling.forms import HIGHEST_RATING
from rlhf_dagster.labeling.label_studio.html import to_html
from rlhf_dagster.labeling.label_studio.ranker import BUCKETS, LETTERS
from rlhf_dagster.labeling.settings import LabelingSettings
from rlhf_dagster.lineage.ids import content_hash

_TEXT = ".rl-prompt, .rl-card, .htx-ranker-item"
"""Where text of models is shown; the styles are Markdown's, which Label Studio's own reset takes away."""
STYLE = f"""
.rl-prompt {{ border-left: 4px solid #888; padding: 4px 12px; margin-bottom: 10px; }}
.rl-cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 12px;
  margin-bottom: 10px; }}
.rl-card {{ min-width: 0; border: 1px solid #bbb; border-radius: 6px; padding: 8px 12px; overflow: auto;
  max-height: 60vh; }}
.rl-card:has(.rl-absent) {{ display: none; }}
.rl-turn {{ margin: 0 0 10px; }}
.rl-role {{ font-weight: 600; font-size: 12px; text-transform: uppercase; opacity: .65; }}
.rl-empty {{ opacity: .55; font-style: italic; }}
.htx-ranker-item {{ overflow-wrap: anywhere; }}
.htx-ranker-item > p:last-child {{ display: none; }}
:is({_TEXT}) p {{ margin: 0 0 8px; }}
:is({_TEXT}) pre {{ white-space: pre-wrap; background: rgba(127,127,127,.14); padding: 8px; border-radius: 4px;
  margin: 6px 0; }}
:is({_TEXT}) code {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13px; }}
:is({_TEXT}) ul {{ list-style: disc; padding-left: 20px; }}
:is({_TEXT}) ol {{ list-style: decimal; padding-left: 20px; }}
:is({_TEXT}) blockquote {{ border-left: 3px solid #999; padding-left: 10px; opacity: .85; }}
:is({_TEXT}) :is(td, th) {{ border: 1px solid #999; padding: 2px 8px; }}
"""

INSTRUCTIONS = {
    "pair": "Read the prompt and both responses, then say which response is better{strength}.",
    "best_of_k": "Read the prompt and all responses, then mark the best one. Mark several if they are equally good.",
    "ranking": "Drag every response into a rank, 1 being the best. Responses of the same rank are equally good. When "
    "all are placed, mark the order as final.",
    "rating": "Give every response a rating from 1 (very poor) to 7 (excellent) on every scale. If you cannot rate "
    "them, clear the stars and mark *Cannot decide*.",
    "demonstration": "Write the response that an ideal assistant would give to this prompt. Markdown is allowed.",
    "evaluation": "Read the prompt and both responses, then say which is better.",
}
GENERAL = """
Judge what is written, not how long it is. The order of the responses means nothing. *Cannot decide* is an honest
answer where you have read everything and could go either way, or lack the knowledge; **Skip** is for a task that
you do not want to judge at all. Mark what applies: *All are bad*, *Unsafe content*, *Broken prompt*. A sentence on why
is welcome.

The digits on your keyboard choose, **Ctrl+Enter** submits, **Ctrl+Space** skips.
"""


def labelling_config(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """The XML of the page on which a kind of comparison is judged (or a demonstration written)."""
    body = _AB_PAGE if (kind, purpose) == ("pair", "evaluation") else _PAGES[kind]
    parts = [f"<Style>{STYLE}</Style>", _PROMPT, *body(settings), *_extras(kind)]
    return "<View>\n" + "\n".join(parts) + "\n</View>\n"


def instructions_html(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """What annotators are told before they begin: the settings' own words, or general ones for the kind."""
    if settings.instructions.strip():
        return to_html(settings.instructions)
    words = INSTRUCTIONS["evaluation" if purpose == "evaluation" else kind]
    strength = ", and how much better" if settings.strength else ""
    return to_html(words.format(strength=strength) + "\n" + GENERAL)


def config_hash(xml: str) -> str:
    """Tells one labelling page from another."""
    return content_hash("labelling config", xml)


def _pair(settings: LabelingSettings) -> Iterable[str]:
    strong = [("A is much better", "A2"), ("A is slightly better", "A1"), ("Tie", "tie")]
    strong += [("B is slightly better", "B1"), ("B is much better", "B2")]
    plain = [("A is better", "A"), ("Tie", "tie"), ("B is better", "B")]
    options = [*(strong if settings.strength else plain), _CANNOT]
    return [_cards(2), _choices("preference", options, required="Choose one, or skip the task.")]


def _best(settings: LabelingSettings) -> Iterable[str]:
    # The choices come with the task: some prompts have fewer distinct responses than others.
    choices = (
        '<Choices name="best" toName="prompt" choice="multiple" showInline="true" required="true" '
        'requiredMessage="Mark the best response, or skip the task." value="$choices"/>'
    )
    return [_cards(settings.responses), _title("Which response is best? (several, if equally good)"), choices]


def _ranking(settings: LabelingSettings) -> Iterable[str]:
    ranks = range(1, settings.responses + 1)
    titles = {rank: f"{rank} (best)" if rank == 1 else str(rank) for rank in ranks}
    buckets = [f"<Bucket name={quoteattr(BUCKETS[rank - 1])} title={quoteattr(titles[rank])}/>" for rank in ranks]
    ranker = ['<Ranker name="rank" toName="responses" collapsible="false">', *buckets, "</Ranker>"]
    status = [("Order is final", "final"), _CANNOT]
    return [
        '<List name="responses" value="$items" title="Not ranked yet"/>',
        "\n".join(ranker),
        _choices("rank_status", status, required="Say whether the order is final, or skip the task."),
    ]


def _rating(settings: LabelingSettings) -> Iterable[str]:
    def stars(letter: str) -> str:
        return "".join(
            f"{_title(_words(axis), size=5)}"
            f'<Rating name="{letter}_{axis}" toName="{letter}" maxRating="{HIGHEST_RATING}"/>'
            for axis in settings.rating_axes
        )

    return [_cards(settings.responses, stars), _choices("rating_status", [_CANNOT], multiple=True)]


def _ab(settings: LabelingSettings) -> Iterable[str]:
    options = [("A is better", "A"), ("Tie", "tie"), ("B is better", "B")]
    axes = [
        _title(_words(axis), size=5)
        + _choices(f"axis_{axis}", options, required=f"Choose for {_words(axis)} too.", hotkeys=False)
        for axis in settings.evaluation_axes
    ]
    overall = _choices("overall", [*options, _CANNOT], required="Choose one overall, or skip the task.")
    return [_cards(2), *axes, _title("Overall", size=5), overall]


def _demonstration(_: LabelingSettings) -> Iterable[str]:
    return [
        '<TextArea name="demonstration" toName="prompt" rows="12" editable="true" maxSubmissions="1" required="true" '
        'requiredMessage="Write a response, or skip the task." placeholder="The ideal response (Markdown allowed)"/>'
    ]


_CANNOT = ("Cannot decide", "cannot_decide")
_PROMPT = '<View className="rl-prompt"><HyperText name="prompt" value="$prompt_html" inline="true"/></View>'
_PAGES: dict[str, Callable[[LabelingSettings], Iterable[str]]] = {
    "pair": _pair,
    "best_of_k": _best,
    "ranking": _ranking,
    "rating": _rating,
    "demonstration": _demonstration,
}
_AB_PAGE = _ab


def _extras(kind: str) -> list[str]:
    """Flags and a free reason, on every page; their hotkeys come after those of any answer."""
    flags = [("All are bad", "both_bad"), ("Unsafe content", "unsafe"), ("Broken prompt", "bad_prompt")]
    shown = flags[1:] if kind == "demonstration" else flags
    return [
        _choices("flags", shown, multiple=True, hotkeys=False),
        '<TextArea name="rationale" toName="prompt" rows="2" editable="true" maxSubmissions="1" '
        'placeholder="Why? (optional)"/>',
    ]


def _cards(k: int, below: Callable[[str], str] = lambda letter: "") -> str:
    cards = [
        f'<View className="rl-card">{_title(f"Response {letter.upper()}", size=4)}'
        f'<HyperText name="{letter}" value="${letter}_html" inline="true"/>{below(letter)}</View>'
        for letter in LETTERS[:k]
    ]
    return '<View className="rl-cards">\n' + "\n".join(cards) + "\n</View>"


def _choices(
    name: str,
    options: Iterable[tuple[str, str]],
    required: str = "",
    multiple: bool = False,
    hotkeys: bool = True,
) -> str:
    """A row of choices; the digits choose, from 1."""
    lines = [
        f"<Choice value={quoteattr(words)} alias={quoteattr(alias)}" + (f' hotkey="{number}"' if hotkeys else "") + "/>"
        for number, (words, alias) in enumerate(options, start=1)
    ]
    needed = f' required="true" requiredMessage={quoteattr(required)}' if required else ""
    choice = "multiple" if multiple else "single-radio"
    head = f'<Choices name={quoteattr(name)} toName="prompt" choice="{choice}" showInline="true"{needed}>'
    return "\n".join([head, *lines, "</Choices>"])


def _title(words: str, size: int = 4) -> str:
    return f'<Header value={quoteattr(words)} size="{size}"/>'


def _words(axis: str) -> str:
    return axis.replace("_", " ").capitalize()
