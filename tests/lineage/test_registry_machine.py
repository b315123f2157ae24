"""The registry against a model of it: any operations in any order, restarts, second writers, kills and full disks."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.registry import APPROVALS, HISTORY, PolicyRegistry
from rlhf_dagster.storage.local import LocalStore

POLICIES = st.sampled_from(["sft", "ppo-1", "ppo-2", "ppo-3", "ppo-4"])
ROUNDS = st.sampled_from(["round-0001", "round-0002", "round-0003"])
OUTCOMES = st.sampled_from(["done", "done", "done", "full", "killed after"])


class KilledError(BaseException):
    """The process has ended here."""


class FaultyStore(LocalStore):
    """A folder in which the next entry cannot be made, or is the last that the process makes."""

    outcome = "done"

    def create(self, key: str, data: bytes, private: bool = False) -> bool:
        outcome, self.outcome = self.outcome, "done"
        if outcome == "full":
            raise UserError(f"{self.root}: cannot write here (No space left on device); make room there.")
        made = super().create(key, data, private)
        if outcome == "killed after":
            raise KilledError
        return made


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="registry-"))
        self.store = FaultyStore(self.folder)
        self.registry = PolicyRegistry(self.store)
        self.policies: dict[str, str] = {}
        self.history: list[tuple[str, str, str]] = []
        """Policy, round and action."""
        self.pins: dict[str, str] = {}
        self.words: list[tuple[str, bool]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def attempt(self, call: Callable[[], Any], outcome: str, applies: bool, note: Callable[[], None]) -> Any:
        """Call with a fault on the way, and note in the model what must have come of it; None where it did not end."""
        self.store.outcome = outcome
        try:
            result = call()
        except KilledError:
            self.registry = PolicyRegistry(self.store)
            note()
            return None
        except UserError as error:
            assert outcome == "full", error
            assert "No space left" in str(error)
            return None
        finally:
            self.store.outcome = "done"
        if applies:
            note()
        return result

    @rule(policy=POLICIES, number=ROUNDS, outcome=OUTCOMES)
    def register(self, policy: str, number: str, outcome: str) -> None:
        if self.policies.get(policy, number) != number:
            with pytest.raises(UserError, match="already registered differently"):
                self.registry.register(policy, f"models/{policy}", "ppo", number)
            return
        self.attempt(
            lambda: self.registry.register(policy, f"models/{policy}", "ppo", number),
            "done" if policy in self.policies else outcome,
            True,
            lambda: self.policies.__setitem__(policy, number),
        )

    @rule(policy=POLICIES, number=ROUNDS, outcome=OUTCOMES)
    def promote(self, policy: str, number: str, outcome: str) -> None:
        if self._is_unknown(policy, lambda: self.registry.promote(policy, number, "gate", "better")):
            return
        newest = max((entry[1] for entry in self.history), default="")
        allowed = not any(entry[0] == policy for entry in self.history) and number >= newest
        result = self.attempt(
            lambda: self.registry.promote(policy, number, "gate", "better"),
            outcome if allowed else "done",
            allowed,
            lambda: self.history.append((policy, number, "promotion")),
        )
        assert result is None or result.promoted == allowed

    @rule(policy=POLICIES, outcome=OUTCOMES)
    def set_initial(self, policy: str, outcome: str) -> None:
        if self._is_unknown(policy, lambda: self.registry.set_initial(policy)):
            return
        started = any(entry[2] != "initial" for entry in self.history)
        allowed = not started and (not self.history or self.history[-1][0] != policy)
        self.attempt(
            lambda: self.registry.set_initial(policy),
            outcome if allowed else "done",
            allowed,
            lambda: self.history.append((policy, "", "initial")),
        )

    @rule(policy=POLICIES, outcome=OUTCOMES)
    def roll_back(self, policy: str, outcome: str) -> None:
        if self._is_unknown(policy, lambda: self.registry.rollback(policy, "ada", "worse")):
            return
        if not any(entry[0] == policy for entry in self.history):
            with pytest.raises(UserError, match="was never champion"):
                self.registry.rollback(policy, "ada", "worse")
            return
        allowed = self.history[-1][0] != policy
        self.attempt(
            lambda: self.registry.rollback(policy, "ada", "worse"),
            outcome if allowed else "done",
            allowed,
            lambda: self.history.append((policy, self.policies[policy], "rollback")),
        )

    @rule(number=ROUNDS, outcome=OUTCOMES)
    def pin(self, number: str, outcome: str) -> None:
        if number in self.pins or self.history:
            chosen = self.pins.get(number) or self.history[-1][0]
            self.attempt(
                lambda: self.registry.pin(number),
                "done" if number in self.pins else outcome,
                True,
                lambda: self.pins.__setitem__(number, chosen),
            )
            return
        with pytest.raises(UserError, match="no champion yet"):
            self.registry.pin(number)

    @rule(policy=POLICIES, refused=st.booleans(), outcome=OUTCOMES)
    def say(self, policy: str, refused: bool, outcome: str) -> None:
        say = self.registry.refuse if refused else self.registry.approve
        if not self._is_unknown(policy, lambda: say(policy, "round-0001", "ada", "why")):
            note = lambda: self.words.append((policy, refused))  # noqa: E731
            self.attempt(lambda: say(policy, "round-0001", "ada", "why"), outcome, True, note)

    @rule(journal=st.sampled_from([HISTORY, APPROVALS]), cut=st.integers(0, 60))
    def power_fails_while_an_entry_is_written(self, journal: str, cut: int) -> None:
        """What ends in the middle was confirmed to nobody; the next entry comes behind it."""
        number = len(self.store.list(journal)) + 1
        (self.folder / journal).mkdir(parents=True, exist_ok=True)
        (self.folder / journal / f"{number:06d}.json").write_bytes(
            b'{"policy_id": "ghost", "round_key": "round-0003", "'[:cut]
        )

    @rule()
    def restart(self) -> None:
        self.registry = PolicyRegistry(self.store)

    @invariant()
    def is_as_the_model(self) -> None:
        """Whoever opens it now reads the same as who has it open."""
        for registry in (self.registry, PolicyRegistry(LocalStore(self.folder))):
            found = [(entry.policy_id, entry.round_key, entry.action) for entry in registry.history()]
            assert found == self.history
            champion = registry.champion()
            assert (champion and champion.policy_id) == (self.history[-1][0] if self.history else None)
            assert [(word.policy_id, word.refused) for word in registry.approvals()] == self.words
            assert registry.policies() == sorted(self.policies)
            assert {number: registry.pinned(number) for number in registry.pins()} == self.pins

    def _is_unknown(self, policy: str, call: Callable[[], Any]) -> bool:
        if policy in self.policies:
            return False
        with pytest.raises(UserError, match=f"There is no policy {policy}"):
            call()
        return True


def test_the_registry_does_what_its_model_does() -> None:
    run_state_machine_as_test(RegistryMachine, settings=settings(max_examples=10, stateful_step_count=20))


@pytest.mark.long
def test_the_registry_does_what_its_model_does_for_longer() -> None:
    run_state_machine_as_test(RegistryMachine, settings=settings(max_examples=300, stateful_step_count=50))
