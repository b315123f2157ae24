"""The embedded label store against a model of it: any operations in any order, restarts, and writers that break off."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.ids import completion_id, prompt_id
from rlhf_dagster.records.schemas import COMPLETIONS, table

ROUND, PURPOSE, N = "round-0001", "train", 4
WHICH, WHO, CHOICE = st.integers(0, N - 1), st.sampled_from(["ann", "bob", "eve"]), st.integers(0, 1)


class BrokenOffError(Exception):
    """Whoever gives answers ends in the middle."""


def batch() -> object:
    rows = [
        {
            "completion_id": completion_id(prompt_id(prompt), "p", {}, 0, index),
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "policy_id": "p",
            "index": index,
            "text": f"{prompt} {index}",
            "token_ids": [index],
            "log_probs": [-1.0],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for prompt in (f"prompt {number}" for number in range(N))
        for index in range(2)
    ]
    settings = LabelingSettings(kind="pair", overlap=0.5, overlap_labels=2)
    return build_comparisons(table(rows, COMPLETIONS).to_pandas(), settings, ROUND, seed=0)


BATCH = batch()
IDS = list(BATCH["comparison_id"])  # type: ignore[index]
WANTED = dict(zip(IDS, BATCH["labels_wanted"], strict=True))  # type: ignore[index]


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.store = self.open()
        self.sent: list[str] = []
        self.versions: list[tuple[str, str, str, int | None]] = []
        """Comparison, annotator, status and choice of each version, in their order."""
        self.seen = (0, 0)
        """A position that was read up to, and how many versions there were then."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def open(self) -> EmbeddedLabelStore:
        return EmbeddedLabelStore(self.folder / "labels.sqlite")

    def newest(self) -> dict[tuple[str, str], tuple[str, int | None]]:
        return {(key, who): (status, choice) for key, who, status, choice in self.versions}

    def add(self, key: str, who: str, status: str, choice: int | None) -> None:
        if self.newest().get((key, who)) != (status, choice):
            self.versions.append((key, who, status, choice))

    @rule(first=WHICH, count=st.integers(1, N))
    def send(self, first: int, count: int) -> None:
        part = BATCH.iloc[first : first + count]  # type: ignore[attr-defined]
        new = [key for key in part["comparison_id"] if key not in self.sent]
        result = self.store.send(part)
        assert (result.sent, result.already_there) == (len(new), len(part) - len(new))
        self.sent += new

    @rule(which=WHICH, who=WHO, choice=CHOICE)
    def submit(self, which: int, who: str, choice: int) -> None:
        if IDS[which] not in self.sent:
            with pytest.raises(UserError):
                self.store.submit(IDS[which], who, {"choice": choice, "strength": 1.0})
            return
        self.store.submit(IDS[which], who, {"choice": choice, "strength": 1.0})
        self.add(IDS[which], who, "submitted", choice)

    @rule(which=WHICH, who=WHO)
    def skip(self, which: int, who: str) -> None:
        if IDS[which] in self.sent:
            self.store.skip(IDS[which], who)
            self.add(IDS[which], who, "skipped", None)

    @rule(which=WHICH, who=WHO)
    def delete(self, which: int, who: str) -> None:
        if (IDS[which], who) not in self.newest():
            with pytest.raises(UserError, match="has no annotation"):
                self.store.delete(IDS[which], who)
            return
        self.store.delete(IDS[which], who)
        self.add(IDS[which], who, "deleted", None)

    @rule(answers=st.lists(st.tuples(WHICH, WHO, CHOICE), min_size=1, max_size=5), broken=st.booleans())
    def submit_many(self, answers: list[tuple[int, str, int]], broken: bool) -> None:
        """All or none: a giver that breaks off leaves nothing."""

        def given() -> Iterator[Submission]:
            yield from (
                Submission(IDS[which], who, {"choice": choice, "strength": 1.0}) for which, who, choice in answers
            )
            if broken:
                raise BrokenOffError

        is_sent = all(IDS[which] in self.sent for which, _, _ in answers)
        if broken or not is_sent:
            with pytest.raises((BrokenOffError, UserError)):
                self.store.submit_many(given())
            return
        self.store.submit_many(given())
        for which, who, choice in answers:
            self.add(IDS[which], who, "submitted", choice)

    @rule()
    def restart(self) -> None:
        self.store = self.open()

    @rule()
    def read_on(self) -> None:
        """Reading on from a position misses nothing, and repeats nothing."""
        position, there = self.seen
        found, reached = self.store.read(ROUND, PURPOSE, since=position)
        assert [(one.comparison_id, one.annotator, one.status) for one in found] == [
            v[:3] for v in self.versions[there:]
        ]
        self.seen = (reached, len(self.versions))

    @invariant()
    def is_as_the_model(self) -> None:
        newest = self.newest()
        given = [key for (key, _), (status, _) in newest.items() if status == "submitted"]
        for store in (self.store, self.open()):
            found, _ = store.read(ROUND, PURPOSE)
            assert [(one.comparison_id, one.annotator, one.status) for one in found] == [v[:3] for v in self.versions]
            counts = store.count(ROUND, PURPOSE)
            assert (counts.comparisons, counts.labels, counts.usable) == (len(self.sent), len(given), len(given))
            assert counts.skipped == sum(status == "skipped" for status, _ in newest.values())
            assert counts.complete == sum(given.count(key) >= WANTED[key] for key in self.sent)


def test_the_ledger_does_what_its_model_does() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=8, stateful_step_count=15))


@pytest.mark.long
def test_the_ledger_does_what_its_model_does_for_longer() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=200, stateful_step_count=50))
