"""A whole round by clicks alone: opened, collected, trained, approved, rolled back, and the loop stopped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("selenium", reason="The UI tests need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.ui import (
    Server,
    browsing,
    click,
    press,
    require_browser,
    run_is_over,
    screenshot,
    serving,
    visit,
    wait_for,
    write_config,
)
from loops import ROUND, checkpoint, copy_loop
from selenium.webdriver.remote.webdriver import WebDriver

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.lineage.stop_cord import read_stop

pytestmark = [pytest.mark.integration, pytest.mark.long]

JOBS = "locations/rlhf_dagster/jobs"
ADA = {"by": "Ada", "reason": "I read 50 samples", "round": ROUND, "anyway": False}


@pytest.fixture(scope="module")
def runner(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """A prepared loop, in which a person approves."""
    folder: Path = tmp_path_factory.mktemp("clicked")
    return copy_loop(stages.prepared, folder, gate={"approval": True})


@pytest.fixture(scope="module")
def server(runner: LoopRunner) -> Iterator[Server]:
    require_browser()
    with serving(runner.loop.root) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[WebDriver]:
    with browsing() as driver:
        driver.get(server.address)
        wait_for(driver, "Overview", "Runs")
        yield driver


def launch(browser: WebDriver, server: Server, job: str, *said: str, **fields: Any) -> None:
    """Fill in the launchpad of a job, launch it, and wait until its run has said all that it is to say."""
    visit(browser, f"{server.address}/{JOBS}/{job}/playground")
    wait_for(browser, "No errors", *(f"{name}:" for name in fields))
    if fields:
        write_config(browser, yaml.safe_dump({"ops": {job: {"config": fields}}}))
        wait_for(browser, "No errors", *(value for value in fields.values() if isinstance(value, str)))
    screenshot(browser, f"launchpad-{job}")
    press(browser, "Launch Run")
    run_is_over(browser)
    wait_for(browser, *said)
    screenshot(browser, f"run-{job}")


def materialize(browser: WebDriver, server: Server, runner: LoopRunner, job: str) -> None:
    """Launch a job of assets on the one round that there is, and wait until its run is over."""
    visit(browser, f"{server.address}/{JOBS}/{job}")
    click(browser, "Materialize all…")
    wait_for(browser, "Partition selection")
    click(browser, "All")
    wait_for(browser, ROUND, "Launch 1 run")
    screenshot(browser, f"materialize-{job}")
    press(browser, "Launch 1 run")
    wait_for(browser, "Launched run")
    visit(browser, f"{server.address}/runs/{runner.instance.get_runs(limit=1)[0].run_id}")
    run_is_over(browser)


def champion(runner: LoopRunner) -> str:
    record = runner.loop.registry.champion()
    assert record
    return record.policy_id


def test_a_round_from_its_opening_to_a_stop(
    browser: WebDriver, server: Server, runner: LoopRunner, finished: LoopRunner
) -> None:
    launch(browser, server, "open_round", f"{ROUND} is open.")
    materialize(browser, server, runner, "collect_round")
    materialize(browser, server, runner, "train_round")
    sft, policy = (checkpoint(runner.loop, *which).model_id for which in (("sft_checkpoint",), ("ppo_policy", ROUND)))
    assert champion(runner) == sft
    for asset in ("reward_model", "ppo_policy"):  # the same models as the commands make
        assert checkpoint(runner.loop, asset, ROUND).digest == checkpoint(finished.loop, asset, ROUND).digest
    launch(browser, server, "approve", f"{policy} of {ROUND} is the champion: by Ada", **ADA)
    assert champion(runner) == policy
    visit(browser, f"{server.address}/assets/promotion")
    wait_for(browser, "Promoted by Ada: I read 50 samples")
    back = f"{sft} is the champion, in the place of {policy}"
    launch(browser, server, "rollback", back, by="Ben", reason="it swears")
    assert champion(runner) == sft
    launch(browser, server, "stop", "Stopped by Ben: odd labels", by="Ben", reason="odd labels")
    stop = read_stop(runner.loop.store)
    assert stop and (stop.by, stop.reason) == ("Ben", "odd labels")


def test_a_wrong_field_fails_the_run_with_a_sentence(browser: WebDriver, server: Server) -> None:
    launch(browser, server, "open_round", "monday is no round's name: rounds are called round-0001", round="monday")
