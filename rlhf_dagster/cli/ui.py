"""`rlhf ui`: Dagster's web server, daemon and code server on one loop, its pages, and its own Label Studio.

Each of these services is a process that this one keeps running. Runs are other processes: they go on when one dies.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from rlhf_dagster.automation.declared import DeclaredLoop
from rlhf_dagster.automation.instance import CODE_LOCATION, SERVED_LOOP, dagster_home, open_instance
from rlhf_dagster.automation.own_runs import ALIVE
from rlhf_dagster.cli.label_studio import install_label_studio, port_of, show, stop_when_asked
from rlhf_dagster.cli.services import Service, keep_running, listens, logged, start_all, stop_all
from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.common.child_processes import dagster_environment, plain_environment, python_command
from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.common.files import locked_at_once, write_atomically
from rlhf_dagster.common.http.own_requests import OWN_NAMES
from rlhf_dagster.common.ports import LOOPBACK, require_free, why_not_free
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.label_studio.server import LOG as LABEL_STUDIO_LOG
from rlhf_dagster.labeling.label_studio.server import SERVER_FOLDER, Server, answers, is_local, prepare, start
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.pages.server import PAGES_PATH, ROUNDS_PAGE
from rlhf_dagster.storage.known import CLOUD_VARIABLES, is_remote

SERVICES_LOG = "ui.log"
SERVED = "ui.json"
"""Where a loop is served, for those who would serve it too."""
WORKSPACE = "workspace.yaml"


def serve(folder: Path, port: int) -> None:
    """Serve the Dagster UI until Ctrl-C. What Dagster has to say goes to ``dagster/ui.log`` in the loop's folder."""
    if find_spec("dagster_webserver") is None:
        raise UserError(f"The UI needs dagster-webserver; `{install_extras('ui')}`.")
    loop = open_loop(folder)
    if isinstance(loop, DeclaredLoop):
        raise UserError("`dg dev` serves the loops of a project; `rlhf ui` serves one in a folder of its own.")
    with locked_at_once(dagster_home(loop.root) / "ui.lock") as alone:
        if not alone:
            raise UserError(_served_already(loop))
        require_free(port, f"--port {port}")
        _say_where(loop, port)
        _serve_alone(loop, port)


def _serve_alone(loop: LoopFolder, port: int) -> None:
    _say(f"Starting the UI of the loop {loop.config.name} ...")
    open_instance(loop).dispose()  # Dagster's services fail when several of them set up a fresh instance at once
    stop_when_asked()  # services would inherit ignored signals, but not our handlers
    label_studio = _label_studio(loop)
    services = [*([label_studio] if label_studio else []), *_dagster(loop, port)]
    try:
        start_all(services, _say)
        log = dagster_home(loop.root) / SERVICES_LOG
        print(f"Dagster UI of the loop {loop.config.name}: http://{LOOPBACK}:{port}  (Ctrl-C stops it; log: {log})")
        print(f"  rounds     http://{LOOPBACK}:{port}{PAGES_PATH}/{ROUNDS_PAGE}  (written anew after each run)")
        if label_studio and label_studio.process:
            show(loop, Server(loop.config.label_store.url, label_studio.process, loop.root / SERVER_FOLDER))
        sys.stdout.flush()
        keep_running(services, _say)
    except KeyboardInterrupt:
        pass
    finally:
        stop_all(services)
    _say_what_goes_on(loop)


def _say_where(loop: LoopFolder, port: int) -> None:
    """For a second `rlhf ui` of this loop."""
    where = {"address": f"http://{LOOPBACK}:{port}", "process": os.getpid(), "host": socket.gethostname()}
    write_atomically(dagster_home(loop.root) / SERVED, seal(where))


def _served_already(loop: LoopFolder) -> str:
    """Two daemons on one loop would both act on it."""
    try:
        where = unseal((dagster_home(loop.root) / SERVED).read_bytes(), SERVED)
        who = f" at {where['address']}, by process {where['process']} on {where['host']}"
    except (OSError, Damaged, KeyError):  # it is only just starting
        who = ""
    return f"{loop.root} is served already{who}; open that, or stop it first (Ctrl-C)."


def _dagster(loop: LoopFolder, port: int) -> list[Service]:
    """Page, code and web server, and daemon; the workspace file tells the last two where the code server is."""
    home = dagster_home(loop.root)
    log, code_port = home / SERVICES_LOG, free_port()
    # A fixed port, for a proxy that serves the pages under an address of their own.
    pages_port = free_port() if why_not_free(port + 1) else port + 1
    log.write_bytes(b"")
    workspace = home / WORKSPACE
    server = {"host": LOOPBACK, "port": code_port, "location_name": CODE_LOCATION}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    of_loop = {
        "RLHF_LOOP": str(loop.root),
        SERVED_LOOP: str(loop.root),
        "DAGSTER_HOME": str(home),
    }
    environment = dagster_environment(os.environ) | of_loop
    # The pages need no secret but those of the store that they are in.
    keys = CLOUD_VARIABLES if is_remote(loop.store.address) else ()
    plain = plain_environment(prefixes=keys) | of_loop
    python, named = python_command("-m"), loop.config.automation
    pages = [*python, "rlhf_dagster.pages.server", loop.store.address, str(pages_port), *_names(named.pages_url)]
    code = [
        *python,
        "dagster",
        "code-server",
        "start",
        "-m",
        "rlhf_dagster.definitions",
        "-h",
        LOOPBACK,
        "-p",
        str(code_port),
    ]
    web = [*python, "rlhf_dagster.automation.web_server", str(workspace), str(port), *_names(named.ui_url)]
    web += ["--pages", str(pages_port)]
    daemon = [*python, "dagster._daemon", "run", "-w", str(workspace)]

    def service(name: str, command: list[str], is_ready: Callable[[], bool] = lambda: True) -> Service:
        return Service(name, logged(command, log, environment), log, is_ready)

    # It takes the folder in which it is started for a place of modules, unless it is given another.
    code += ["--working-directory", str(home)]
    # If a code server is killed, the process that it leaves behind ends when this heartbeat (in seconds) runs out.
    code += ["--location-name", CODE_LOCATION, "--use-python-environment-entry-point", "--heartbeat-ttl", "15"]
    return [
        Service("page server", logged(pages, log, plain), log, listens(LOOPBACK, pages_port)),
        # It passes on what its child answers, and does so for ever where that was killed, by the system for memory say.
        replace(service("code server", code, listens(LOOPBACK, code_port)), works_in_child=True),
        service("web server", web, lambda: answers(f"http://{LOOPBACK}:{port}/server_info")),
        service("daemon", daemon),
    ]


def _names(address: str) -> list[str]:
    """Options by which a server also answers under the name that an address has, if any."""
    name = urlsplit(address).hostname
    return ["--name", name] if name and name not in OWN_NAMES else []


def _label_studio(loop: LoopFolder) -> Service | None:
    """The loop's own Label Studio; None if annotators work elsewhere, or if a server already answers at the address."""
    settings = loop.config.label_store
    if settings.kind != "label_studio" or not is_local(settings.url) or answers(f"{settings.url}/health"):
        return None
    install_label_studio()
    folder, port = loop.root / SERVER_FOLDER, port_of(settings.url)
    require_free(port, f"label_store.url {settings.url}")
    prepare(folder)
    log, health = folder / LABEL_STUDIO_LOG, f"{settings.url}/health"
    return Service("Label Studio", lambda: start(folder, port), log, lambda: answers(health))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _say(line: str) -> None:
    print(line)
    sys.stdout.flush()


def _say_what_goes_on(loop: LoopFolder) -> None:
    """Say which runs go on without the UI, and how to end them."""
    import dagster as dg

    with open_instance(loop) as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=ALIVE))
    for run in runs:
        partition: Mapping[str, str] = run.tags
        where = f" of {partition['dagster/partition']}" if "dagster/partition" in partition else ""
        _say(f"{run.job_name}{where} goes on without the UI; `rlhf stop` ends it at its next checkpoint.")
