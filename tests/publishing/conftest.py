"""A loop whose champion has a report, labels, judgments and a person's approval, and the stand-in for the Hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import StandInHub, stand_in_hub
from kept_models import kept_chat_model, loop_of_policies

from rlhf_dagster.lineage.model_folders import ABILITIES
from rlhf_dagster.loop.folder import LoopFolder

KEY = "round-0001"
PERSON, REASON = "Ada Lovelace", "I have read fifty samples"


def report_on(policy_id: str) -> dict[str, Any]:
    rate = {"losses": 8, "n": 512, "ties": 0, "undecided": 0, "wins": 504, "value": 0.984, "low": 0.969, "high": 0.992}
    row = {"round": KEY, "annotators": 3, "comparisons": 1500, "labels": 1950, "quarantined": 0, "skipped": 0}
    counted = {"usable": 1943, "machine": 400}
    return {
        "policy_id": policy_id,
        "round": KEY,
        "win_rates": [rate | {"judge": "reward model", "against": "sft"}],
        "labels": {**row, **counted, "by_round": [row | counted]},
        "policies": {"policy": {"kl": {"value": 5.93, "low": 5.61, "high": 6.26, "n": 512}}},
        "alignment_tax": None,
        "reward_drift": {"value": 0.025, "low": None, "high": None, "n": 512},
    }


@pytest.fixture(scope="module")
def shared_loop(tmp_path_factory: pytest.TempPathFactory) -> LoopFolder:
    """To look at, and to publish from: a publication leaves nothing but its record."""
    loop = loop_of_policies(tmp_path_factory.mktemp("loop"))
    policy = kept_chat_model(loop, "ppo", chat=True, round_key=KEY, beside=("value_head.safetensors", ABILITIES))
    loop.write_json("ppo_policy", KEY, policy.as_pointer())
    loop.registry.register(policy.model_id, policy.path, "ppo", KEY, [], policy.digest)
    loop.write_json("eval_report", KEY, report_on(policy.model_id))
    rule = {"rule": "max_kl", "outcome": "pass", "sentence": "The sequence KL to SFT is 5.93 nats."}
    decision = {"policy": policy.model_id, "outcome": "pass", "promoted": True, "rules": [rule], "reasons": [REASON]}
    loop.write_json("promotion", KEY, decision)
    loop.registry.promote(policy.model_id, KEY, PERSON, REASON)
    return loop


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    with stand_in_hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield server
