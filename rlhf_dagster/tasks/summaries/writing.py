"""Writing texts about events, and summaries of them: references, and what authors write below their own posts."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.tasks.language import sentences_of, tokens_of
from rlhf_dagster.tasks.summaries.facts import Event, events_of, text_in
from rlhf_dagster.tasks.summaries.words import DETAIL_OF, MAIN, REPLY, SUMMARY_LANGUAGE, SYNONYMS, TLDR


@dataclass(frozen=True)
class Form:
    """A form of texts that are to be summarised."""

    name: str
    events: int
    asides: str
    """Kind of the sentences that matter to nobody."""
    most_asides: int
    """A text has none up to so many of them."""
    preamble: float
    """Share of the texts that begin with a sentence that a summary should skip."""
    lead: bool
    """Whether the main sentence of the first event comes before everything else."""
    key_slots: tuple[str, ...]
    """What of each event a summary should say."""
    whole: str
    """Kind of the sentence that says all key slots of an event."""
    references: Mapping[str, float]
    """Kinds of the sentences in which references tell an event, and their shares: people leave things out."""


POSTS = Form(
    name="summaries",
    events=1,
    asides="chatter",
    most_asides=2,
    preamble=0.5,
    lead=False,
    key_slots=("who", "did", "thing", "whose", "where", "when"),
    whole="whole",
    references={"whole": 0.6, "core": 0.2, "part": 0.2},
)
"""Short posts, some with a preamble that should be skipped (TL;DR of Ziegler et al. 2019)."""
NEWS_ARTICLES = Form(
    name="summaries_articles",
    events=2,
    asides="news",
    most_asides=3,
    preamble=0.0,
    lead=True,
    key_slots=("who", "did", "thing", "whose"),
    whole="core",
    references={"core": 0.6, "part": 0.4},
)
"""Longer texts that begin with what matters (CNN/Daily Mail)."""

AUTHORS = {"reference": 0.4, "copy": 0.3, "start": 0.1, "mistake": 0.05, "plea": 0.15}
"""Shares of what authors write as a summary of their own text: as a reference does, a main sentence again, the first
sentence again, all with one fact wrong, or a request."""
REPLIED = 0.75
"""Share of the pretraining text below which readers have replied, who tell the events again with all that matters; the
rest has a summary by the author. So a base model learns to find facts in a text, and not to summarise it well."""
READERS = 3
"""Who reply to such a text. Where the same facts recur often, a model learns to copy them several times sooner."""


def write_text(rng: random.Random, form: Form) -> str:
    """A text of one form."""
    said, used = [], set[str]()
    for _ in range(form.events):
        said += _tell(rng, _draw_event(rng, used))
    head = [said.pop(0)] if form.lead else []
    said += _draw_asides(rng, form)
    rng.shuffle(said)
    opening = [SUMMARY_LANGUAGE.draw(rng, "preamble", {})] if rng.random() < form.preamble else []
    return " ".join(opening + head + said)


def prompt_for(text: str) -> str:
    """The prompt that asks for a summary of ``text``."""
    return f"{text} {TLDR}"


def reference_of(prompt: str, form: Form) -> str:
    """A good summary of the text in a prompt, always the same; empty where the text tells no event whole."""
    events = events_of(text_in(prompt))
    rng = random.Random(int(content_hash("reference", form.name, prompt), 16))
    told = [event for event in events if set(form.key_slots) <= event.keys()]
    kinds = rng.choices(list(form.references), list(form.references.values()), k=len(told))
    return " ".join(_summed_up(rng, event, kind) for event, kind in zip(told, kinds, strict=True))


def write_document(rng: random.Random, prompt: str, form: Form) -> str:
    """The text in a prompt with what somebody wrote below it."""
    if rng.random() < REPLIED:
        return " ".join([text_in(prompt), *(f"{REPLY} {reply_to(rng, prompt, form)}" for _ in range(READERS))])
    return f"{prompt} {author_summary(rng, prompt, form)}"


def reply_to(rng: random.Random, prompt: str, form: Form) -> str:
    """All key facts of the text in a prompt, in other words."""
    return " ".join(_summed_up(rng, event, form.whole) for event in events_of(text_in(prompt)))


def author_summary(rng: random.Random, prompt: str, form: Form) -> str:
    """What the author of the text wrote below it."""
    [way] = rng.choices(list(AUTHORS), list(AUTHORS.values()))
    sentences = [" ".join(sentence) for sentence in sentences_of(tokens_of(text_in(prompt)))]
    if way == "copy":
        return next(sentence for sentence in sentences if SUMMARY_LANGUAGE.read(sentence.split()).name in MAIN)
    if way == "start":
        return sentences[0]
    if way == "mistake":
        events = events_of(text_in(prompt))
        return " ".join(_summed_up(rng, _with_mistake(rng, event), form.whole) for event in events)
    return SUMMARY_LANGUAGE.draw(rng, "plea", {}) if way == "plea" else reference_of(prompt, form)


def _draw_event(rng: random.Random, used: set[str]) -> Event:
    """Words for all slots of an event; people and things are other ones than those ``used``."""

    def fresh(kind: str) -> str:
        word = rng.choice([word for word in SUMMARY_LANGUAGE.words[kind] if word not in used])
        used.add(word)
        return word

    event = {slot: fresh(slot) for slot in ("who", "whose", "thing")} | {"did": rng.choice(list(SYNONYMS))}
    return event | {slot: rng.choice(SUMMARY_LANGUAGE.words[slot]) for slot in ("where", "when")}


def _tell(rng: random.Random, event: Mapping[str, str]) -> list[str]:
    main = rng.choice(MAIN)
    return [SUMMARY_LANGUAGE.draw(rng, kind, event) for kind in (main, DETAIL_OF[main])]


def _draw_asides(rng: random.Random, form: Form) -> list[str]:
    used: set[str] = set()
    patterns = rng.sample(SUMMARY_LANGUAGE.patterns[form.asides], rng.randint(0, form.most_asides))
    return [SUMMARY_LANGUAGE.fill(rng, pattern, {}, used) for pattern in patterns]


def _summed_up(rng: random.Random, event: Event, kind: str) -> str:
    return SUMMARY_LANGUAGE.draw(rng, kind, {**event, "did": SYNONYMS[event["did"]]})


def _with_mistake(rng: random.Random, event: Event) -> Event:
    slot = rng.choice(["who", "thing", "where", "when"])
    others = [word for word in SUMMARY_LANGUAGE.words[slot] if word not in event.values()]
    return {**event, slot: rng.choice(others)}
