"""Test-wide settings (one torch thread for each worker, no way to a hub), and small loops made once a session."""

import gc
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests start hundreds of processes, each of which would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Pytest's importlib mode leaves sys.path alone; the helpers are a plain module beside the tests.
sys.path.insert(0, str(Path(__file__).parent))

from label_studio import LabelStudioServer, free_port, require_label_studio
from loops import ROUND, Stages, copy_folder, copy_loop, open_runner, run_missing, run_round, write_loop
from object_server import S3Server, s3_server
from people import share_one_key
from postgres import PostgresServer, require_postgres

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.labeling.label_studio.server import environment_folder

share_one_key()

# A machine that is busy is slow, and no test is about time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", PATIENT, max_examples=40)
settings.register_profile("thorough", PATIENT, max_examples=400)
settings.load_profile("quick")

LONGEST = [
    "integration/test_cancel.py",
    "integration/test_demo.py",
    "training/test_ppo_modes.py",
    "training/test_zoo.py",
    "training/test_train_command.py",
    "training/test_resume.py",
    "label_studio/test_store.py",
    "integration/test_label_studio_up.py",
    "cli/test_commands.py",
    "assets/test_gate.py",
    "integration/test_ui.py",
    "integration/test_services.py",
    "training/test_adapter_checkpoints.py",
]
"""The modules that take longest, the longest first."""


def pytest_configure() -> None:
    """A run in the background begins with signals ignored, and servers that are stopped by them would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first: what is left for the end is short, and no worker waits long for another."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


def pytest_runtest_logstart() -> None:
    """Loops that are opened narrow it for the process, which in use has one loop."""
    os.umask(0o022)


def pytest_collection_finish() -> None:
    """Modules stay as long as the session: every training collects garbage, and need not look through them again."""
    gc.collect()
    gc.freeze()


@event.listens_for(Engine, "connect")
def do_not_sync(connection: Any, _: object) -> None:
    """Records of Dagster and of the ledger, at every event: what a killed process has written stays without it too."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def kept_engines() -> Iterator[None]:
    """Dagster makes an engine for every event, which compiles every statement anew; here a few are kept."""
    make = sqlite_event_log.create_engine

    @lru_cache(maxsize=8)
    def kept(address: str, timeout: float) -> Engine:
        return make(address, poolclass=NullPool, connect_args={"timeout": timeout})

    def engine_of(address: str, poolclass: type[NullPool], connect_args: dict[str, float] | None = None) -> Engine:
        return kept(address, (connect_args or {}).get("timeout", 5.0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_event_log, "create_engine", engine_of)
        yield


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A real Label Studio, shared by the session's tests: each makes projects of its own."""
    require_label_studio()
    server = LabelStudioServer(tmp_path_factory.mktemp("label-studio"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3Server]:
    """An S3 server, shared by the session's tests: each takes a bucket of its own."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_service: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, which the test's process and its children find in their environment."""
    for name, value in s3_service.environment.items():
        monkeypatch.setenv(name, value)
    return s3_service


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real Postgres server, shared by the session's tests: each has a schema of its own."""
    programs = require_postgres()
    # Not in pytest's folder, which only its owner can enter.
    with TemporaryDirectory(prefix="rlhf-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def base_model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of base models for the session, so that the small one is pretrained once."""
    folder = tmp_path_factory.mktemp("cache")
    # Label Studio is installed once on the machine, in the cache that is hidden from here on.
    installed = environment_folder()
    (folder / installed.name).symlink_to(installed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> Stages:
    """The small loop's first round, run once a session. Tests that change something work on a copy."""
    root = tmp_path_factory.mktemp("stages")
    folders = Stages(root / "prepared", root / "unjudged", root / "finished")
    runner = open_runner(write_loop(folders.prepared))
    assert run_missing(runner, "prepare").success
    copy_folder(folders.prepared, folders.unjudged)
    runner = open_runner(folders.unjudged)
    key = open_next_round(runner.instance, runner.loop)
    assert key == ROUND
    assert run_missing(runner, "collect_round", key).success
    assert run_missing(runner, "train_round", key, until="evaluation_completions").success
    copy_folder(folders.unjudged, folders.finished)
    assert run_missing(open_runner(folders.finished), "train_round", key).success
    return folders


@pytest.fixture(scope="session")
def finished(stages: Stages) -> LoopRunner:
    """The finished loop, to look at."""
    return open_runner(stages.finished)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., LoopRunner]:
    """``copy_of(folder, **sections)``: a copy to work on, with some settings replaced."""
    return lambda source, **sections: copy_loop(source, tmp_path / "loop", **sections)


@pytest.fixture(scope="session")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, stages: Stages) -> LoopRunner:
    """The finished loop after a second round, to look at."""
    runner = copy_loop(stages.finished, tmp_path_factory.mktemp("two"))
    run_round(runner)
    return runner
