"""Prompts and demonstrations out of the model itself: it goes on from a few words, and what it says is cut in two.

Each line of the file has a `prompt`, which is an opening and the first words that the model went on with, and the
`response`, which is the rest. Nobody else's text is needed.
"""

import json
import re
from itertools import cycle, islice, product
from pathlib import Path

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.training.checkpoints.sources import folder_source
from rlhf_dagster.training.models.policies import open_unpadded_policy
from rlhf_dagster.training.sampling.sample import sample

PLACES = ("the hotel", "this restaurant", "our school", "the museum", "my new job", "the concert", "that airline")
PLACES += ("the village", "the gym", "this phone", "the film", "the book", "our neighbour", "the train", "my doctor")
PLACES += ("the market", "the garden", "the team", "the course", "this software", "the weather", "the trip")
OPENINGS = ("My review of {}: I", "Would I recommend {}? I", "Honestly, {} was", "What I felt about {} was")
OPENINGS += ("After a week I can say that {} is", "My opinion of {} is simple: it is")
OPENINGS += ("I left a comment about {}. I wrote that it", "Everybody asks me about {}, and I think it")
PROMPT_WORDS = 2
"""Words of what the model went on with that belong to the prompt."""
SAMPLING = SamplingSettings(prompt_tokens=16, response_tokens=26, fixed_length=True, batch_size=200)
LEAST_WORDS = 8
"""Of a response."""
SEED = 0
TEXTS = 2200


def openings(count: int) -> list[str]:
    """All places in all openings, again and again."""
    made = [opening.format(place) for place, opening in product(PLACES, OPENINGS)]
    return list(islice(cycle(made), count))


def cut(opening: str, said: str) -> dict[str, str] | None:
    """Prompt and response; None where the model said too little."""
    words = said.replace("\n", " ").split(" ")
    begun, rest = " ".join(words[: PROMPT_WORDS + 1]), " ".join(words[PROMPT_WORDS + 1 :]).strip()
    whole = begun.strip() and len(rest.split()) >= LEAST_WORDS
    return {"prompt": opening + begun, "response": " " + _whole_sentences(rest)} if whole else None


def _whole_sentences(text: str) -> str:
    """``text`` up to the end of its last sentence, where that leaves enough of it."""
    ended = re.match(r".*[.!?](?= |$)", text)
    return ended[0] if ended and len(ended[0].split()) >= LEAST_WORDS else text


def write_texts(model: Path, file: Path, count: int = TEXTS) -> None:
    """Draw ``count`` texts and write those that are whole, each prompt once."""
    given = openings(count)
    said = sample(open_unpadded_policy(folder_source(model)), given, SAMPLING, SEED)
    rows = [cut(opening, drawn.text) for opening, drawn in zip(given, said, strict=True)]
    distinct = {row["prompt"]: row for row in rows if row}
    beside = file.with_suffix(".new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in distinct.values()), encoding="utf-8")
    beside.rename(file)
