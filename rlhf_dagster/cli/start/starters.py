"""The settings of a new loop, each with its reason: by its data, its model, and who labels."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_dagster.cli.start.new_loop import A_TASK, BY_SIMULATION, IN_LABEL_STUDIO, ON_A_PAGE, OWN_FILES, NewLoop
from rlhf_dagster.config.base import overlaid
from rlhf_dagster.config.loop import LoopConfig

STARTERS: dict[str, dict[str, Any]] = {
    A_TASK: {"name": "sentiment", "data": {"source": A_TASK, "task": "sentiment"}},
    OWN_FILES: {
        "name": "my_loop",
        "data": {"source": OWN_FILES},
        "base_model": {"source": "tiny", "tiny": {"tokenizer": "bpe", "context": 256}},
        "sampling": {"prompt_tokens": 64, "response_tokens": 64, "fixed_length": False},
        "sft": {"max_tokens": 256},
        "reward_model": {"max_tokens": 256},
        "label_store": {"kind": "embedded", "simulated_annotators": False},
    },
}
OF_THE_DATA = ("name", "data", "label_store")
"""The sections of a starter that say what is learned, and not by which model."""
TEST_SHARES = (0.1, 0.2, 0.3)
"""Of prompts, from the usual one up, until the test split has as many as the gate asks for."""
ONE_PERSON: dict[str, Any] = {
    "labeling": {"comparisons_per_round": 100, "overlap": 0.0},
    "evaluation": {"human_judgments": 100},
    "gate": {"min_judgments": 50},
}
WHY_ONE_PERSON: dict[str, Any] = {
    "labeling": {
        "comparisons_per_round": "What one person judges in an hour or less; 1500 are usual for a team.",
        "overlap": "One person alone judges each comparison once.",
    },
    "evaluation": {
        "human_judgments": "So many A/B comparisons with SFT and the champion together; a win rate from 50 of them is "
        "known to about 14 points."
    },
    "gate": {"min_judgments": "Half of evaluation.human_judgments, since SFT and the champion share them."},
}

FEW_KEPT = 50
"""Comparisons kept from training below which a usual reward model, right on 70% of pairs, may look like guessing: the
lower end of its 95% interval is 56% on 50 of them, and below 50% on 20."""


@dataclass(frozen=True)
class Starter:
    """Settings to write, by section and name; their reasons, in the same form; and what else is to be known."""

    settings: dict[str, Any]
    reasons: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def over(self, settings: dict[str, Any], reasons: dict[str, Any] | None = None) -> "Starter":
        """With further settings, which go before those that there are."""
        return Starter(overlaid(self.settings, settings), overlaid(self.reasons, reasons or {}), self.notes)


def starter_of(wanted: NewLoop, folder: Path) -> Starter:
    """What is known before any data is read. Raises UserError where the task or the model cannot be used."""
    chosen = _of_task(wanted.task, folder) if wanted.task else _of_model(wanted).over(_named(folder))
    return _for_annotators(chosen, wanted.annotators)


def for_prompts(chosen: Starter, in_test: Callable[[float], int]) -> Starter:
    """With a test split on which a policy can pass the gate, by its share of the prompts where there are enough.

    ``in_test`` counts the prompts of the test split that has a share. Without any, nothing is changed.
    """
    config = LoopConfig(**chosen.settings)
    least = config.gate.min_judgments
    usual = in_test(config.data.test)
    if config.gate.min_win_rate is None or usual >= least:
        return chosen
    share = next((share for share in TEST_SHARES if in_test(share) >= least), TEST_SHARES[-1])
    there = in_test(share)
    if not there:
        return chosen
    larger = chosen.over(
        {"data": {"test": share}},
        {"data": {"test": f"{there:,} prompts to measure on; {config.data.test:g}, the default, leaves {usual:,}."}},
    )
    if there >= least:
        return larger
    why = f"The test split has {there:,} prompts, each of which is compared once; give more prompts to know more."
    return larger.over({"gate": {"min_judgments": there}}, {"gate": {"min_judgments": why}})


def for_labels(chosen: Starter, kept: int) -> Starter:
    """With consent to a reward model that nothing tells from guessing, where the first labels are too few for that.

    ``kept`` is how many comparisons they keep from training. Without it the loop would end before its first report.
    """
    if kept >= FEW_KEPT:
        return chosen
    why = (
        f"Of the first labels {kept:,} comparisons are kept from training. On so few hardly a reward model is known to "
        "be better than guessing, and without this line no policy is trained on one that is not. The gate still "
        "judges the policy. Take the line away once there are more labels."
    )
    return chosen.over({"reward_model": {"accept_chance": True}}, {"reward_model": {"accept_chance": why}})


def _of_task(task: str, folder: Path) -> Starter:
    from rlhf_dagster.data.task_settings import task_settings

    settings = task_settings(task, folder)
    return Starter(settings | {"data": {"source": A_TASK, "task": task, **settings.get("data", {})}})


def _named(folder: Path) -> dict[str, Any]:
    """The folder's name as the loop's, so that two loops have two; that of the starter where it is none for a loop."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return {"name": name} if re.match("[a-z]", name) else {}


def _of_model(wanted: NewLoop) -> Starter:
    data = STARTERS[wanted.source]
    if not wanted.model:
        return Starter(data)
    from rlhf_dagster.cli.start.model_starter import model_starter

    settings, reasons, notes = model_starter(wanted.model, wanted.chat)
    people = {name: data[name] for name in OF_THE_DATA if name in data}
    return Starter(people | settings, reasons, tuple(notes))


def _for_annotators(chosen: Starter, who: str) -> Starter:
    if who in ("", BY_SIMULATION):
        return chosen
    if who == ON_A_PAGE:
        store = {"label_store": {"kind": "embedded", "simulated_annotators": False}}
        return chosen.over(ONE_PERSON | store, WHY_ONE_PERSON)
    address = {} if who == IN_LABEL_STUDIO else {"url": who}
    return chosen.over({"label_store": {"kind": "label_studio", **address, "simulated_annotators": False}})
