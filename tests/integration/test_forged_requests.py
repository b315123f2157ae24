"""What a page of somebody else can have a browser do to Dagster's web server: everything without the guard, nothing
with it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest

pytest.importorskip("selenium", reason="The UI tests need selenium: pip install 'rlhf-dagster[dev]'.")
pytest.importorskip("dagster_webserver", reason="The UI tests need dagster-webserver.")

import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from integration.ui import browsing, free_port, require_browser
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.automation.web_server import GuardedApp

pytestmark = pytest.mark.integration

STRANGER = "evil.example"
"""A name of somebody else, which leads to this machine as theirs would after DNS rebinding."""
PAGE = Path(__file__).with_name("forging.html")
ASK = """
const [key, done] = arguments;
const query = `mutation { setConcurrencyLimit(concurrencyKey: "${key}", limit: 1) }`;
fetch("/graphql", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({query})})
  .then(answer => done(answer.status), () => done(0));
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    require_browser()
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("home"))) as made:
        yield made


@pytest.fixture(scope="module")
def dagster_app(instance: dg.DagsterInstance) -> Iterator[Any]:
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        yield create_app_from_workspace_process_context(context)


@pytest.fixture(scope="module")
def browser(instance: dg.DagsterInstance) -> Iterator[WebDriver]:
    with browsing(f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1") as driver:
        yield driver


@contextmanager
def served(app: Any) -> Iterator[int]:
    """An ASGI application on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=(port := free_port()), log_level="warning"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield port
    server.should_exit = True
    thread.join()


class StrangersPage(BaseHTTPRequestHandler):
    def __init__(self, page: bytes, *connection: Any) -> None:
        self._page = page
        super().__init__(*connection)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self._page)

    def log_message(self, format: str, *args: object) -> None:
        pass


def attack(browser: WebDriver, target: str, run: str) -> dict[str, Any]:
    """Open the stranger's page, which acts on ``target``; the ways that it tried, and whether a websocket opened."""
    page = PAGE.read_text(encoding="utf-8").replace("TARGET", target).replace("RUN", run).encode()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(StrangersPage, page)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f"http://{STRANGER}:{server.server_port}/")
        WebDriverWait(browser, 60).until(lambda _: browser.title.startswith("{"))
        found = json.loads(browser.title)
        server.shutdown()
    return found


def worked(instance: dg.DagsterInstance, run: str) -> set[str]:
    """The ways by which a mutation ran."""
    keys = instance.event_log_storage.get_concurrency_keys()
    return {key.removeprefix(f"{run}_") for key in keys if key.startswith(f"{run}_")}


def test_no_page_of_somebody_else_acts_through_the_guard(browser, dagster_app, instance) -> None:
    with served(dagster_app) as port:
        bare = attack(browser, f"http://127.0.0.1:{port}", "bare")
    open_ways = worked(instance, "bare")
    assert bare["websocket"] and len(open_ways) >= 12, open_ways  # else this shows nothing
    with served(GuardedApp(dagster_app)) as port:
        guarded = attack(browser, f"http://127.0.0.1:{port}", "guarded")
    assert len(guarded["ways"]) >= 20
    assert (worked(instance, "guarded"), guarded["websocket"]) == (set(), False)


def test_a_name_bound_to_this_machine_opens_nothing(browser, dagster_app, instance) -> None:
    with served(dagster_app) as port:
        assert asked_as(browser, f"http://{STRANGER}:{port}", "rebound_bare") == 200
    with served(GuardedApp(dagster_app)) as port:
        assert asked_as(browser, f"http://{STRANGER}:{port}", "rebound_guarded") == 421
        assert asked_as(browser, f"http://127.0.0.1:{port}", "rebound_own") == 200
    assert worked(instance, "rebound") == {"bare", "own"}


def asked_as(browser: WebDriver, page: str, key: str) -> int:
    """The status that a script of ``page`` gets for a mutation."""
    browser.get(f"{page}/server_info")
    return int(browser.execute_async_script(ASK, key))
