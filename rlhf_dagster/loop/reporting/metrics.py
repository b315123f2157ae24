"""A loop's numbers for those who watch it from outside: rounds, labels, the queue, the champion, models, disk."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.report import JUDGES
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, POLICY, SFT, find_win_rate
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.annotators import BATCHES
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_quarantine
from rlhf_dagster.loop.reporting.prometheus import Gauge, Labels
from rlhf_dagster.loop.round_state import Phase, RoundState, newest_promoted, round_state
from rlhf_dagster.loop.upkeep.retention import stored_models
from rlhf_dagster.records.round_keys import IMPORT_ROUND

SentAt = Callable[[str, str], float | None]
"""When the comparisons of an asset were sent for a round, in seconds since 1970; None where it is not on record."""
Gauges = Callable[[], Iterator[Gauge]]


@dataclass(frozen=True)
class LoopMetrics:
    """The numbers of a loop whose rounds are ``rounds``.

    Nothing is asked of a label server but whether it answers: labels are counted as they were read last.
    """

    loop: LoopFolder
    rounds: Sequence[str]
    sent_at: SentAt

    def parts(self) -> Mapping[str, Gauges]:
        """What gives the numbers, by what they are about; each raises UserError where they cannot be read."""
        return {
            "rounds": self._of_rounds,
            "labels": self._of_labels,
            "label store": self._of_label_store,
            "champion": self._of_champion,
            "models": self._of_models,
            "disk": self._of_disk,
        }

    def _of_rounds(self) -> Iterator[Gauge]:
        phases = Counter(state.phase for state in self._states)
        phases["closed"] += self._closed
        by_phase = {phase: phases[phase] for phase in get_args(Phase)}
        yield Gauge.by("rlhf_rounds", "Rounds, by what has become of them.", "state", by_phase)
        stopped = read_stop(self.loop.store) is not None
        yield Gauge.of("rlhf_stopped", "1 where somebody has pulled the stop cord.", stopped)

    def _of_labels(self) -> Iterator[Gauge]:
        counts = [self._count(key, "train") for key in self.rounds]
        waiting = [state.labels.new for state in self._states if state.labels]
        unreadable = [len(read_quarantine(self.loop, key, "train")) for key in self.rounds]
        usable = sum(one.usable for one in counts)
        yield Gauge.of("rlhf_labels_usable", "Labels that decide something; all rounds together.", usable)
        yield Gauge.of("rlhf_labels_pending", "Usable labels that no training has read yet.", sum(waiting))
        yield Gauge.of("rlhf_labels_skipped", "Comparisons passed over.", sum(one.skipped for one in counts))
        yield Gauge.of("rlhf_labels_quarantined", "Annotations that could not be read.", sum(unreadable))
        yield Gauge.of(
            "rlhf_stop_requests",
            "People who ask to stop the training, in rounds that are not closed.",
            sum(state.labels.stop_requests for state in self._states if state.labels),
        )
        queues = dict.fromkeys(BATCHES, 0)
        oldest: dict[str, float] = {}
        for state in self._states:
            purpose, missing = _missing(state)
            if missing:
                queues[purpose] += missing
                sent = self.sent_at(BATCHES[purpose], state.round)
                oldest |= {} if sent is None else {purpose: min(sent, oldest.get(purpose, sent))}
        yield Gauge.by("rlhf_comparisons_waiting", "Comparisons that still want labels.", "purpose", queues)
        about = "When the oldest of the comparisons that still want labels were sent."
        yield Gauge.by("rlhf_comparisons_waiting_oldest_timestamp_seconds", about, "purpose", oldest)

    def _of_label_store(self) -> Iterator[Gauge]:
        about = "1 where the label server answers, or the ledger opens."
        try:
            store = self.loop.label_store
            if not isinstance(store, EmbeddedLabelStore):
                _ = store.client
        except UserError:
            yield Gauge.of("rlhf_label_store_up", about, 0)
        else:
            yield Gauge.of("rlhf_label_store_up", about, 1)

    def _of_champion(self) -> Iterator[Gauge]:
        champion = self.loop.registry.champion()
        if champion is None:
            return
        policy, since = champion.policy_id, champion.since.timestamp()
        labels = {"policy": policy, "round": self.loop.registry.get(policy).round_key}
        yield Gauge.of("rlhf_champion_info", "1, with the champion's id and round.", 1, **labels)
        yield Gauge.of("rlhf_champion_since_timestamp_seconds", "When it became the champion.", since)
        report = self.loop.json("eval_report", labels["round"]) if labels["round"] else None
        if report is None or report["policy_id"] != policy:
            return
        human = self.loop.json("human_evaluation", labels["round"]) or {}
        judged = human.get("win_rates") or [] if human.get("policy_id", policy) == policy else []
        rates = [rate for rate in [*report["win_rates"], *judged] if rate["value"] is not None]
        yield _win_rates(rates)
        kl = report["policies"][POLICY]["kl"]["value"]
        if kl is not None:
            yield Gauge.of("rlhf_champion_kl_nats", "Its KL to the SFT policy, in nats a response.", kl)

    def _of_models(self) -> Iterator[Gauge]:
        models = stored_models(self.loop)
        yield Gauge.of("rlhf_models", "Trained models that are kept.", len(models))
        yield Gauge.of("rlhf_models_bytes", "Sizes of their files.", sum(model.size for model in models))

    def _of_disk(self) -> Iterator[Gauge]:
        used = _sizes(self.loop.root)
        yield Gauge.by("rlhf_disk_used_bytes", "Sizes of the files in the loop's folder.", "folder", used)
        free = shutil.disk_usage(self.loop.root).free
        yield Gauge.of("rlhf_disk_free_bytes", "Room on the disk of the loop's folder.", free)

    @cached_property
    def _newest(self) -> str:
        return newest_promoted(self.loop)

    @cached_property
    def _closed(self) -> int:
        return sum(IMPORT_ROUND < key < self._newest for key in self.rounds)

    @cached_property
    def _states(self) -> list[RoundState]:
        """Of the rounds that no later promotion has closed."""
        later = [key for key in self.rounds if key > IMPORT_ROUND and key >= self._newest]
        return [round_state(self.loop, key, self._count) for key in later]

    @cached_property
    def _store(self) -> Any:
        return self.loop.label_store

    def _count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        store = self._store
        if isinstance(store, EmbeddedLabelStore):
            return store.count(round_key, purpose, since)
        counts: LabelCounts = store.count_on_record(round_key, purpose, since)
        return counts


def _missing(state: RoundState) -> tuple[str, int]:
    """What people are asked for in a round, by its purpose, and how many comparisons of it still want labels."""
    purpose, counts = ("evaluation", state.judgments) if state.phase == "judging" else ("train", state.labels)
    if state.phase not in ("labelling", "judging") or counts is None:
        return purpose, 0
    return purpose, counts.comparisons - counts.complete


def _win_rates(rates: Sequence[dict[str, Any]]) -> Gauge:
    found = (find_win_rate(rates, JUDGES, against) for against in (SFT, BEHAVIOUR))
    values: dict[Labels, float] = {
        (("against", rate["against"]), ("judge", rate["judge"])): rate["value"] for rate in found if rate
    }
    about = "How often it is preferred, 0 to 1, by the most trustworthy judge that there is."
    return Gauge("rlhf_champion_win_rate", about, values)


def _sizes(root: Path) -> dict[str, int]:
    """Bytes by folder of the loop's folder; files beside them are in ``.``."""
    sizes = {".": 0}
    for where, _, names in os.walk(root, onerror=_unreadable):
        folder = Path(where).relative_to(root).parts[:1]
        sizes["".join(folder) or "."] = sizes.get("".join(folder) or ".", 0) + sum(_size(where, name) for name in names)
    return sizes


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # gone since the folder above was listed
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}), so the disk used is not known.")


def _size(where: str, name: str) -> int:
    try:
        return Path(where, name).lstat().st_size
    except FileNotFoundError:  # gone since the folder was listed
        return 0
