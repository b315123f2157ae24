"""The pseudonyms that every loop of the tests gives: they have one key, so that results are the same each time."""

import os

from rlhf_dagster.lineage.people import PEOPLE_KEY_VARIABLE
from rlhf_dagster.records.pseudonyms import Pseudonyms

KEY = "the key of all loops of the tests"


def share_one_key() -> None:
    """Have loops of this process, and of those that it starts, take the key."""
    os.environ[PEOPLE_KEY_VARIABLE] = KEY


def pseudonym(name: str) -> str:
    return Pseudonyms(KEY.encode()).of(name)
