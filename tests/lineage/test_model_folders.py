from pathlib import Path

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest, replacing, require_checkpoint


def test_the_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "model"
    for text in ("old", "new"):
        with replacing(output) as folder:
            (folder / "weights").write_text(text)
    assert (output / "weights").read_text() == "new"
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_an_error_while_writing_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "model"
    with replacing(output) as folder:
        (folder / "weights").write_text("old")

    def crash() -> None:
        with replacing(output) as folder:
            (folder / "weights").write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert (output / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_crash_between_the_renames_is_repaired_by_the_next_call(tmp_path: Path) -> None:
    output = tmp_path / "model"
    with replacing(output) as folder:
        (folder / "weights").write_text("old")
    output.rename(tmp_path / ".model.replaced")
    with pytest.raises(RuntimeError), replacing(output):
        assert (output / "weights").read_text() == "old"
        raise RuntimeError
    assert (output / "weights").read_text() == "old"


def test_a_place_where_nothing_can_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), replacing(tmp_path / "file" / "model"):
        pass


def make_folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


FILES = {"config.json": "{}", "sub/weights": "1234", "manifest.json": "a"}


@pytest.mark.parametrize(
    "changed",
    [
        {"config.json": "{ }"},
        {"sub/weights": "1235"},
        {"sub/other": ""},
        {"sub/manifest.json": "not the manifest"},
    ],
)
def test_the_digest_sees_names_and_bytes(tmp_path: Path, changed: dict[str, str]) -> None:
    one = make_folder(tmp_path / "one", FILES)
    other = make_folder(tmp_path / "other", FILES | changed)
    assert folder_digest(one) != folder_digest(other)


def test_the_digest_ignores_the_manifest_and_the_place(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", FILES)
    other = make_folder(tmp_path / "other", dict(reversed(FILES.items())) | {"manifest.json": "b"})
    assert folder_digest(one) == folder_digest(other)


def test_the_digest_keeps_neighbouring_files_apart(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", {"a": "xb", "c": ""})
    other = make_folder(tmp_path / "other", {"a": "x", "c": "b"})
    assert folder_digest(one) != folder_digest(other)


@pytest.mark.parametrize(
    ("files", "problem"),
    [({}, "no such model folder"), ({"a": ""}, "config.json"), ({"config.json": ""}, "safetensors")],
)
def test_a_folder_without_a_checkpoint_is_a_user_error(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        require_checkpoint(make_folder(tmp_path / "model", files))
