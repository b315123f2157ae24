"""What a person sees of rounds that run by themselves: sensors and their reasons, a refused policy, the round page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="The UI tests need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.ui import Server, browsing, require_browser, screenshot, serving, visit, wait_for
from loops import ROUND, copy_loop, evaluate_as_too_far_from_sft
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.cli.runner import LoopRunner

pytestmark = [pytest.mark.integration, pytest.mark.long]


@pytest.fixture(scope="module")
def refused(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """A loop that runs by itself, whose first round's policy is refused."""
    folder: Path = tmp_path_factory.mktemp("refused")
    automation = {"running": True, "poll_seconds": 1}
    people = {"simulated_annotators": False}
    runner = copy_loop(stages.unjudged, folder, gate={"max_kl": 1e-6}, automation=automation, label_store=people)
    evaluate_as_too_far_from_sft(runner, ROUND)
    assert runner.run("release_round", ROUND, ["promotion"]).success
    return runner


@pytest.fixture(scope="module")
def server(refused: LoopRunner) -> Iterator[Server]:
    require_browser()
    with serving(refused.loop.root) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[WebDriver]:
    with browsing() as driver:
        driver.get(server.address)
        wait_for(driver, "Overview", "Runs")
        yield driver


def test_schedule_and_sensors_are_listed(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/automation")
    wait_for(browser, "open_round", "new_labels", "opened_rounds", "judgments_complete", "failed_runs")
    screenshot(browser, "automation")


def test_a_tick_says_why_it_launched_nothing(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/locations/rlhf_dagster/sensors/new_labels")
    wait_for(browser, "Trains a round once enough labels are new", "0 runs requested")
    screenshot(browser, "sensor-ticks")
    xpath = "//table//button[contains(normalize-space(.), '0 runs requested')]"
    WebDriverWait(browser, 60).until(lambda _: browser.find_elements(By.XPATH, xpath))[0].click()
    wait_for(browser, f"Skip reason: {ROUND}: no new usable label (40 of 40 comparisons have their labels).")
    screenshot(browser, "sensor-tick")


def test_a_refused_policy_is_shown_with_the_rule_in_its_way(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/promotion")
    wait_for(browser, "promoted", "false", "fail", "alarms", "max_kl")
    screenshot(browser, "blocked-promotion")


def test_the_page_of_all_rounds_is_linked_from_its_asset(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/round_page")
    wait_for(browser, "All rounds on one page", "/rounds.html")
    link = browser.find_element(By.CSS_SELECTOR, "a[href$='/rounds.html']").get_attribute("href")
    browser.get(str(link))
    wait_for(browser, "What waits for whom", ROUND, "Refused", "over the budget of 1e-06")
    screenshot(browser, "round-page")
