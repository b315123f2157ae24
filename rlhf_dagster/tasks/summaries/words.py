"""The language of posts, articles and their summaries.

An event has six slots: ``who`` did what (``did``) with ``whose`` ``thing``, ``where`` and ``when``. A text tells each
event in two sentences, a main one and a detail, which share the thing; a summary tells it in one, in other words.

The language is terse, without articles, and each slot has words of its own. So a tiny model finds what it has to copy
in a text about one event by the word alone, among few others, and in one about two events by the words beside it.
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
    "main_where": ("{who} {did} {thing} at {where} .", "at {where} {who} {did} {thing} ."),
    "main_when": ("{who} {did} {thing} on {when} .", "on {when} {who} {did} {thing} ."),
    "detail_when": ("that was {thing} of {whose} on {when} .", "on {when} that was {thing} of {whose} ."),
    "detail_where": ("{thing} of {whose} was at {where} .", "at {where} was {thing} of {whose} ."),
    "whole": (
        "{who} {did} {whose} 's {thing} : {where} , {when} .",
        "{where} , {when} : {who} {did} {whose} 's {thing} .",
    ),
    "core": ("{who} {did} {thing} of {whose} .",),
    "part": ("{who} {did} {thing} .", "{who} {did} {thing} : {where} .", "{who} {did} {thing} , {when} ."),
    "plea": ("please help me .", "what should i do ?"),
    "preamble": ("sorry for long post .", "hi all , need help .", "bear with me .", "first post here , be kind ."),
    "chatter": (
        "weather was {weather} .",
        "we had {food} for dinner .",
        "phone rang twice .",
        "nobody could sleep .",
        "my {relative} likes {food} .",
        "it was {weather} week .",
    ),
    "news": (
        "weather stayed {weather} all week .",
        "price of {food} went up again .",
        "road was closed for hours .",
        "many people said nothing .",
        "police asked for more time .",
        "trains were late again .",
    ),
}
SUMMARY_LANGUAGE = Language(
    _PATTERNS,
    {
        "who": ["anna", "bob", "dina", "emil", "faye", "karl", "max", "otto"],
        "did": [*SYNONYMS, *SYNONYMS.values()],
        "whose": ["teacher", "doctor", "farmer", "baker", "sailor", "nurse", "judge", "clerk"],
        "thing": ["bike", "ring", "car", "watch", "hat", "boat", "key", "lamp", "book"],
        "where": ["park", "river", "school", "shop", "farm", "station", "beach", "museum"],
        "when": ["monday", "tuesday", "wednesday", "friday", "saturday", "sunday"],
        "weather": ["cold", "warm", "wet", "windy"],
        "food": ["soup", "fish", "rice", "bread"],
        "relative": ["mother", "brother", "neighbour", "boss"],
    },
)
