"""A loop planned whole: people, ledger, memory, generation, serving, rounds, storage, and what moves first."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.config.arms import PPO
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.planning.arithmetic import Sheet
from rlhf_dagster.planning.engines import engine_sheet, serving_sheet
from rlhf_dagster.planning.moves import Part, advice, parts_by_need
from rlhf_dagster.planning.people import ledger_sheet, people_sheet
from rlhf_dagster.planning.question import PlanQuestion
from rlhf_dagster.planning.rounds import REWARD_MODEL_TITLE, round_sheet, storage_sheet
from rlhf_dagster.planning.training import Sharded, draws_for_itself, smallest, training_sheet
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.input_sizes import model_sizes


@dataclass(frozen=True)
class PaperPlan:
    """The sheets of a plan, the parts of a deployment by need, and sentences on them."""

    sheets: list[Sheet]
    parts: list[Part]
    advice: list[str]

    def record(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "sheets": [asdict(sheet) for sheet in self.sheets],
            "parts": [{**asdict(part), "times": part.times} for part in self.parts],
            "advice": self.advice,
        }

    def value(self, sheet: str, line: str) -> float:
        """The figure of a line."""
        return next(one for one in self.sheets if one.title == sheet).value(line)


def plan_on_paper(question: PlanQuestion, config: LoopConfig, folder: Path) -> PaperPlan:
    """PaperPlan a loop with the settings of ``config`` on the model whose config and headers are in ``folder``.

    Raises UserError where a training, or an engine that generates, fits on no number of such GPUs that is tried.
    """
    model = model_sizes(folder)
    ledger = ledger_sheet(question, config.labeling)
    comparisons = ledger.value("comparisons a day")
    trainings = smallest(folder, config, question.gpu)
    generation = engine_sheet(question, model)
    by_title = {training.title: training for training in trainings}
    training = training_sheet(trainings, question.gpu)
    serving = serving_sheet(question, generation)
    rounds = round_sheet(question, config, model, by_title, generation, comparisons)
    storage = storage_sheet(question, config, model, _trained(config, model), comparisons)
    parts = parts_by_need(ledger, training, serving, storage, rounds)
    sheets = [people_sheet(question), ledger, training, generation.sheet, serving, rounds, storage]
    return PaperPlan(sheets, parts, [*advice(parts), _who_draws(by_title)])


def _who_draws(trainings: dict[str, Sharded]) -> str:
    """A sentence on whose GPUs draw the responses that trainings need."""
    apart = [title for title in (REWARD_MODEL_TITLE, PPO.title) if not draws_for_itself(trainings[title])]
    if not apart:
        return "Trainings have room for the whole policy while they draw responses on their own GPUs."
    sentence = (
        f"{' and '.join(apart)}: the whole policy does not fit on a GPU while it draws responses, so that engines of "
        "their own have to draw them"
    )
    aside = "; a reward model does without, by `reward_model.normalisation: demonstrations`"
    return f"{sentence}{aside if REWARD_MODEL_TITLE in apart else ''}."


def _trained(config: LoopConfig, model: ModelSizes) -> float:
    """Parameters of PPO's policy and value model that are trained."""
    models = 2 if config.ppo.value == "separate" else 1
    return models * (model.adapter_parameters(config.ppo.lora) if config.ppo.lora else model.parameters)
