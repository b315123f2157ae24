"""The loop in the Dagster UI, as a person sees it in a browser."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("selenium", reason="The UI tests need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.ui import Server, browsing, click, free_port, require_browser, screenshot, serving, visit, wait_for
from loops import assert_one_sentence, rlhf
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.build import build_loop
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.cli.ui import SERVICES_LOG
from rlhf_dagster.config.arms import TRAINED

pytestmark = pytest.mark.integration

WIDE = (3200, 2800)
SHOWN_WHOLE = 18
"""Letters of an asset's name; the graph shortens longer ones in the middle."""


@pytest.fixture(scope="module")
def server(two_rounds: LoopRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started in a folder whose `.env`, which Dagster reads, names another loop, and with files called as modules."""
    require_browser()
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / ".env").write_text(f"RLHF_LOOP={folder}\n", encoding="utf-8")
    for name in ("yaml", "queue", "tokenizers", "json", "dagster", "rlhf_dagster"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported from the working folder')", encoding="utf-8")
    with serving(two_rounds.loop.root, folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[WebDriver]:
    with browsing() as driver:
        driver.get(server.address)
        # A server that answers has not loaded the code location yet; the first page waits for it.
        wait_for(driver, "Overview", "Runs")
        yield driver


def test_graph_shows_every_asset_in_its_group(browser: WebDriver, server: Server, two_rounds: LoopRunner) -> None:
    size = browser.get_window_size()
    browser.set_window_size(*WIDE)  # the graph is zoomed out to fit, and small assets have no names
    visit(browser, f"{server.address}/asset-groups/")
    specs = build_loop(two_rounds.loop.config, two_rounds.loop.root).resolve_all_asset_specs()
    wait_for(browser, "Global asset lineage", *{spec.group_name or "" for spec in specs})
    screenshot(browser, "asset-groups")
    ActionChains(browser).key_down(Keys.ALT).send_keys("e").key_up(Keys.ALT).perform()
    names = [spec.key.to_user_string() for spec in specs]
    page = wait_for(browser, *(name for name in names if len(name) <= SHOWN_WHOLE))
    assert [arm.asset for arm in TRAINED.values() if arm.asset in page] == ["ppo_policy"]
    screenshot(browser, "asset-graph")
    browser.set_window_size(size["width"], size["height"])


def test_policy_page_has_its_numbers_and_curves(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/ppo_policy")
    wait_for(browser, "The policy after PPO", "round-0002", "model_id", "checkpoint", "kl_coef", "training_curves")
    screenshot(browser, "ppo-policy")
    click(browser, "[Show Markdown]")
    WebDriverWait(browser, 60).until(lambda _: picture_width(browser) > 0)
    screenshot(browser, "ppo-policy-curves")


def test_policy_page_plots_numbers_by_round(browser: WebDriver, server: Server) -> None:
    browser.get(f"{server.address}/assets/ppo_policy")  # loaded anew, without the picture that is open
    wait_for(browser, "Plots")
    click(browser, "Plots")
    wait_for(browser, "Partitions", "reward", "kl", "entropy")
    plots = WebDriverWait(browser, 60).until(lambda _: browser.find_elements(By.CSS_SELECTOR, "canvas"))
    assert len(plots) >= 3
    screenshot(browser, "ppo-policy-plots")


def test_check_of_the_report_says_what_the_gate_found(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/eval_report?view=checks")
    wait_for(browser, "may_be_promoted", "blocking", "Passed", "round-0002", "The sequence KL to SFT is", "kl_nats")
    screenshot(browser, "eval-report-check")


def test_report_page_names_judges_and_leads_to_the_report(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/eval_report")
    wait_for(browser, "vs_behaviour_reward_model", "vs_sft_simulated_annotators", "vs_sft_gold_judge")
    screenshot(browser, "eval-report")
    link = browser.find_element(By.CSS_SELECTOR, "a[href$='/round-0002.html']").get_attribute("href")
    assert link == f"{server.address}/loop-pages/assets/eval_report/round-0002.html"
    with another_tab(browser):
        # Under another name of this machine, as from another host: the link has none.
        browser.get(link.replace("127.0.0.1", "localhost"))
        wait_for(browser, "How to read this page", "round-0002")
        browser.get(server.pages_line.split()[1])
        wait_for(browser, "What waits for whom", "round-0002")
        browser.find_element(By.CSS_SELECTOR, "a[href$='round-0001.html']").click()
        wait_for(browser, "How to read this page", "round-0001")


def test_table_page_describes_its_columns(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/assets/completions")
    wait_for(browser, "Row count", "log_probs", "log-probability of each token under the policy")
    screenshot(browser, "completions")


def test_run_page_lists_the_stages(browser: WebDriver, server: Server, two_rounds: LoopRunner) -> None:
    newest = two_rounds.instance.get_runs(limit=1)[0]
    visit(browser, f"{server.address}/runs/{newest.run_id}")
    wait_for(browser, "Success", "train_round", "round-0002", "reward_model", "ppo_policy", "promotion")
    screenshot(browser, "run")


def test_jobs_know_the_runs_made_from_the_terminal(browser: WebDriver, server: Server, two_rounds: LoopRunner) -> None:
    visit(browser, f"{server.address}/jobs")
    wait_for(browser, *job_assets(two_rounds.loop.config), " ago")
    screenshot(browser, "jobs")
    visit(browser, f"{server.address}/locations/rlhf_dagster/jobs/train_round")
    wait_for(browser, "Latest run:", "Read the labels, train reward model and policy")
    screenshot(browser, "job")
    visit(browser, f"{server.address}/timeline")
    wait_for(browser, "Timeline", "prepare", "collect_round", "train_round")


def test_launchpad_offers_settings_and_no_plumbing(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/locations/rlhf_dagster/jobs/train_round/playground")
    page = wait_for(browser, "No errors", "ppo_policy", "Launch Run")
    assert "root:" not in page
    screenshot(browser, "launchpad")


def test_the_launchpad_of_an_approval_asks_for_a_name_and_a_reason(browser: WebDriver, server: Server) -> None:
    visit(browser, f"{server.address}/locations/rlhf_dagster/jobs/approve/playground")
    wait_for(browser, "No errors", "approve", "anyway: false", "by: ''", "reason: ''", "round: ''", "Launch Run")
    screenshot(browser, "launchpad-approve-empty")


def test_a_second_ui_of_a_loop_says_where_the_first_is(server: Server, two_rounds: LoopRunner) -> None:
    log = Path(two_rounds.loop.root, "dagster", SERVICES_LOG)
    before = log.read_bytes()
    second = rlhf("ui", "--loop", two_rounds.loop.root, "--port", free_port())
    assert_one_sentence(second, "is served already", server.address, str(server.process.pid))
    assert log.read_bytes().startswith(before)


def test_a_port_in_use_is_one_sentence(stages: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_sentence(rlhf("ui", "--loop", stages.prepared, "--port", port), f"--port {port}", "another port")


def test_terminal_shows_one_line_and_dagster_writes_a_log(
    browser: WebDriver, server: Server, two_rounds: LoopRunner
) -> None:
    """The last that asks the server anything, since it is stopped."""
    browser.get("about:blank")
    assert urlopen(f"{server.address}/server_info").status == 200
    assert server.stop() == (0, "")
    assert server.pages_line.startswith(f"  rounds     {server.address}/loop-pages/rounds.html  ")
    assert server.first_line.startswith(f"Dagster UI of the loop {two_rounds.loop.config.name}: {server.address} ")
    log = Path(two_rounds.loop.root, "dagster", SERVICES_LOG).read_text(encoding="utf-8")
    assert "Serving dagster-webserver" in log


@contextmanager
def another_tab(browser: WebDriver) -> Iterator[None]:
    """Pages other than Dagster's, which the app that is open does not lead to."""
    app = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        yield
    finally:
        browser.close()
        browser.switch_to.window(app)


def picture_width(browser: WebDriver) -> int:
    """Natural width of the training curves, 0 until they are drawn."""
    script = "const i = document.querySelector('img[alt=\"training curves\"]'); return i ? i.naturalWidth : 0"
    return int(browser.execute_script(script))
