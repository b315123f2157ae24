"""`rlhf ui`: Dagster's web server and daemon on one loop, and its Label Studio where it has one here."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from rlhf_dagster.automation.instance import dagster_home, open_instance
from rlhf_dagster.cli.label_studio import install, port_of, show, stop_when_asked
from rlhf_dagster.errors import UserError
from rlhf_dagster.label_studio_server import Server, answers, running
from rlhf_dagster.labeling.label_studio.open import SERVER_FOLDER, is_local
from rlhf_dagster.loop_folder import LoopFolder

HOST = "127.0.0.1"
LOG = "ui.log"
GRACE = 15.0
"""Seconds that the services have to stop by themselves."""


def serve(folder: Path, port: int) -> None:
    """Serve the Dagster UI until Ctrl-C. What Dagster has to say goes to ``dagster/ui.log`` in the loop's folder."""
    if find_spec("dagster_webserver") is None:
        raise UserError("The UI needs dagster-webserver: pip install 'rlhf-dagster[ui]'.")
    loop = LoopFolder.open(folder)
    _require_free(port)
    open_instance(loop.root).dispose()  # Dagster's services fail when several of them set up a fresh instance at once
    log = dagster_home(loop.root) / LOG
    stop_when_asked()  # with handlers of our own, the services get the default ones
    with ExitStack() as stack:
        label_studio = _label_studio(loop, stack)
        services = _start(loop.root, port, log)
        stack.callback(_stop, services)
        try:
            _wait_until_ready(services, port, log)
            print(f"Dagster UI of the loop {loop.config.name}: http://{HOST}:{port}  (Ctrl-C stops it; log: {log})")
            sys.stdout.flush()
            if label_studio:
                show(loop, label_studio)
            services.wait()
            raise UserError(f"The UI stopped by itself; {log} says why.")
        except KeyboardInterrupt:
            pass


def _label_studio(loop: LoopFolder, stack: ExitStack) -> Server | None:
    """The loop's own Label Studio, where its annotators work on this machine and none runs yet."""
    settings = loop.config.label_store
    if settings.kind != "label_studio" or not is_local(settings.url) or answers(f"{settings.url}/health"):
        return None
    install()
    return stack.enter_context(running(loop.root / SERVER_FOLDER, port_of(settings.url)))


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "not a port"
            raise UserError(f"--port {port}: {reason}; choose another port.") from None


def _start(root: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RLHF_LOOP": str(root), "DAGSTER_HOME": str(dagster_home(root))}
    workspace = str(resources.files("rlhf_dagster") / "templates" / "workspace.yaml")
    command = [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-h", HOST, "-p", str(port)]
    with log.open("w", encoding="utf-8") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603


def _wait_until_ready(services: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while services.poll() is None:
        if answers(f"http://{HOST}:{port}/server_info"):
            return
        time.sleep(0.3)
    raise UserError(f"The UI did not start; {log} says why.")


def _stop(services: subprocess.Popen[bytes]) -> None:
    """Let the services stop as Ctrl-C does; `dagster dev` takes its children with it."""
    if services.poll() is None:
        services.send_signal(signal.SIGINT)
    try:
        services.wait(GRACE)
    except subprocess.TimeoutExpired:
        services.kill()
