import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.manifest import read_manifest, write_manifest
from rlhf_dagster.lineage.model_folders import DIGEST_LENGTH
from rlhf_dagster.lineage.models import Checkpoint, ModelStore
from rlhf_dagster.storage.known import open_store
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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("there", ["empty", "half", "damaged", "manifest"])
def test_what_is_not_the_model_gives_way_to_it(store, there: str) -> None:
    """Where the place is taken by something else, the new model is kept, not thrown away."""
    folder = trained(store, "weights", dataset_hash="a")
    checkpoint = store.identify(folder, "sft")
    place = store.store.root / checkpoint.path
    if there == "empty":
        place.mkdir(parents=True)
    else:
        shutil.copytree(folder, place)
    if there == "half":
        (place / "manifest.json").unlink()
    elif there == "damaged":
        flip(place / "model.safetensors")
    elif there == "manifest":
        (place / "manifest.json").write_text("{")
    store.keep(folder, checkpoint)
    assert (checkpoint.folder / "model.safetensors").read_text() == "weights"
    assert [path.name for path in place.parent.iterdir()] == [checkpoint.model_id]


def test_a_model_is_compared_with_its_digest_when_it_is_opened(store) -> None:
    checkpoint = keep(store, "weights")
    file = checkpoint.folder / "model.safetensors"
    flip(file)
    with pytest.raises(Damaged, match=f"{checkpoint.model_id} is damaged.*do not match its digest"):
        _ = checkpoint.folder
    flip(file)
    assert (checkpoint.folder / "model.safetensors").read_text() == "weights"
    (file.parent / "model-00002.safetensors").write_text("a second file of weights")
    with pytest.raises(Damaged):
        _ = checkpoint.folder


def test_a_model_whose_manifest_says_something_else_is_damaged(store) -> None:
    checkpoint = keep(store, "weights", metrics={"loss": 1.5})
    path = checkpoint.folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"0.5"))
    with pytest.raises(Damaged):
        _ = checkpoint.folder


def test_a_model_that_is_gone_is_one_sentence(store) -> None:
    checkpoint = keep(store, "weights")
    assert checkpoint.is_there()
    shutil.rmtree(checkpoint.folder)
    assert not checkpoint.is_there()
    with pytest.raises(UserError, match="is gone; restore it from a backup, or make it again"):
        _ = checkpoint.folder


def test_untouched_files_are_hashed_once(store, monkeypatch) -> None:
    checkpoint = keep(store, "weights")
    folder = checkpoint.folder
    monkeypatch.setattr("rlhf_dagster.lineage.models.model_digest", lambda _: pytest.fail("hashed again"))
    assert checkpoint.folder == folder
    from rlhf_dagster.lineage import verified

    monkeypatch.setattr(verified, "_known", {})  # as in another process
    assert checkpoint.folder == folder


def test_models_on_another_disk_are_copied_beside_and_renamed(store, monkeypatch) -> None:
    rename = Path.rename

    def across(path: Path, target: Path) -> Path:
        if path.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", across)
    checkpoint = keep(store, "weights")
    assert (checkpoint.folder / "model.safetensors").read_text() == "weights"
    assert [path.name for path in (store.store.root / "models").iterdir()] == [checkpoint.model_id]


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch) -> ModelStore:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    return ModelStore(open_store(f"s3://{s3.new_bucket()}/loop"), tmp_path / "work")


def test_a_model_in_a_bucket_is_fetched_once_and_compared(bucket, tmp_path) -> None:
    checkpoint = keep(bucket, "weights")
    assert bucket.store.list("models")[0].startswith(f"{checkpoint.path}/")
    folder = checkpoint.folder
    assert folder == tmp_path / "cache" / "models" / checkpoint.digest
    assert (folder / "model.safetensors").read_text() == "weights"
    bucket.store.delete(f"{checkpoint.path}/model.safetensors")
    assert checkpoint.folder == folder
    flip(folder / "model.safetensors")
    with pytest.raises(Damaged):  # the copy is damaged, and so is what it could be fetched from
        _ = checkpoint.folder


def test_a_damaged_copy_of_a_model_is_fetched_again(bucket) -> None:
    checkpoint = keep(bucket, "weights")
    flip(checkpoint.folder / "model.safetensors")
    assert (checkpoint.folder / "model.safetensors").read_text() == "weights"


def test_a_damaged_model_in_a_bucket_is_made_again_in_its_place(bucket) -> None:
    checkpoint = keep(bucket, "weights")
    shutil.rmtree(checkpoint.folder)
    bucket.store.put(f"{checkpoint.path}/model.safetensors", b"weighty")
    with pytest.raises(Damaged):
        _ = checkpoint.folder
    assert keep(bucket, "weights") == checkpoint
    assert (checkpoint.folder / "model.safetensors").read_text() == "weights"
