"""The words of the reviews: graded sentiment, modifiers, and what each domain talks about."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """One subject of reviews. ``words`` maps a slot of the grammar to its fillers; ``facts`` are neutral patterns."""

    name: str
    words: dict[str, tuple[str, ...]]
    facts: tuple[str, ...]


WEAK, STRONG = 1.0, 2.0

# Slot -> (fillers of strength WEAK, fillers of strength STRONG). Both polarities have as many of each.
POSITIVE: dict[str, tuple[str, str]] = {
    "adj": (
        "good nice pleasant decent solid charming interesting",
        "great wonderful excellent superb brilliant amazing perfect",
    ),
    "verb": ("enjoyed liked praised", "loved adored"),
    "feeling": ("happy pleased", "thrilled delighted"),
    "noun": ("pleasure treat", "triumph masterpiece"),
    "manner": ("nicely", "beautifully brilliantly"),
}
NEGATIVE: dict[str, tuple[str, str]] = {
    "adj": (
        "bad poor dull weak boring mediocre tedious",
        "terrible awful horrible dreadful appalling atrocious abysmal",
    ),
    "verb": ("disliked criticised regretted", "hated loathed"),
    "feeling": ("unhappy annoyed", "furious disgusted"),
    "noun": ("letdown failure", "disaster nightmare"),
    "manner": ("poorly", "terribly horribly"),
}
# Sentiment words that only stand in fixed phrases.
FIXED_SENTIMENT = {"recommend": WEAK, "worth": WEAK, "waste": -WEAK, "fault": -WEAK, "flaw": -WEAK, "problem": -WEAK}

# Factor on the strength of the sentiment word that follows.
BOOSTERS = {"very": 1.3, "really": 1.25, "remarkably": 1.4, "extremely": 1.6}
DOWNTONERS = {"fairly": 0.7, "quite": 0.85, "rather": 0.8, "somewhat": 0.6}
MAXIMISERS = {"absolutely": 1.2, "simply": 1.1, "truly": 1.15, "utterly": 1.25}
MODIFIERS = BOOSTERS | DOWNTONERS | MAXIMISERS
NEGATORS = frozenset({"not", "never", "nothing", "no", "hardly"})

# Slots that every domain shares. A filler is one or more tokens.
COMMON: dict[str, tuple[str, ...]] = {
    "booster": tuple(BOOSTERS),
    "downtoner": tuple(DOWNTONERS),
    "maximiser": tuple(MAXIMISERS),
    "fault": ("fault", "flaw", "problem"),
    "plain": ("small", "large", "new", "old", "quiet", "modern", "typical", "ordinary", "long", "short", "simple"),
    "made": ("made", "planned", "prepared", "presented", "chosen"),
    "friend": (
        *("my wife", "my husband", "my brother", "my sister", "my mother", "my father", "my daughter", "my son"),
        *("a friend", "our neighbour"),
    ),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": ("april", "may", "june", "october", "december"),
    "period": ("week", "month", "summer", "winter", "year"),
    "unit": ("days", "weeks", "months"),
    "whole": ("in every way", "from start to finish", "for the whole family", "for all of us"),
    "cost": ("money", "time", "trip"),
    "job": ("doctor", "farmer", "sailor", "nurse", "lawyer", "painter"),
    "dish": ("fish", "rice", "salad", "cheese", "cake"),
}


# What goes with a polarity without being sentiment itself: no strength, but a writer in that mood says it.
POSITIVE_COMPANY: dict[str, tuple[str, ...]] = {
    "comment": ("luckily", "happily", "thankfully", "as we hoped"),
    "reaction": ("smiled all evening", "came back twice", "told everybody", "stayed for hours", "laughed a lot"),
}
NEGATIVE_COMPANY: dict[str, tuple[str, ...]] = {
    "comment": ("sadly", "unfortunately", "regrettably", "as we feared"),
    "reaction": ("left early", "complained twice", "wanted our money", "walked out", "wrote to the office"),
}


def _domain(name: str, facts: tuple[str, ...], **words: str) -> Domain:
    return Domain(name, {slot: tuple(fillers.split()) for slot, fillers in words.items()}, facts)


DOMAINS: tuple[Domain, ...] = (
    _domain(
        "film",
        ("we sat in row {number} near the exit .", "the story is about a {job} and {number} brothers ."),
        thing="film movie",
        tried="watched saw",
        aspect="acting plot music ending story script dialogue",
        aspects="actors scenes jokes costumes songs effects",
        person="director actress hero",
    ),
    _domain(
        "restaurant",
        ("our table for {number} was near the window .", "we ordered the {dish} and the {dish} with water ."),
        thing="restaurant cafe",
        tried="visited tried",
        aspect="food soup wine bread dessert service menu",
        aspects="waiters dishes portions drinks tables sauces",
        person="chef waiter owner",
    ),
    _domain(
        "hotel",
        ("our room was on floor {number} near the stairs .", "we stayed for {number} nights in {month} ."),
        thing="hotel inn",
        tried="visited booked",
        aspect="room bed breakfast view pool service lobby",
        aspects="rooms beds towels porters windows pillows",
        person="manager porter owner",
    ),
    _domain(
        "book",
        ("it has {number} chapters and a map .", "the story is about a {job} and a {job} in town ."),
        thing="book novel",
        tried="read finished",
        aspect="plot style ending story language cover dialogue",
        aspects="characters chapters pictures poems footnotes maps",
        person="author hero narrator",
    ),
    _domain(
        "concert",
        ("they played {number} songs in two hours .", "we stood near the stage with {friend} ."),
        thing="concert show",
        tried="attended saw",
        aspect="music sound band lighting singing stage hall",
        aspects="songs singers lights musicians seats dancers",
        person="singer drummer conductor",
    ),
)

_FUNCTION_WORDS = (
    "a an the this that it its i we us our my me they he she you and but or although too even so as than at all of "
    "in on to for from with about near by was were is are be been had has have would not never nothing no hardly "
    "there which what when after before everything every more most if else"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that may be said again without being a repetition."""


def _strengths() -> dict[str, float]:
    graded = dict(FIXED_SENTIMENT)
    for sign, slots in ((1, POSITIVE), (-1, NEGATIVE)):
        for weak, strong in slots.values():
            graded |= dict.fromkeys(weak.split(), sign * WEAK) | dict.fromkeys(strong.split(), sign * STRONG)
    return graded


STRENGTHS = _strengths()
"""Signed strength of every sentiment word: 1 weak, 2 strong, negative for negative words."""
