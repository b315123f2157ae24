"""Settings of how long trained models are kept. Importing this imports no torch."""

from typing import Literal

from pydantic import field_validator

from rlhf_dagster.config.base import Settings


class ModelsSettings(Settings):
    """Which trained models a loop keeps."""

    keep: int | Literal["all"] = "all"
    """Of how many decided rounds, the newest ones, all models are kept; `all` removes nothing. What else needs a model
    keeps it as well: a round that is not decided, the champion and the one before it, a pin, adapters of which it is
    the base. What is removed stays on record, with its manifest; labels, tables and reports stay in any case."""

    @field_validator("keep")
    @classmethod
    def _at_least_one(cls, keep: int | str) -> int | str:
        if isinstance(keep, int) and keep < 1:
            raise ValueError("keep the models of at least 1 round, or `all`")
        return keep
