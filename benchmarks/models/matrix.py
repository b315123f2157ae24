"""The cells of the matrix, and what becomes of one model in each of them."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.make import make_tiny

from benchmarks.models.cells import dpo, opening, ppo, reward, sampling, sft
from benchmarks.models.inputs import make_inputs
from benchmarks.models.trial import NotReachedError, Trial, WrongNumberError
from rlhf_dagster.errors import UserError

Verdict = Literal["right", "refused", "wrong", "not reached"]


@dataclass(frozen=True)
class Cell:
    """A column of the matrix."""

    name: str
    try_it: Callable[[Trial], None]
    fast: bool = False
    """Whether it is among those that `make test` tries."""


CELLS = (
    Cell("base_model", opening.open_base, fast=True),
    Cell("log-probs", opening.forward, fast=True),
    Cell("sample", sampling.sampled, fast=True),
    Cell("greedy", sampling.greedy, fast=True),
    Cell("continuous", sampling.continuous),
    Cell("best of n", sampling.best),
    Cell("save", opening.save),
    Cell("merge", opening.merge, fast=True),
    Cell("SFT", sft.plain_sft, fast=True),
    Cell("SFT resumed", sft.resumed_sft, fast=True),
    Cell("SFT packed", sft.packed_sft),
    Cell("SFT adapters", sft.adapted_sft),
    Cell("reward", reward.reward_model, fast=True),
    Cell("reward adapters", reward.adapted_reward_model),
    Cell("PPO shared", ppo.shared_ppo, fast=True),
    Cell("PPO separate", ppo.separate_ppo),
    Cell("PPO frozen", ppo.frozen_ppo),
    Cell("PPO adapters", ppo.adapted_ppo),
    Cell("PPO bf16", ppo.bf16_ppo),
    Cell("DPO", dpo.plain_dpo, fast=True),
    Cell("DPO adapters", dpo.adapted_dpo),
)


@dataclass(frozen=True)
class Outcome:
    """What a cell came to, and why."""

    cell: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0


def try_model(name: str, folder: Path, cells: Sequence[Cell] = CELLS) -> list[Outcome]:
    """Make the model ``name`` of the zoo in ``folder`` and take it through ``cells``."""
    make_tiny(name, folder / "source")
    trial = Trial(name, folder, make_inputs(folder))
    return [_outcome(trial, cell) for cell in cells]


def _outcome(trial: Trial, cell: Cell) -> Outcome:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict, reason = _verdict(trial, cell)
    return Outcome(cell.name, verdict, reason, round(time.process_time() - began, 2))


def _verdict(trial: Trial, cell: Cell) -> tuple[Verdict, str]:
    try:
        cell.try_it(trial)
    except UserError as error:
        return "refused", str(error).replace(str(trial.folder), "FOLDER")
    except NotReachedError as error:
        return "not reached", f"needs {error}"
    except WrongNumberError as error:
        return "wrong", str(error)
    except Exception as error:  # whatever a user would see as a traceback
        text = " ".join(str(error).split()).replace(str(trial.folder), "FOLDER")
        return "wrong", f"{type(error).__name__}: {text[:300]}"
    return "right", ""
