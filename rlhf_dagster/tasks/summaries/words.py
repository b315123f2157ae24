"""The language of posts, articles and their summaries.

An event has six slots: ``who`` did what (``did``) with ``whose`` ``thing``, ``where`` and ``when``. A text tells each
event in two sentences, a main one and a detail, which share the thing; a summary tells it in one, in other words.

Each slot has words of its own. So a tiny model finds what it has to copy in a text about one event by the word alone,
and in one about two by the words beside it.
"""

from rlhf_dagster.tasks.language import Language

TLDR = "tl;dr"
"""What a prompt ends with (Ziegler et al. 2019, section 3.2, after Radford et al. 2019)."""
REPLY = "reply :"
"""What a reader's reply begins with, in the pretraining text."""
EVENT_SLOTS = ("who", "did", "thing", "whose", "where", "when")
MAIN = ("main_where", "main_when")
"""Kinds of main sentences; the detail says what the main one leaves out."""
DETAIL_OF = {"main_where": "detail_when", "main_when": "detail_where"}
SYNONYMS = {
    "lost": "misplaced",
    "found": "recovered",
    "sold": "traded",
    "broke": "damaged",
    "hid": "concealed",
    "stole": "took",
    "lent": "loaned",
    "painted": "coloured",
}
"""What a text says, and how a summary puts it."""
_PATTERNS = {
    "main_where": ("{who} {did} the {thing} at the {where} .", "at the {where} {who} {did} the {thing} ."),
    "main_when": ("{who} {did} the {thing} on {when} .", "on {when} {who} {did} the {thing} ."),
    "detail_when": (
        "the {thing} belonged to the {whose} and that was on {when} .",
        "that was on {when} and the {thing} belonged to the {whose} .",
    ),
    "detail_where": (
        "the {thing} of the {whose} was at the {where} .",
        "at the {where} was the {thing} of the {whose} .",
    ),
    "whole": (
        "{who} {did} the {whose} 's {thing} : {where} , {when} .",
        "{where} , {when} : {who} {did} the {whose} 's {thing} .",
    ),
    "core": ("{who} {did} the {thing} of the {whose} .",),
    "part": ("{who} {did} the {thing} .", "{who} {did} the {thing} : {where} .", "{who} {did} the {thing} : {when} ."),
    "plea": ("please help me .", "what should i do ?"),
    "preamble": (
        "hi all , sorry for the long post .",
        "i never write here , but i need help .",
        "this may sound silly , bear with me .",
        "first post here , so please be kind .",
    ),
    "chatter": (
        "the weather was {weather} .",
        "we had {food} for dinner .",
        "my phone rang twice .",
        "i could not sleep last night .",
        "my {relative} likes {food} a lot .",
        "it was a {weather} week .",
    ),
    "news": (
        "the weather stayed {weather} all week .",
        "the price of {food} went up again .",
        "the road was closed for hours .",
        "many people watched and said nothing .",
        "the police asked for more time .",
        "the trains were late again .",
    ),
}
_NAMES = "anna bob carl dina emil faye gus hana ivan jola karl lena max nora otto pia"
SUMMARY_LANGUAGE = Language(
    _PATTERNS,
    {
        "who": _NAMES.split(),
        "did": [*SYNONYMS, *SYNONYMS.values()],
        "whose": ["teacher", "doctor", "farmer", "baker", "sailor", "nurse", "judge", "clerk"],
        "thing": ["bike", "ring", "car", "watch", "hat", "boat", "key", "lamp", "book", "drum"],
        "where": ["park", "river", "school", "shop", "farm", "station", "beach", "museum"],
        "when": ["monday", "tuesday", "wednesday", "friday", "saturday", "sunday"],
        "weather": ["cold", "warm", "wet", "windy"],
        "food": ["soup", "fish", "rice", "bread"],
        "relative": ["mother", "brother", "neighbour", "boss"],
    },
)
