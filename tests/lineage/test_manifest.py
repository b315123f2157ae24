import hashlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import rlhf_dagster
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import git_state, inputs_hash, label_ids, read_manifest, write_manifest

IDS = ["b" * 20, "a" * 20, "c" * 20]


def test_what_is_written_is_read(tmp_path) -> None:
    written = write_manifest(
        tmp_path,
        kind="ppo",
        round_key="round-0001",
        parents={"sft_checkpoint": {"model_id": "sft-1", "digest": "d1"}},
        dataset_hash="abc",
        label_ids=IDS,
        seed=7,
        config={"ppo": {"updates": 60}},
        metrics={"kl": 6.1},
        curves={"kl": [0.0, 6.1]},
    )
    manifest = read_manifest(tmp_path)
    assert manifest == written
    assert (manifest["kind"], manifest["round"], manifest["dataset"], manifest["seed"]) == (
        "ppo",
        "round-0001",
        "abc",
        7,
    )
    assert manifest["parents"]["sft_checkpoint"]["digest"] == "d1"
    assert manifest["curves"]["kl"] == [0.0, 6.1]
    assert manifest["rlhf_dagster"] == rlhf_dagster.__version__
    assert {"torch", "transformers", "dagster"} <= set(manifest["packages"])


def test_label_ids_are_sorted_counted_and_checked(tmp_path) -> None:
    manifest = write_manifest(tmp_path, kind="reward_model", label_ids=[*IDS, IDS[0]])
    assert label_ids(manifest) == sorted(IDS)
    assert manifest["labels"]["count"] == 3
    assert manifest["labels"]["sha256"] == hashlib.sha256("\n".join(sorted(IDS)).encode()).hexdigest()
    other = write_manifest(tmp_path, kind="reward_model", label_ids=IDS[:2])
    with pytest.raises(UserError, match="do not match their checksum"):
        label_ids({"labels": manifest["labels"] | {"ids": other["labels"]["ids"]}})
    with pytest.raises(UserError, match="do not match their checksum"):
        label_ids({"labels": manifest["labels"] | {"ids": "no base64!"}})


def test_no_labels_are_an_empty_list(tmp_path) -> None:
    assert label_ids(write_manifest(tmp_path, kind="sft")) == []


ORIGIN = {
    "kind": "reward_model",
    "round_key": "round-0001",
    "parents": {"sft_checkpoint": {"model_id": "sft-1", "digest": "d1"}},
    "dataset_hash": "abc",
    "label_ids": IDS,
    "seed": 7,
    "config": {"reward_model": {"epochs": 2.0}},
}


@pytest.mark.parametrize(
    "other",
    [
        {"parents": {"sft_checkpoint": {"model_id": "sft-1", "digest": "d2"}}},
        {"parents": {"start": {"model_id": "sft-1", "digest": "d1"}}},
        {"dataset_hash": "abd"},
        {"label_ids": IDS[:2]},
        {"seed": 8},
        {"config": {"reward_model": {"epochs": 3.0}}},
    ],
)
def test_the_hash_of_the_inputs_sees_each_of_them(tmp_path, other) -> None:
    assert inputs_hash(write_manifest(tmp_path, **ORIGIN)) != inputs_hash(write_manifest(tmp_path, **ORIGIN | other))


def test_the_hash_of_the_inputs_sees_nothing_else(tmp_path) -> None:
    written = write_manifest(tmp_path, **ORIGIN | {"label_ids": [*reversed(IDS), IDS[0]]}, metrics={"loss": 1.0})
    recompressed = written["labels"] | {"ids": "other bytes"}
    later = {"created_at": "2031-01-01", "packages": {}, "git": None, "curves": {"loss": [2.0]}, "labels": recompressed}
    assert inputs_hash(written | later) == inputs_hash(write_manifest(tmp_path, **ORIGIN))
    assert inputs_hash(read_manifest(tmp_path)) == inputs_hash(written)


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.sets(st.text("0123456789abcdef", min_size=20, max_size=20)))
def test_any_ids_come_back(tmp_path_factory, ids: set[str]) -> None:
    folder = tmp_path_factory.mktemp("model")
    write_manifest(folder, kind="ppo", label_ids=ids)
    assert label_ids(read_manifest(folder)) == sorted(ids)


def test_a_folder_without_or_with_a_broken_manifest_is_one_sentence(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json here"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(tmp_path)


def _git(folder, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_a_checkout_that_tracks_the_package(tmp_path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    module = package / "__init__.py"
    module.write_text("")
    assert git_state(package) is None
    _git(tmp_path, "init")
    assert git_state(package) is None  # such as a virtual environment inside somebody's checkout
    _git(tmp_path, "add", "package")
    _git(tmp_path, "commit", "-m", "first")
    state = git_state(package)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["changed"] is False
    module.write_text("x = 1\n")
    assert git_state(package) == {"commit": state["commit"], "changed": True}
