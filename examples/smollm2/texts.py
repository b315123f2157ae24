"""Prompts and demonstrations out of the model itself: it goes on from a few words, and what it says is cut in two.

    python examples/smollm2/texts.py MODEL FILE [--texts 2400]

Each line of FILE has a `prompt`, which is an opening and the first words that the model went on with, and the
`response`, which is the rest. Nobody else's text is needed.
"""

import argparse
import json
from itertools import cycle, islice, product
from pathlib import Path

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.training.checkpoints.sources import folder_source
from rlhf_dagster.training.models.policies import open_unpadded_policy
from rlhf_dagster.training.sampling.sample import sample

PLACES = ("the hotel", "this restaurant", "our school", "the museum", "my new job", "the concert", "that airline")
PLACES += ("the village", "the gym", "this phone", "the film", "the book", "our neighbour", "the train", "my doctor")
PLACES += ("the market", "the garden", "the team", "the course", "this software", "the weather", "the trip")
OPENINGS = ("I have to say that {}", "Last week {}", "Everybody talks about {}", "What I remember about {}", "Today {}")
OPENINGS += ("My honest review of {}:", "They told me that {}", "When I think of {},")
PROMPT_WORDS = 3
"""Words of what the model went on with that belong to the prompt."""
SAMPLING = SamplingSettings(prompt_tokens=16, response_tokens=32, fixed_length=True, batch_size=64)
SEED = 0


def openings(count: int) -> list[str]:
    """All places in all openings, again and again."""
    made = [opening.format(place) for place, opening in product(PLACES, OPENINGS)]
    return list(islice(cycle(made), count))


def cut(opening: str, said: str) -> dict[str, str] | None:
    """Prompt and response; None where the model said too little, or began a new paragraph in the prompt."""
    words = said.replace("\n", " ").split(" ")
    begun, rest = " ".join(words[: PROMPT_WORDS + 1]), " ".join(words[PROMPT_WORDS + 1 :])
    whole = begun.strip() and len(rest.split()) >= SAMPLING.response_tokens // 3
    return {"prompt": opening + begun, "response": " " + rest.strip()} if whole else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--texts", type=int, default=2400)
    options = parser.parse_args()
    given = openings(options.texts)
    said = sample(open_unpadded_policy(folder_source(options.model)), given, SAMPLING, SEED)
    rows = [cut(opening, drawn.text) for opening, drawn in zip(given, said, strict=True)]
    distinct = {row["prompt"]: row for row in rows if row}
    beside = options.file.with_suffix(".new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in distinct.values()), encoding="utf-8")
    beside.rename(options.file)


if __name__ == "__main__":
    main()
