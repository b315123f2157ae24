"""Which round is opened."""

from collections.abc import Collection

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import known_rounds
from rlhf_dagster.records.round_keys import round_key, round_number


def round_to_open(loop: LoopFolder, partitions: Collection[str], wanted: str = "") -> str:
    """The key after those of all rounds that there are or ever were: no number is used twice.

    Raises UserError where another one is ``wanted``.
    """
    if wanted and round_number(wanted) is None:
        raise UserError(f"{wanted} is no round's name: rounds are called {round_key(1)}, {round_key(2)} and so on.")
    keys = [*partitions, *known_rounds(loop)]
    number = max((round_number(key) or 0 for key in keys), default=0) + 1
    while any(loop.ledger.size(round_key(number), "train")):
        number += 1
    following = round_key(number)
    if wanted in partitions:
        raise UserError(f"{wanted} is open already; the next round is {following}.")
    if wanted not in ("", following):
        raise UserError(f"{wanted} cannot be opened: the next round is {following}, and no number is left out.")
    return following
