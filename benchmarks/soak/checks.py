"""What must hold of a loop that lives, and of one in the end."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.request import Request, urlopen

import dagster as dg
from dagster._utils.error import SerializableErrorInfo

from benchmarks.autonomous_loop import look
from benchmarks.soak.living import Living, rlhf
from rlhf_dagster.automation.instance import dagster_home
from rlhf_dagster.automation.own_runs import ALIVE
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.label_store import label_studio_client
from rlhf_dagster.loop.round_state import waits_for

SENTENCES = {"TickFailed"}
"""Errors of ticks that say in a sentence what is away."""
AWAY = {"DagsterUserCodeUnreachableError", "DagsterUserCodeProcessError"}
"""Errors of ticks whose code server was killed under them, or gave no answer in time."""
_GIVEN = re.compile(r"^(\S+), (\w+): ([\d,]+) labels? given", re.MULTILINE)
_REEXECUTED = re.compile(r"run (\w{8})(?: failed[^;]*)?; re-execute it")
_REEXECUTE = "mutation($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) { __typename } }"


@dataclass
class Seen:
    """One look at a loop."""

    rounds: dict[str, str] = field(default_factory=dict)
    """Where each round stands, and whom it waits for."""
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each round and purpose: labels that annotators had confirmed, that the server has, and the ledger."""
    ticks: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        total: Counter[str] = Counter()
        for one in self.labels.values():
            total.update(one)
        stand = Counter(state.split(".")[0] for state in self.rounds.values())
        return (
            f"rounds {_listed(stand)}; labels {_listed(total)}; ticks {_listed(self.ticks)}; runs {_listed(self.runs)}"
        )


def see(living: Living, at_rest: bool) -> Seen:
    """What a loop has come to. ``at_rest``: nothing is killed and nobody labels, so that all has to agree."""
    loop, seen = LoopFolder.open(living.root), Seen()
    with _instance(living) as instance:
        keys = sorted(instance.get_dynamic_partitions("rounds"))
        active = {run.tags.get("dagster/partition") for run in instance.get_runs(dg.RunsFilter(statuses=ALIVE))}
        seen.runs = Counter(run.status.value.lower() for run in instance.get_runs())
        reasons = _ticks(instance, seen)
    for key in keys:
        _see_round(loop, key, key in active, reasons, at_rest, seen)
    given = given_labels(living)
    for key in keys:
        for purpose in ("train", "evaluation"):
            try:
                _see_labels(loop, key, purpose, given, at_rest, seen)
            except UserError as error:  # the server was killed a moment ago
                seen.problems += [f"{key}/{purpose}: {error}"] if at_rest else []
    return seen


def _see_round(loop: LoopFolder, key: str, active: bool, reasons: str, at_rest: bool, seen: Seen) -> None:
    state = look(loop, key)
    if state is None:
        seen.rounds[key] = "server away"
        seen.problems += [f"{key}: its state cannot be read"] if at_rest else []
        return
    why = "a run is at work" if active else "; ".join(state.reasons) or waits_for(loop, state)
    seen.rounds[key] = f"{state.phase}. {why}"
    if not state.decided and not why and key not in reasons:
        seen.problems.append(f"{key} is {state.phase} and waits for nothing that is said")


def _see_labels(
    loop: LoopFolder, key: str, purpose: str, given: Mapping[tuple[str, str], int], at_rest: bool, seen: Seen
) -> None:
    if at_rest:
        loop.label_store.count(key, purpose)
    ledger, server = _in_ledger(loop, key, purpose), _on_server(loop, key, purpose)
    missing, more = (_comparisons(one) - _comparisons(other) for one, other in ((server, ledger), (ledger, server)))
    seen.labels[f"{key}/{purpose}"] = found = {
        "confirmed": given[key, purpose],
        "server": server.total(),
        "ledger": ledger.total(),
    }
    wrong = {
        "more labels were confirmed than the server has": given[key, purpose] > server.total(),
        # A server that was frozen may keep an answer after it was given once more: it is there twice, and trains once.
        "a label trains twice": _trains_twice(loop, key),
        "the ledger has what the server has not": bool(more),
        "the server has what the ledger has not": at_rest and bool(missing),
    }
    seen.problems += [f"{key}/{purpose}: {sentence} {found}" for sentence, holds in wrong.items() if holds]


def _comparisons(labels: Counter[tuple[str, str]]) -> Counter[str]:
    """How many labels each comparison has: annotators have another name on the server than in the ledger."""
    return Counter(comparison for comparison, _ in labels.elements())


def _in_ledger(loop: LoopFolder, key: str, purpose: str) -> Counter[tuple[str, str]]:
    newest = {annotation.annotation_id: annotation for annotation in loop.label_store.read(key, purpose)[0]}
    return Counter((one.comparison_id, one.annotator) for one in newest.values() if one.status == "submitted")


def _trains_twice(loop: LoopFolder, key: str) -> bool:
    trained = loop.table("preference_dataset", key, ["comparison_id", "annotator"])
    return trained is not None and bool(trained.duplicated().any())


def _on_server(loop: LoopFolder, key: str, purpose: str) -> Counter[tuple[str, str]]:
    client = label_studio_client(loop.config, loop.root)
    found: Counter[tuple[str, str]] = Counter()
    for address in loop.label_store.addresses(key, purpose):  # type: ignore[union-attr]
        project, after = int(address.split("/projects/")[1].split("/")[0]), 0
        while page := client.task_page(project, after):
            after = page[-1]["id"]
            found.update(
                (task["data"]["comparison"], str(annotation["completed_by"]))
                for task in page
                for annotation in task["annotations"]
                if not annotation["was_cancelled"]
            )
    return found


def given_labels(living: Living) -> Counter[tuple[str, str]]:
    """Labels that annotators had a confirmation of, by round and purpose."""
    file = living.root / "annotators.log"
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    found: Counter[tuple[str, str]] = Counter()
    for key, purpose, count in _GIVEN.findall(text):
        found[key, purpose] += int(count.replace(",", ""))
    return found


def _ticks(instance: dg.DagsterInstance, seen: Seen) -> str:
    """Counts ticks by outcome, and finds errors that no sentence explains; the newest reasons for doing nothing."""
    reasons = []
    for state in instance.all_instigator_state():
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        for tick in ticks:
            seen.ticks[_outcome(tick.error) if tick.error else tick.status.value.lower()] += 1
            if tick.error and _outcome(tick.error) == "traceback":
                seen.problems.append(f"a tick of {state.instigator_name}: {_innermost(tick.error).message[-300:]}")
        reasons += [tick.tick_data.skip_reason or "" for tick in ticks[:3]]
    return " ".join(reasons)


def _outcome(error: SerializableErrorInfo) -> str:
    names = {one.cls_name for one in _chain(error)}
    return "failed in a sentence" if names & SENTENCES else "code server away" if names & AWAY else "traceback"


def _chain(error: SerializableErrorInfo) -> Iterator[SerializableErrorInfo]:
    one: SerializableErrorInfo | None = error
    while one is not None:
        yield one
        one = one.cause


def _innermost(error: SerializableErrorInfo) -> SerializableErrorInfo:
    return list(_chain(error))[-1]


def as_operators(living: Living) -> list[str]:
    """Do what docs/operations.md says of runs that a sensor waits for a person to re-execute. Says which."""
    with _instance(living) as instance:
        said = " ".join(
            tick.tick_data.skip_reason or ""
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        )
        runs = {run.run_id[:8]: run for run in instance.get_runs()}
    wanted = [runs[short] for short in dict.fromkeys(_REEXECUTED.findall(said)) if short in runs]
    for run in wanted:
        _reexecute(living, run.run_id)
    return [f"{run.job_name} of {run.tags.get('dagster/partition')}" for run in wanted]


def _reexecute(living: Living, run: str) -> None:
    params = {"parentRunId": run, "strategy": "FROM_FAILURE"}
    body = json.dumps({"query": _REEXECUTE, "variables": {"params": params}}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{living.port}/graphql", body, headers), timeout=60) as answer:
        found = json.load(answer)["data"]["launchRunReexecution"]["__typename"]
    if found != "LaunchRunSuccess":
        raise RuntimeError(found)


def commands_speak(living: Living) -> list[str]:
    """Commands that look at a loop, of which none may end with a traceback."""
    problems = []
    for words in (["round", "status", "--loop"], ["doctor"], ["check"], ["metrics"]):
        done = rlhf(*words, living.root)
        if "Traceback" in done.stderr or done.returncode not in (0, 1):
            problems.append(f"{' '.join(words)}: code {done.returncode}: {done.stderr[-500:]}")
    return problems


@contextmanager
def _instance(living: Living) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home(living.root))) as instance:
        yield instance


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
