"""The language of stories: places, what stands there, and words for what eyes, hands, noses and ears notice."""

from rlhf_dagster.tasks.language import Language

PLAIN_WORD, VIVID_WORD = 1.0, 2.0
SENSES: dict[str, tuple[str, str]] = {
    "colour": ("red green blue grey brown white black", "crimson golden silver violet scarlet"),
    "shape": ("big small long round tall flat", "jagged crooked slender massive narrow"),
    "touch": ("soft hard wet cold warm dry", "velvety rough slippery frozen sticky"),
    "scent": ("smoke salt soap bread", "moss cinnamon pine honey tar"),
    "sound": ("loud low dull faint", "rustling creaking humming hissing"),
}
"""Slot -> (words of strength PLAIN_WORD, words of strength VIVID_WORD)."""
STRENGTH_OF = {
    word: (sense, strength)
    for sense, graded in SENSES.items()
    for words, strength in zip(graded, (PLAIN_WORD, VIVID_WORD), strict=True)
    for word in words.split()
}
"""The sense that a word is about, and how much it shows."""
PLACES: dict[str, str] = {
    "forest": "tree path branch stone stream bush",
    "harbour": "ship rope wall barrel sail pier",
    "kitchen": "table pot stove cup spoon shelf",
    "market": "stall basket cart cloth jar crate",
    "castle": "tower gate stair door banner throne",
}
"""Place -> the things there."""
_OF_A_PLACE = {
    "seen": (
        "the {thing} was {colour} and {shape} .",
        "a {shape} {thing} stood beside the {colour} {thing2} .",
        "the {colour} {thing} felt {touch} and {touch2} .",
        "{colour} light fell on the {shape} {thing} .",
        "the {thing} smelled of {scent} and {scent2} .",
        "from the {shape} {thing} came a {sound} noise .",
        "behind the {touch} {thing} was a {colour} {thing2} .",
        "there was a {sound} noise and a smell of {scent} .",
        "the {thing} had a {shape} top and a {touch} side .",
    ),
    "plain": (
        "{who} said nothing for a while .",
        "{who} asked {who2} about the {topic} .",
        "{who} thought about the {topic} again .",
        "{who} went to the {thing} and waited .",
        "they talked about the {topic} until {hour} .",
        "{who} was {mood} and did not answer .",
        "nobody knew why {who} was {mood} .",
        "{who} put the {topic} behind the {thing} .",
    ),
}
_OPENINGS = (
    "{who} came to the PLACE on {day} with {who2} .",
    "on {day} {who} and {who2} walked to the PLACE .",
    "at {hour} {who} was in the PLACE with {who2} .",
    "{who} had not seen the PLACE since {day} .",
)
_SHARED = {
    "who": ["anna", "bob", "clara", "david", "emma", "frank", "grace", "henry"],
    "topic": ["letter", "money", "plan", "journey", "secret", "wedding", "map"],
    "mood": ["happy", "sad", "angry", "tired", "worried", "proud"],
    "hour": ["noon", "midnight", "dawn", "dusk"],
    "day": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
}


def _patterns() -> dict[str, list[str]]:
    """Kinds of sentences; those of a place have its name before the kind, and its things in their slots."""
    found: dict[str, list[str]] = {}
    for place in PLACES:
        for kind, patterns in _OF_A_PLACE.items():
            found[f"{place} {kind}"] = [pattern.replace("{thing", f"{{{place}") for pattern in patterns]
        found[f"{place} opening"] = [pattern.replace("PLACE", place) for pattern in _OPENINGS]
    return found


STORY_LANGUAGE = Language(
    _patterns(),
    _SHARED
    | {place: things.split() for place, things in PLACES.items()}
    | {sense: " ".join(graded).split() for sense, graded in SENSES.items()},
)
