"""How to install what is missing, said so that it reaches the Python that misses it."""

import sys

import pytest

from rlhf_dagster.common import extras


def test_the_command_is_for_the_python_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.install_extras("ui", "slack") == f"{sys.executable} -m pip install 'rlhf-dagster[ui,slack]'"
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert extras.install_command("mlflow") == f"uv pip install --python {sys.executable} mlflow"
