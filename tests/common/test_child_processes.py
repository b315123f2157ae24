"""Processes that are started import nothing from the working folder and inherit no secrets."""

import os
import subprocess
from pathlib import Path

import pytest

from rlhf_dagster.common.child_processes import (
    SAFE_PATH,
    dagster_environment,
    is_secret,
    plain_environment,
    python_command,
)

SHADOWED = ("yaml", "queue", "tokenizers", "json", "secrets", "select", "signal", "random")
"""Names that somebody's own file in the working folder may have."""
SECRETS = {
    "OPENAI_API_KEY": "x",
    "ANTHROPIC_APIKEY": "x",
    "HF_TOKEN": "x",
    "HUGGING_FACE_HUB_TOKEN": "x",
    "WANDB_API_KEY": "x",
    "LABEL_STUDIO_API_KEY": "x",
    "RLHF_USERS_KEY": "x",
    "RLHF_JUDGE_KEY": "x",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_SESSION_TOKEN": "x",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "AZURE_STORAGE_ACCOUNT_KEY": "x",
    "PGPASSWORD": "x",
    "PGPASSFILE": "x",
    "MYSQL_PWD": "x",
    "SMTP_PASS": "x",
    "GITHUB_PAT": "x",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "SENTRY_DSN": "x",
    "SLACK_WEBHOOK_URL": "x",
    "secret_key_base": "x",
    "DATABASE_URL": "postgresql://ada:pw@host/db",
    "PIP_INDEX": "https://ada:pw@index.example/simple",
    "NOTE": "sk-abcdef",
    "OTHER": "ghp_0123456789",
    "BOT": "xoxb-1-2",
    "CERTIFICATE": "-----BEGIN RSA PRIVATE KEY-----",
    "BEARER": "eyJhbGciOi.J9.x",
}
PLAIN = {
    "PATH": "/bin",
    "HOME": "/home/ada",
    "PWD": "/work",
    "OLDPWD": "/",
    "LANG": "C.UTF-8",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "0",
    "NCCL_SOCKET_IFNAME": "eth0",
    "HF_HOME": "/cache",
    "MASTER_ADDR": "10.0.0.1",
    "KEYBOARD": "de",
    "COMPASS": "north",
    "PASSAGE": "text",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    "RLHF_JUDGE_URL": "http://127.0.0.1:8000/v1",
    "RLHF_LOOP": "/loops/sk-one",
}


def test_what_looks_like_a_secret_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in (SECRETS | PLAIN).items():
        monkeypatch.setenv(name, value)
    assert plain_environment() == PLAIN | {SAFE_PATH: "1"}
    assert plain_environment(["HF_TOKEN"], ["AWS_"]).keys() - PLAIN.keys() == {
        SAFE_PATH,
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    assert not any(is_secret(name, value) for name, value in PLAIN.items())


def imported(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """What of the files in ``folder`` is imported by a Python started there."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def strange_folder(tmp_path: Path) -> Path:
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"print('{name} of the working folder')\n", encoding="utf-8")
    return tmp_path


def test_nothing_of_the_working_folder_is_imported(strange_folder: Path) -> None:
    code = "-c", f"import {', '.join(SHADOWED)}"
    safe = plain_environment()
    assert imported(python_command(*code), strange_folder) == ""
    assert imported([python_command()[0], *code], strange_folder, safe) == "", "a Python that one of ours starts"
    bare = {name: value for name, value in safe.items() if name != SAFE_PATH}
    assert "json of the working folder" in imported([python_command()[0], *code], strange_folder, bare)


def test_an_empty_place_of_modules_is_not_the_working_folder(
    strange_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["elsewhere", ""]))
    code = "-c", f"import {', '.join(SHADOWED)}"
    assert imported(python_command(*code), strange_folder, plain_environment()) == ""
    assert imported(python_command(*code), strange_folder, dagster_environment(os.environ)) == ""


def test_dagster_finds_what_is_on_the_python_path_and_nothing_of_the_working_folder(strange_folder: Path) -> None:
    (strange_folder / "ours").mkdir()
    (strange_folder / "ours" / "our_code.py").write_text("print('ours')\n", encoding="utf-8")
    given = os.environ | {"PYTHONPATH": os.pathsep.join(["ours", os.environ.get("PYTHONPATH", "")])}
    load = (
        "from dagster._core.code_pointer import load_python_module\n"
        "load_python_module('our_code', None, remove_from_path_fn=lambda: [])\n"
    )
    assert imported(python_command("-c", load), strange_folder, dagster_environment(given)) == "ours\n"
