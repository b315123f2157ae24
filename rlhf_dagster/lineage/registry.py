"""The policy registry: which policies exist, which one each round samples from, and which one is the champion.

On disk: ``policies/ID.json`` and ``pins/ROUND.json``, each written once; ``history.jsonl``, one line for every change
of the champion, the last of which names the champion; and ``approvals.jsonl``, one line for every approval by a person.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlhf_dagster.common.files import locked, write_atomically, write_once
from rlhf_dagster.errors import UserError

INITIAL_ROUND = ""
"""The round of the SFT policy, which sorts before every labelling round."""
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
class ChampionRecord:
    """One change of the champion."""

    policy_id: str
    round_key: str
    action: Literal["initial", "promotion", "rollback"]
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""


@dataclass(frozen=True)
class PromotionResult:
    promoted: bool
    champion: str
    """Id of the champion after the call."""
    reason: str
    """What was done, or why nothing was."""


@dataclass(frozen=True)
class ApprovalRecord:
    """A person's word that a policy may become the champion."""

    round_key: str
    policy_id: str
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""
    anyway: bool = False
    """Whether the approval holds even where the gate refuses the policy."""


class PolicyRegistry:
    """Policies under the folder ``root``; safe for several processes at once and against being killed."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

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
        if write_once(self._policy_file(policy_id), _json(asdict(record))):
            return record
        known = self.get(policy_id)
        if replace(known, digest=known.digest or record.digest) != record:
            raise UserError(f"Policy {policy_id} is already registered differently; give the new policy its own id.")
        return known

    def get(self, policy_id: str) -> PolicyRecord:
        file = self._policy_file(policy_id)
        if not file.is_file():
            known = ", ".join(self.policies()) or "none"
            raise UserError(f"There is no policy {policy_id}; registered: {known}.")
        values = json.loads(file.read_text(encoding="utf-8"))
        return PolicyRecord(**values | {"parents": tuple(values["parents"])})

    def policies(self) -> list[str]:
        """Ids of all policies, sorted."""
        return sorted(file.stem for file in (self.root / "policies").glob("[!.]*.json"))

    def history(self) -> list[ChampionRecord]:
        """Every change of the champion, oldest first."""
        return [ChampionRecord(**row) for row in _lines(self._history_file)]

    def champion(self) -> ChampionRecord | None:
        history = self.history()
        return history[-1] if history else None

    def previous_champion(self) -> str | None:
        """Who was champion before the current one first took over, and where a rollback leads; None without one."""
        served = [entry.policy_id for entry in self.history()]
        first = served.index(served[-1]) if served else 0
        return served[first - 1] if first else None

    def pin(self, round_key: str) -> str:
        """Fix the policy that a round samples from: the champion at the first call, the same answer ever after."""
        champion = self.champion()
        if champion is None:
            raise UserError(f"Round {round_key} cannot be pinned: no champion yet; train the SFT policy first.")
        values = {"round": round_key, "policy_id": champion.policy_id, "at": _now()}
        if write_once(self._pin_file(round_key), _json(values)):
            return champion.policy_id
        return json.loads(self._pin_file(round_key).read_text(encoding="utf-8"))["policy_id"]

    def pinned(self, round_key: str) -> str | None:
        """The policy that a round samples from; None before :meth:`pin`."""
        file = self._pin_file(round_key)
        return json.loads(file.read_text(encoding="utf-8"))["policy_id"] if file.is_file() else None

    def set_initial(self, policy_id: str) -> PromotionResult:
        """Make the SFT policy the champion; a no-op for the same one, and once a round has been promoted."""
        self.get(policy_id)
        with locked(self._lock_file):
            history = self.history()
            if history and (history[-1].policy_id == policy_id or {entry.action for entry in history} != {"initial"}):
                return PromotionResult(False, history[-1].policy_id, f"{history[-1].policy_id} is the champion.")
            return self._append(policy_id, INITIAL_ROUND, "initial", "loop", "the SFT policy starts the loop")

    def promote(self, policy_id: str, round_key: str, by: str, reason: str) -> PromotionResult:
        """Make a policy the champion, unless that would undo a later decision.

        Refused, with the reason, when a later round has been promoted, or when the policy was champion before
        and gave way to another one: a rerun of an old round changes nothing. :meth:`rollback` is the way back.
        """
        self.get(policy_id)
        with locked(self._lock_file):
            history = self.history()
            refusal = _refusal(policy_id, round_key, history)
            if refusal:
                return PromotionResult(False, history[-1].policy_id, refusal)
            return self._append(policy_id, round_key, "promotion", by, reason)

    def refusal(self, policy_id: str, round_key: str) -> str:
        """Why :meth:`promote` would not make a policy the champion; empty where it would."""
        self.get(policy_id)
        return _refusal(policy_id, round_key, self.history())

    def approve(self, policy_id: str, round_key: str, by: str, reason: str, *, anyway: bool = False) -> ApprovalRecord:
        """Put a person's approval on record; raises :class:`UserError` without a name or a reason."""
        self.get(policy_id)
        if not (by.strip() and reason.strip()):
            raise UserError("An approval stays on record: give the name of who approves, and a reason.")
        record = ApprovalRecord(round_key, policy_id, by, reason, _now(), anyway)
        with locked(self._lock_file):
            entries = [*self.approvals(), record]
            write_atomically(self._approvals_file, b"".join(_json(asdict(entry)) for entry in entries))
        return record

    def approvals(self) -> list[ApprovalRecord]:
        """Every approval, oldest first."""
        return [ApprovalRecord(**row) for row in _lines(self._approvals_file)]

    def approval(self, policy_id: str) -> ApprovalRecord | None:
        """The last approval of exactly this policy."""
        return next((entry for entry in reversed(self.approvals()) if entry.policy_id == policy_id), None)

    def rollback(self, to_policy_id: str, by: str, reason: str) -> PromotionResult:
        """Make an earlier policy the champion again; by whom and why stays on record."""
        record = self.get(to_policy_id)
        with locked(self._lock_file):
            history = self.history()
            if history and history[-1].policy_id == to_policy_id:
                return PromotionResult(False, to_policy_id, f"{to_policy_id} is already the champion.")
            served = [entry.round_key for entry in history if entry.policy_id == to_policy_id]
            if not served:
                raise UserError(f"Policy {to_policy_id} was never champion, so there is no way back to it; promote it.")
            return self._append(to_policy_id, record.round_key, "rollback", by, reason)

    def _append(
        self,
        policy_id: str,
        round_key: str,
        action: Literal["initial", "promotion", "rollback"],
        by: str,
        reason: str,
    ) -> PromotionResult:
        """Write the history with one more line; the caller holds the lock."""
        entries = [*self.history(), ChampionRecord(policy_id, round_key, action, by, reason, _now())]
        write_atomically(self._history_file, b"".join(_json(asdict(entry)) for entry in entries))
        return PromotionResult(True, policy_id, f"{policy_id} is the champion ({action}): {reason}")

    @property
    def _history_file(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def _approvals_file(self) -> Path:
        return self.root / "approvals.jsonl"

    @property
    def _lock_file(self) -> Path:
        return self.root / "history.lock"

    def _policy_file(self, policy_id: str) -> Path:
        return self.root / "policies" / f"{_checked(policy_id, 'policy id')}.json"

    def _pin_file(self, round_key: str) -> Path:
        return self.root / "pins" / f"{_checked(round_key, 'round')}.json"


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


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a {what}: use letters, digits, dot, dash and underscore.")
    return name


def _lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file with one in each line; none where there is no file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
