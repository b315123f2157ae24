"""What is known about the prompts decides which figures there are."""

import pandas as pd
import pytest

from rlhf_dagster.evaluation.texts.figures import KnownAbout, text_figures
from rlhf_dagster.evaluation.texts.truth import truth_figures
from rlhf_dagster.tasks.base import Truthfulness

ROWS = pd.DataFrame({"prompt_id": ["1", "2"], "prompt": ["post : a b c", "post : d e f"], "text": ["a b c", "x y"]})


def test_nothing_is_known_about_most_prompts() -> None:
    figures = text_figures(ROWS)
    assert (figures["rouge"], figures["truthfulness"]) == (None, None)
    assert figures["copying"]["copied_sentences"]["value"] == 0.5
    assert figures["copying"]["copied_start"]["value"] == 0.0


def test_copying_is_from_the_source_alone() -> None:
    known = KnownAbout(source=lambda prompt: prompt.removeprefix("post : "))
    assert text_figures(ROWS, known)["copying"]["copied_start"]["value"] == 0.5


def test_references_go_by_the_prompt() -> None:
    figures = text_figures(ROWS, KnownAbout(references={"2": ["x y"], "3": ["a b c"]}))
    assert (figures["rouge"]["rouge1"]["value"], figures["rouge"]["rouge1"]["n"]) == (1.0, 1)


def test_facts_are_counted_in_each_response() -> None:
    known = KnownAbout(truthfulness=lambda prompt, text: Truthfulness(2, int("a" in text), int("x" in text)))
    found = text_figures(ROWS, known)["truthfulness"]
    assert {name: rate["value"] for name, rate in found.items()} == {
        "covered": 0.25,
        "false_facts": 0.5,
        "truthful": 0.5,
    }


def test_a_prompt_without_key_facts_covers_none() -> None:
    found = truth_figures([Truthfulness(0, 0, 1), Truthfulness(4, 3, 0)])
    assert (found["covered"].value, found["covered"].n, found["truthful"].n) == (0.75, 1, 2)
    assert truth_figures([Truthfulness(0, 0, 0)])["covered"].n == 0
    with pytest.raises(ValueError, match="at least one"):
        truth_figures([])
