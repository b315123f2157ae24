"""The policy registry: which policies exist, which one each round samples from, and which one is the champion.

In the loop's store, below ``registry/``: ``policies/ID.json`` and ``pins/ROUND.json``, each created once, and three
journals (:mod:`rlhf_dagster.lineage.journal`): ``history/``, an entry for every change of the champion, the last of
which names the champion, and ``approvals/``, an entry for every approval and every refusal by a person.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.storage.base import Store

INITIAL_ROUND = ""
"""The round of the SFT policy, which sorts before every labelling round."""
GATE = "gate"
"""Who has promoted, in the history, where no person did."""
HISTORY, APPROVALS, POLICIES, PINS = (f"registry/{name}" for name in ("history", "approvals", "policies", "pins"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class PolicyRecord:
    policy_id: str
    checkpoint: str
    """Folder of the checkpoint, relative to the loop's root."""
    kind: str
    """``sft``, or the kind of the arm that trained it, such as ``ppo`` (:mod:`rlhf_dagster.config.arms`)."""
    round_key: str
    parents: tuple[str, ...]
    """Ids of the models it was trained from."""
    digest: str = ""
    """Of the checkpoint (:func:`rlhf_dagster.lineage.models.model_digest`); empty in records of version 0.1."""


@dataclass(frozen=True)
class PinRecord:
    """The policy that a round samples from."""

    round: str
    policy_id: str
    at: str = ""
    """When it was fixed, as ISO 8601 in UTC."""


@dataclass(frozen=True)
class ChampionRecord:
    """One change of the champion."""

    policy_id: str
    round_key: str
    action: Literal["initial", "promotion", "rollback"]
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""

    def __post_init__(self) -> None:
        """Raise ValueError where ``at`` is no time."""
        _ = self.since

    @property
    def since(self) -> datetime:
        """When it was made; a time without a zone is UTC's."""
        at = datetime.fromisoformat(self.at)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


@dataclass(frozen=True)
class PromotionResult:
    promoted: bool
    champion: str
    """Id of the champion after the call."""
    reason: str
    """What was done, or why nothing was."""


@dataclass(frozen=True)
class ApprovalRecord:
    """A person's word that a policy may become the champion, or that it may not."""

    round_key: str
    policy_id: str
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""
    anyway: bool = False
    """Whether the approval holds even where the gate refuses the policy."""
    refused: bool = False
    """Whether it is a refusal."""


class PolicyRegistry:
    """Policies of the loop in ``store``; safe for several machines at once and against being killed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._history = Journal(store, HISTORY, ChampionRecord)
        self._approvals = Journal(store, APPROVALS, ApprovalRecord)

    def register(
        self,
        policy_id: str,
        checkpoint: str,
        kind: str,
        round_key: str,
        parents: Sequence[str] = (),
        digest: str = "",
    ) -> PolicyRecord:
        """Record a policy; the same record again is a no-op, a different one with its id raises UserError."""
        if Path(checkpoint).is_absolute():
            raise UserError(f"The checkpoint of policy {policy_id} must be a path relative to the loop: {checkpoint}.")
        record = PolicyRecord(policy_id, str(checkpoint), kind, round_key, tuple(parents), digest)
        if self.store.create(_policy_key(policy_id), seal(asdict(record), indent=None)):
            return record
        known = self.get(policy_id)
        if replace(known, digest=known.digest or record.digest) != record:
            raise UserError(f"Policy {policy_id} is already registered differently; give the new policy its own id.")
        return known

    def get(self, policy_id: str) -> PolicyRecord:
        key = _policy_key(policy_id)
        found = self.store.get(key)
        if found is None:
            known = ", ".join(self.policies()) or "none"
            raise UserError(f"There is no policy {policy_id}; registered: {known}.")
        values = unseal(found.data, key)
        parents = values.get("parents") or []
        if not isinstance(parents, list):
            raise Damaged(f"{key} is damaged: its parents are no list; `rlhf check LOOP` says what mends it.")
        return read_as(PolicyRecord, values | {"parents": tuple(parents)}, key)

    def policies(self) -> list[str]:
        """Ids of all policies, sorted."""
        keys = self.store.list(POLICIES)
        return sorted(key.removeprefix(f"{POLICIES}/").removesuffix(".json") for key in keys if key.endswith(".json"))

    def history(self) -> list[ChampionRecord]:
        """Every change of the champion, oldest first."""
        return _changes(self._history.entries())

    def champion(self) -> ChampionRecord | None:
        newest = self._history.last()
        return _changes([newest])[0] if newest else None

    def previous_champion(self) -> str | None:
        """Who was champion before the current one first took over, and where a rollback leads; None without one."""
        served = [entry.policy_id for entry in self.history()]
        first = served.index(served[-1]) if served else 0
        return served[first - 1] if first else None

    def pin(self, round_key: str, policy_id: str | None = None) -> str:
        """Fix the policy that a round samples from: the champion at the first call, the same answer ever after.

        ``policy_id`` is pinned in the champion's place, for a pin that was lost.
        """
        if pinned := self.pinned(round_key):
            return pinned
        champion = self.champion()
        chosen = policy_id or (champion and champion.policy_id)
        if not chosen:
            raise UserError(f"Round {round_key} cannot be pinned: no champion yet; run the job `prepare` first.")
        pin = PinRecord(round_key, chosen, _now())
        if self.store.create(_pin_key(round_key), seal(asdict(pin), indent=None)):
            return chosen
        return self.pinned(round_key) or chosen

    def pinned(self, round_key: str) -> str | None:
        """The policy that a round samples from; None before :meth:`pin`."""
        key = _pin_key(round_key)
        found = self.store.get(key)
        if found is None:
            return None
        return read_as(PinRecord, unseal(found.data, key), key).policy_id

    def pins(self) -> list[str]:
        """Keys of the rounds that are pinned, sorted."""
        keys = self.store.list(PINS)
        return sorted(key.removeprefix(f"{PINS}/").removesuffix(".json") for key in keys if key.endswith(".json"))

    def set_initial(self, policy_id: str) -> PromotionResult:
        """Make the SFT policy the champion; a no-op for the same one, and once a round has been promoted."""
        self.get(policy_id)

        def refusal(history: list[ChampionRecord]) -> str:
            started = history and {entry.action for entry in history} != {"initial"}
            same = history and history[-1].policy_id == policy_id
            return f"{history[-1].policy_id} is the champion." if started or same else ""

        return self._append(policy_id, INITIAL_ROUND, "initial", "loop", "the SFT policy starts the loop", refusal)

    def promote(self, policy_id: str, round_key: str, by: str, reason: str) -> PromotionResult:
        """Make a policy the champion, unless that would undo a later decision.

        Refused, with the reason, when a later round has been promoted, or when the policy was champion before
        and gave way to another one: a rerun of an old round changes nothing. :meth:`rollback` is the way back.
        """
        self.get(policy_id)
        return self._append(
            policy_id, round_key, "promotion", by, reason, lambda history: _refusal(policy_id, round_key, history)
        )

    def refusal(self, policy_id: str, round_key: str) -> str:
        """Why :meth:`promote` would not make a policy the champion; empty where it would."""
        self.get(policy_id)
        return _refusal(policy_id, round_key, self.history())

    def approve(self, policy_id: str, round_key: str, by: str, reason: str, *, anyway: bool = False) -> ApprovalRecord:
        """Put a person's approval on record; raises :class:`UserError` without a name or a reason."""
        self.get(policy_id)
        if not (by.strip() and reason.strip()):
            raise UserError("An approval stays on record: give the name of who approves, and a reason.")
        return self._say(ApprovalRecord(round_key, policy_id, by, reason, _now(), anyway))

    def refuse(self, policy_id: str, round_key: str, by: str, reason: str) -> ApprovalRecord:
        """Put a person's refusal on record; raises :class:`UserError` without a name or a reason."""
        self.get(policy_id)
        if not (by.strip() and reason.strip()):
            raise UserError("A refusal stays on record: give the name of who refuses, and a reason.")
        return self._say(ApprovalRecord(round_key, policy_id, by, reason, _now(), refused=True))

    def approvals(self) -> list[ApprovalRecord]:
        """Every approval and every refusal, oldest first."""
        return [read_as(ApprovalRecord, values, APPROVALS) for values in self._approvals.entries()]

    def last_word(self, policy_id: str) -> ApprovalRecord | None:
        """The last that a person has said about exactly this policy."""
        return next((entry for entry in reversed(self.approvals()) if entry.policy_id == policy_id), None)

    def rollback(self, to_policy_id: str, by: str, reason: str, since: datetime | None = None) -> PromotionResult:
        """Make an earlier policy the champion again; by whom and why stays on record.

        Refused, where ``since`` is given, when the champion has changed since then.
        """
        record = self.get(to_policy_id)

        def refusal(history: list[ChampionRecord]) -> str:
            if since and (why := changed_since(history, since)):
                return why
            if history and history[-1].policy_id == to_policy_id:
                return f"{to_policy_id} is already the champion."
            if all(entry.policy_id != to_policy_id for entry in history):
                raise UserError(f"Policy {to_policy_id} was never champion, so there is no way back to it; promote it.")
            return ""

        return self._append(to_policy_id, record.round_key, "rollback", by, reason, refusal)

    def journals(self) -> tuple[Journal, ...]:
        """The registry's journals, for those who look whether they are whole."""
        return self._history, self._approvals

    def _say(self, record: ApprovalRecord) -> ApprovalRecord:
        self._approvals.append(lambda _: asdict(record))
        return record

    def _append(
        self,
        policy_id: str,
        round_key: str,
        action: Literal["initial", "promotion", "rollback"],
        by: str,
        reason: str,
        refusal: Any,
    ) -> PromotionResult:
        """Change the champion, unless ``refusal``, which is shown the history that is followed, says why not."""
        refused: list[tuple[str, str]] = []

        def decide(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
            history = _changes(entries)
            if why := refusal(history):
                refused.append((history[-1].policy_id, why))
                return None
            return asdict(ChampionRecord(policy_id, round_key, action, by, reason, _now()))

        if self._history.append(decide) is None:
            return PromotionResult(False, *refused[-1])
        return PromotionResult(True, policy_id, f"{policy_id} is the champion ({action}): {reason}")


def _changes(entries: Sequence[Mapping[str, Any]]) -> list[ChampionRecord]:
    return [read_as(ChampionRecord, values, HISTORY) for values in entries]


def _refusal(policy_id: str, round_key: str, history: list[ChampionRecord]) -> str:
    """Why a promotion must not happen; empty if it may."""
    if not history:
        return ""
    champion = history[-1]
    if champion.policy_id == policy_id:
        return f"{policy_id} is already the champion."
    # The newest round of all history, not the champion's: after a rollback, a rerun of a round between the two must
    # promote nothing.
    newest = max(entry.round_key for entry in history)
    if round_key < newest:
        return f"{policy_id} of round {round_key or 'SFT'} comes after a promotion of the later round {newest}."
    if any(entry.policy_id == policy_id for entry in history):
        return f"{policy_id} was champion before and gave way to {champion.policy_id}; roll back to return to it."
    return ""


def _policy_key(policy_id: str) -> str:
    return f"{POLICIES}/{_checked(policy_id, 'policy id')}.json"


def _pin_key(round_key: str) -> str:
    return f"{PINS}/{_checked(round_key, 'round')}.json"


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a {what}: use letters, digits, dot, dash and underscore.")
    return name


def changed_since(history: Sequence[ChampionRecord], since: datetime) -> str:
    """A sentence on who has changed the champion after a moment; empty where nobody has."""
    if not history or history[-1].since <= since:
        return ""
    newest = history[-1]
    return (
        f"{newest.policy_id} became the champion after this was asked for ({newest.action} by {newest.by}: "
        f"{newest.reason}); if it is not the right one, name the policy to go back to (`--to`, or `to` in the UI)."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
