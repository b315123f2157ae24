"""Whether splits hold enough for what a loop will need of them, looked at before anything is trained or sampled."""

import pandas as pd

from rlhf_dagster.config.arm_settings.release import BEST
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError

_MORE = "give more prompts"


def require_prompts(config: LoopConfig, prompts: pd.DataFrame) -> None:
    """Raise UserError where the splits of ``prompts`` (schema PROMPTS) are too small for any policy to be promoted."""
    sizes = prompts["split"].value_counts()
    train, validation, test = (int(sizes.get(split, 0)) for split in ("train", "validation", "test"))
    if not train:
        raise UserError(f"No prompt is in the train split; {_MORE}, or lower `data.validation` and `data.test`.")
    if not test:
        raise UserError(f"No prompt is in the test split, so nothing can be measured; {_MORE} or raise `data.test`.")
    _require_judgments(config, test)
    if not validation:
        _require_no_use_of_validation(config)


def require_demonstrations(demonstrations: pd.DataFrame) -> None:
    """Raise UserError where SFT has nothing to train on (schema DEMONSTRATIONS)."""
    if not (demonstrations["split"] == "train").any():
        raise UserError(
            f"None of {len(demonstrations):,} demonstrations is in the train split: their prompts or users are held "
            "out; give others, or lower `data.validation`."
        )


def _require_no_use_of_validation(config: LoopConfig) -> None:
    """Raise UserError where something is measured on prompts of the validation split, which has none."""
    for arm in config.trained_arms():
        if getattr(getattr(config, arm.name), "validate_every", None) is not None:
            setting = f"{arm.name}.validate_every"
            raise UserError(
                f"{setting} measures on prompts of the validation split, which has none; {_MORE}, raise "
                f"`data.validation`, or set {setting} to null."
            )
    if config.release.arm == BEST:
        raise UserError(
            f"`release.arm: best` chooses on prompts of the validation split, which has none; {_MORE}, raise "
            "`data.validation`, or name an arm."
        )


def _require_judgments(config: LoopConfig, test: int) -> None:
    """A policy and the champion are compared once on each test prompt."""
    least = config.gate.min_judgments
    if config.gate.min_win_rate is not None and test < least:
        raise UserError(
            f"The test split has {test:,} prompts, and gate.min_judgments asks for {least:,} comparisons, one on each: "
            f"no policy could ever be promoted; {_MORE}, raise `data.test`, or lower gate.min_judgments."
        )
