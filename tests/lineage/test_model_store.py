import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.lineage.manifest import read_manifest, write_manifest
from rlhf_dagster.lineage.models import DIGEST_LENGTH, Checkpoint, ModelStore
from rlhf_dagster.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(LocalStore(tmp_path), tmp_path / "work")


def trained(store: ModelStore, weights: str, **origin: Any) -> Path:
    folder = store.work_folder("sft")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    write_manifest(folder, kind="sft", **origin)
    return folder


def keep(store: ModelStore, weights: str, round_key: str = "", **origin: Any) -> Checkpoint:
    folder = trained(store, weights, round_key=round_key, **origin)
    checkpoint = store.identify(folder, "sft", round_key)
    store.keep(folder, checkpoint)
    assert not folder.exists()
    return checkpoint


def test_a_model_is_named_by_kind_round_and_digest(store) -> None:
    checkpoint = keep(store, "one", round_key="round-0002")
    assert checkpoint.model_id == f"sft-round-0002-{checkpoint.digest[:DIGEST_LENGTH]}"
    assert checkpoint.path == f"models/{checkpoint.model_id}"
    assert (checkpoint.folder / "model.safetensors").read_text() == "one"
    assert keep(store, "two").model_id.startswith("sft-")
    assert len(list((store.store.root / "models").iterdir())) == 2


def test_the_same_model_is_kept_once_and_the_first_one_stays(store) -> None:
    first = keep(store, "one", dataset_hash="a", metrics={"seconds": 1.0})
    again = keep(store, "one", dataset_hash="a", metrics={"seconds": 2.0})
    assert again == first
    assert read_manifest(first.folder)["metrics"] == {"seconds": 1.0}
    assert [path.name for path in (store.store.root / "models").iterdir()] == [first.model_id]


def test_the_same_weights_from_other_inputs_are_another_model(store) -> None:
    first, other = keep(store, "one", dataset_hash="a"), keep(store, "one", dataset_hash="b")
    assert other.model_id != first.model_id
    assert [read_manifest(model.folder)["dataset"] for model in (first, other)] == ["a", "b"]
    assert keep(store, "one", dataset_hash="a") == first


def test_a_pointer_follows_the_folder_where_it_is_moved(store, tmp_path) -> None:
    checkpoint = keep(store, "one")
    text = json.dumps(checkpoint.as_pointer())
    assert str(tmp_path) not in text
    assert Checkpoint(**json.loads(text), root=str(tmp_path)) == checkpoint
    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
    moved = Checkpoint(**json.loads(text), root=str(tmp_path.with_name("elsewhere")))
    assert moved.folder == tmp_path.with_name("elsewhere") / checkpoint.path


def test_work_folders_of_rounds_are_apart(store) -> None:
    assert store.work_folder("ppo", "round-0001") == store.work / "ppo-round-0001"
    assert store.work_folder("sft") == store.work / "sft"
