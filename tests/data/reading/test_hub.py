"""Judgments from the Hub: a stand-in on loopback gives the data sets, one process reads them all."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hub_datasets import FIRST, SECOND, TOKEN, HubOfDatasets, hub_of_datasets

pytest.importorskip("datasets")

READ = """
import json, os, sys
from pathlib import Path
from rlhf_dagster.config.data import JudgmentsDataset
from rlhf_dagster.data.reading.hub import hub_source
from rlhf_dagster.errors import UserError
for number, (token, settings) in enumerate(json.loads(sys.argv[1])):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        source = hub_source(JudgmentsDataset(**settings), Path(sys.argv[2]))
        print(json.dumps([row["prompt"] for _, row in source.rows()]), flush=True)
    except UserError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
"""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pinned": ("", {"name": "org/open", "revision": FIRST}),
    "not pinned": ("", {"name": "org/open"}),
    "another pin": ("", {"name": "org/open", "revision": "3" * 40}),
    "private without a token": ("", {"name": "org/private", "revision": FIRST}),
    "private": (TOKEN, {"name": "org/private", "revision": FIRST}),
    "moved": (TOKEN, {"name": "org/moved", "revision": FIRST}),
    "missing": (TOKEN, {"name": "org/missing"}),
    "busy": ("", {"name": "org/busy"}),
    "cut": ("", {"name": "org/cut", "revision": FIRST}),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], HubOfDatasets]]:
    """What came of each case, and the server that was asked."""
    folder = tmp_path_factory.mktemp("hub")
    with hub_of_datasets() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
        own |= {"HF_DATASETS_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", READ, json.dumps(list(CASES.values())), str(folder)]
        done = subprocess.run(command, env=os.environ | own, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        yield dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True)), hub


@pytest.mark.parametrize(
    ("case", "commit"), [("pinned", FIRST), ("not pinned", SECOND), ("private", FIRST), ("moved", FIRST)]
)
def test_rows_are_those_of_the_commit(read, case: str, commit: str) -> None:
    assert read[0][case] == [f"{commit[0]}: question {n}?" for n in range(3)]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("another pin", "look whether the name and the revision are right"),
        ("private without a token", "HF_TOKEN"),
        ("missing", "look whether the name"),
        ("busy", "asked too often (429); try again"),
        ("cut", "try again"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(read, case: str, why: str) -> None:
    sentence, settings = read[0][case]["refused"], CASES[case][1]
    assert sentence.startswith(f"The data set {settings['name']}")
    assert settings.get("revision", "") in sentence
    assert why in sentence
    assert "\n" not in sentence


def test_a_token_goes_to_the_hub_alone(read) -> None:
    hub: HubOfDatasets = read[1]
    assert any(TOKEN in str(asked.headers) for asked in hub.asked)
    assert hub.asked_elsewhere
    assert not any(TOKEN in str(asked.headers) for asked in hub.asked_elsewhere)
