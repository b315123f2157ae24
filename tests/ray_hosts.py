"""Hosts of a Ray cluster, each a network namespace of this machine, which can be lost, cut off, and started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from label_studio import free_port
from ray_cluster import RayCluster, head_options, new_cluster, require_ray_installed, started_node, wait_until_up

IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Ray takes a node for lost after twenty seconds without an answer, and a node its head after sixty."""
NO_HEAD = "no_head"
"""A resource of Ray's of every host but the head's, one each."""


def require_hosts() -> None:
    """Skip where namespaces cannot be made, or Ray is not installed."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("Hosts are network namespaces, which root makes with `ip`.")
    require_ray_installed()


@dataclass
class Hosts:
    """The hosts 1 (the head's), 2, ... of ``cluster``; all see the disk of this machine."""

    cluster: RayCluster
    names: list[str]
    network: str
    port: int = field(default_factory=free_port)
    nodes: dict[int, ExitStack] = field(default_factory=dict)
    pinned: bool = False
    """Whether each host has a core of its own, by its number."""

    def start(self, number: int) -> None:
        """Start Ray on a host with one CPU, and wait until it is part of the cluster; a head takes jobs then."""
        options = head_options(self.cluster, 1, self.port) if number == 1 else self._options(number)
        self.end(number)
        stack = ExitStack()
        within = ["ip", "netns", "exec", self.names[number - 1]]
        if self.pinned:
            within += ["taskset", "--cpu-list", str(number - 1)]
        guard = stack.enter_context(started_node(self.cluster, options, IMPATIENT, within))
        self.nodes[number] = stack
        if number == 1:
            wait_until_up(self.cluster, guard)

    def _options(self, number: int) -> list[str]:
        return [
            *(f"--address={self.network}.1:{self.port}", f"--node-ip-address={self.network}.{number}"),
            *("--num-cpus=1", f"--resources={json.dumps({NO_HEAD: 1})}"),
            f"--temp-dir={self.cluster.folder / str(number)}",
        ]

    def lose(self, number: int) -> None:
        """Kill every process of a host at once."""
        self.send(number, signal.SIGKILL)
        self.end(number)

    def end(self, number: int) -> None:
        """Have Ray end on a host, if it has not ended there."""
        if number in self.nodes:
            self.nodes.pop(number).close()

    def send(self, number: int, sent: signal.Signals) -> None:
        """Send it to every process of a host."""
        for pid in self.pids(number):
            with suppress(ProcessLookupError):
                os.kill(pid, sent)

    def cut(self, number: int) -> None:
        """Take a host off the network; what runs there runs on, and sees the disk."""
        _ip(f"link set {_end(self.names[number - 1])} down")

    def join(self, number: int) -> None:
        _ip(f"link set {_end(self.names[number - 1])} up")

    def pids(self, number: int) -> list[int]:
        return [int(pid) for pid in _ip(f"netns pids {self.names[number - 1]}").split()]

    def ranks(self, number: int) -> list[int]:
        """Processes of a host in which ranks train."""
        return self.at_work(number, "RayTrainWorker")

    def at_work(self, number: int, on: str) -> list[int]:
        """Processes of a host that Ray has named after what they do."""
        return [pid for pid in self.pids(number) if on in " ".join(_command(pid))]

    def stop(self) -> None:
        for number in sorted(self.nodes, reverse=True):
            self.join(number)
            self.end(number)


@contextmanager
def hosts(count: int, pinned: bool = False) -> Iterator[Hosts]:
    """So many hosts on one bridge, beside this one; none has been started. ``pinned`` ones have a core each."""
    require_hosts()
    tag, network = f"rl{os.getpid() % 100_000}", f"10.99.{os.getpid() % 250}"
    # Not in pytest's folder: the paths of Ray's sockets have to be short.
    with TemporaryDirectory(prefix="rlhf-ray-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        _ip(f"link add {tag} type bridge")
        stack.callback(_ip, f"link del {tag}")
        _ip(f"addr add {network}.254/24 dev {tag}")
        _ip(f"link set {tag} up")
        names = [f"{tag}h{number}" for number in range(1, count + 1)]
        for number, host in enumerate(names, start=1):
            _add_host(stack, tag, host, f"{network}.{number}")
        made = Hosts(new_cluster(Path(name), f"{network}.1"), names, network, pinned=pinned)
        stack.callback(made.stop)
        yield made


def _add_host(stack: ExitStack, bridge: str, name: str, address: str) -> None:
    _ip(f"netns add {name}")
    stack.callback(_ip, f"netns del {name}")
    _ip(f"link add {_end(name)} type veth peer name eth0 netns {name}")
    _ip(f"link set {_end(name)} master {bridge} up")
    _ip(f"-n {name} addr add {address}/24 dev eth0")
    _ip(f"-n {name} link set eth0 up")
    _ip(f"-n {name} link set lo up")


def _end(name: str) -> str:
    """The bridge's end of a host's cable."""
    return f"{name}v"


def _ip(arguments: str) -> str:
    return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


def _command(pid: int) -> Sequence[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.2)
