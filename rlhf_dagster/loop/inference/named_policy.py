"""Policies by the names that people have for them."""

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import known_rounds, require_not_deleted
from rlhf_dagster.records.round_keys import round_number

CHAMPION = "champion"
_ASSETS = {"base": "base_model", "sft": "sft_checkpoint"}
"""The assets that point to models which a loop has one of."""


def named_policy(loop: LoopFolder, name: str) -> Checkpoint:
    """The model called ``name``: `champion`, `sft`, `base`, a round's key for its candidate, or a policy's id.

    Raises:
        UserError: there is none of this name, it is not made yet, or its round is deleted.
    """
    if name == CHAMPION:
        return _champion(loop)
    if name in _ASSETS:
        return _made(loop, name)
    return _of_round(loop, name) if round_number(name) is not None else _by_id(loop, name)


def _champion(loop: LoopFolder) -> Checkpoint:
    champion = loop.registry.champion()
    if champion is None:
        raise UserError(f"There is no champion yet; run `rlhf run prepare {loop.option}` first.")
    return loop.policy(champion.policy_id)


def _made(loop: LoopFolder, name: str) -> Checkpoint:
    found = loop.checkpoint(_ASSETS[name])
    if found is None:
        raise UserError(f"There is no {_ASSETS[name]} yet; run `rlhf run prepare {loop.option}` first.")
    return found


def _of_round(loop: LoopFolder, round_key: str) -> Checkpoint:
    known = known_rounds(loop)
    if round_key not in known:
        raise UserError(f"No policy of {round_key} is there; rounds with one are {', '.join(known) or 'none'}.")
    require_not_deleted(loop, round_key)
    return round_candidate(loop, round_key).policy


def _by_id(loop: LoopFolder, policy_id: str) -> Checkpoint:
    known = loop.registry.policies()
    if policy_id not in known:
        raise UserError(
            f"There is no policy {policy_id}; give champion, sft, base, a round such as round-0001, or one of "
            f"{', '.join(known) or 'none'}."
        )
    return loop.policy(policy_id)
