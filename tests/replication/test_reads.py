"""Which settings each asset reads: a loop may begin as another only where these are set the same."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import write_loop

from rlhf_dagster.assets.rounds import rounds
from rlhf_dagster.automation.execution import execute
from rlhf_dagster.build import build_loop
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.variants.forks import ASSET_ORDER, CHANGES_NOTHING, FIRST_READER

ASKED = {
    "labeling": {"drift_share": 0.1},
    "evaluation": {"best_of_n": 2},
    "arms": ["dpo", "rloo"],
    "release": {"arm": "best"},
}
"""More than the small loop has, so that more is read."""
MAY_REFUSE = {"evaluation", "gate", "data.annotator_kind", "reward", "ppo"}
"""Read early, to refuse what could never be decided (for too few prompts), labelled (by a kind that is not there) or
learned from (by PPO, from a reward model that guesses)."""
EARLY = ASSET_ORDER[: ASSET_ORDER.index("reward_model_halves")]


class Reads:
    """The settings that are read while an asset is made, as `section` or, of one setting of it, `section.name`."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = defaultdict(set)
        self._asset, self._checking = "", 0

    def event(self, event: dg.DagsterEvent) -> None:
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._asset = event.step_key or ""
        elif event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
            self._asset = ""

    def add(self, settings: Settings, name: str) -> None:
        if not self._asset or self._checking or name not in type(settings).model_fields:
            return
        if isinstance(settings, LoopConfig):
            self.found[self._asset].add(name)
        elif name == "annotator_kind":
            self.found[self._asset].add("data.annotator_kind")

    @contextmanager
    def checking(self) -> Iterator[None]:
        """While settings are validated, which reads them all."""
        self._checking += 1
        try:
            yield
        finally:
            self._checking -= 1


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> dict[str, set[str]]:
    """What the assets of one round read, by asset. This runs them all, which no look at the code can stand for."""
    spy = Reads()
    folder = write_loop(tmp_path_factory.mktemp("reads"), **ASKED)
    loop, instance = LoopFolder.open(folder), dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(str(rounds.name), ["round-0001"])
    definitions = build_loop(loop.config, loop.root)
    with pytest.MonkeyPatch.context() as patch:
        spy_on(patch, spy)
        for job in ("prepare", "collect_round", "train_round"):
            key = None if job == "prepare" else "round-0001"
            outcome = execute(definitions, instance, job, key, listener=spy.event)
            assert outcome.success, outcome
    return spy.found


def spy_on(patch: pytest.MonkeyPatch, spy: Reads) -> None:
    read: Callable[[Any, str], Any] = Settings.__getattribute__
    changed = Settings.changed

    def reading(self: Settings, name: str) -> Any:
        spy.add(self, name)
        return read(self, name)

    def checked(self: Settings, **changes: Any) -> Settings:
        with spy.checking():
            return changed(self, **changes)

    patch.setattr(Settings, "__getattribute__", reading)
    patch.setattr(Settings, "changed", checked)


@pytest.mark.parametrize("asset", ASSET_ORDER)
def test_an_asset_reads_nothing_that_is_said_to_be_read_later(asset: str, reads: dict[str, set[str]]) -> None:
    if asset not in reads:
        pytest.skip("not in this loop")
    read = reads[asset] - set(CHANGES_NOTHING) - (MAY_REFUSE if asset in EARLY else set())
    place = ASSET_ORDER.index(asset)
    too_early = {path for path in read if path in FIRST_READER and ASSET_ORDER.index(FIRST_READER[path]) > place}
    assert too_early == set()


def test_the_reads_are_seen(reads: dict[str, set[str]]) -> None:
    assert "data" in reads["prompts"]
    assert {"sft", "sampling"} <= reads["sft_checkpoint"]
    assert {"labeling", "data.annotator_kind"} <= reads["preference_batch"]
    assert "reward_model" in reads["reward_model"]
    assert "ppo" in reads["ppo_policy"]
    assert "eval_report" in reads
