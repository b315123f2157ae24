"""Peers in environments of their own, made on first use, over the same build of torch and transformers."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PEERS = {
    "trl-ppo": "trl==1.12.0",  # the last release with PPOTrainer
    "trl": "trl==1.16.0",
}


def python_of(environment: str, cache: Path) -> Path:
    """The interpreter of an environment; this one for the empty name and its own. Raises SystemExit where pip fails."""
    if environment in ("", sys.executable):
        return Path(sys.executable)
    requirement = PEERS[environment]
    folder = cache / "environments" / requirement.replace("==", "-")
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.is_file():
        _make(folder, requirement)
        stamp.touch()
    return python


def _make(folder: Path, requirement: str) -> None:
    """What is installed here is visible there: pip adds only what is missing, and both sides share one torch."""
    print(f"installing {requirement} in {folder}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = folder / "lib" / version / "site-packages" / "shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    command: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        requirement,
    ]
    done = subprocess.run(command, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{requirement} cannot be installed in {folder}; check the network, then run again.")
