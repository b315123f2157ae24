"""What is run when, and what becomes of the rest when a worker fails or dies; the workers here are fakes."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from smoke_claim import ALONE, FREE, PLAIN, Smoke, plan_of

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Variant
from rlhf_dagster.replication.running.plan import VariantWork
from rlhf_dagster.replication.running.pool import Pool
from rlhf_dagster.replication.running.replicate import only_one
from rlhf_dagster.replication.running.requests import WorkerMessage
from rlhf_dagster.replication.running.schedule import Schedule

FAKE = """
import json, os, pathlib, sys, time

def say(**message):
    empty = {"what": "", "round_key": "", "text": "", "seconds": 0.0, "step": 0, "total": 0}
    print(json.dumps(empty | message), flush=True)

for line in sys.stdin:
    request = json.loads(line)
    folder = pathlib.Path(request["folder"])
    say(kind="started", what=str(os.getpid()))
    tried = folder.with_suffix(".tried")
    if folder.name.startswith("dies") or (folder.name.startswith("stumbles") and not tried.exists()):
        tried.parent.mkdir(exist_ok=True)
        tried.touch()
        sys.stdout.write('{"kind": "made", "wh')
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if folder.name.startswith("refuses"):
        say(kind="failed", text="It will not.")
        continue
    for asset, place in request["keep"].items():
        pathlib.Path(place).mkdir(parents=True)
        say(kind="kept", what=asset)
    if folder.name.startswith("waits"):
        time.sleep(600)
    say(kind="done", text=request["begin_from"] or "")
"""
Heard = list[tuple[str, str, str]]


def named(variant: Variant, name: str, updates: int) -> Variant:
    """The variant under another name and with settings of its own."""
    return replace(variant, name=name, settings=variant.settings | {"ppo": {"updates": updates}})


def run(
    out: Path, *variants: Variant, jobs: int = 1, also: Callable[[WorkerMessage], object] = bool
) -> tuple[Heard, dict[str, str]]:
    """What was said of which variant, without its start, and why variants failed."""
    heard: Heard = []

    def listen(work: VariantWork, said: WorkerMessage) -> None:
        also(said)
        if said.kind != "started":
            heard.append((work.loop.variant.name, said.kind, said.text))

    works = plan_of(out, Smoke(*variants)).unfinished()
    pool = Pool(jobs, out, command=(sys.executable, "-c", FAKE), last_words=0.1)
    try:
        failures = Schedule(works, pool, lambda work: float(work.loop.config.ppo.updates), listen).run()
    finally:
        pool.close()
    return heard, {name.split("-")[0]: why for name, why in failures.items()}


def test_the_longest_way_is_begun_first_and_a_beginning_before_what_takes_it_over(tmp_path: Path) -> None:
    short, long = named(ALONE, "short", 5), named(ALONE, "long", 50)
    source, heavy = named(PLAIN, "source", 2), named(FREE, "heavy", 60)
    heavy = replace(heavy, forks=source)
    heard, failures = run(tmp_path, short, long, heavy, source)
    assert failures == {}
    assert [name for name, kind, _ in heard if kind == "done"] == ["source", "heavy", "long", "short"]
    texts = {name: text for name, kind, text in heard if kind == "done"}
    assert texts.pop("heavy") == str(plan_of(tmp_path, Smoke(source, heavy)).works[0].keep[heavy.after])
    assert set(texts.values()) == {""}


def test_what_takes_over_a_beginning_starts_before_its_source_has_ended(tmp_path: Path) -> None:
    source = named(PLAIN, "waits", 2)
    eager = replace(named(FREE, "eager", 3), forks=source)

    def interrupt(said: WorkerMessage) -> None:
        if said.kind == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source, eager, jobs=2, also=interrupt)


def test_a_failure_is_that_of_the_variant_and_of_what_begins_with_it(tmp_path: Path) -> None:
    refuses = named(PLAIN, "refuses", 2)
    lost = replace(named(FREE, "lost", 3), forks=refuses)
    later = replace(named(FREE, "later", 4), forks=lost, after="ppo_policy", settings=lost.settings)
    later = replace(later, settings=lost.settings | {"evaluation": {"prompts": 20, "human_judgments": 24}})
    heard, failures = run(tmp_path, refuses, lost, later, named(ALONE, "fine", 5))
    assert [name for name, kind, _ in heard if kind == "done"] == ["fine"]
    begins = "It begins as refuses, seed 0, which failed: It will not."
    assert failures == {
        "refuses": "It will not.",
        "lost": begins,
        "later": f"It begins as lost, seed 0, which failed: {begins}",
    }


def test_a_worker_that_dies_is_replaced_and_its_variant_tried_again(tmp_path: Path) -> None:
    heard, failures = run(tmp_path, named(ALONE, "stumbles", 5), named(ALONE, "dies", 6), named(ALONE, "fine", 4))
    assert [name for name, kind, _ in heard if kind == "done"] == ["stumbles", "fine"]
    assert failures == {"dies": "The process that ran it died, 2 times; is there enough memory for it?"}


def test_no_worker_outlives_an_interrupted_call(tmp_path: Path) -> None:
    workers: list[psutil.Process] = []

    def interrupt(said: WorkerMessage) -> None:
        if said.kind == "started":
            workers.append(psutil.Process(int(said.what)))
        if len(workers) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    waiting = [named(ALONE, f"waits-{number}", number) for number in (5, 6)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *waiting, jobs=2, also=interrupt)
    assert not any(worker.is_running() for worker in workers)


def test_two_calls_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        only_one(tmp_path, None),
        pytest.raises(UserError, match="another `rlhf replicate` works here"),
        only_one(tmp_path, 0.0),
    ):
        pass
    with only_one(tmp_path, 0.0):
        pass
