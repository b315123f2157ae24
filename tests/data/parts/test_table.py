import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.data.imported import append_new, imported
from rlhf_dagster.data.parts import table as module
from rlhf_dagster.data.parts.known import SeenTexts
from rlhf_dagster.data.parts.table import ImportedTable
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore


def prompts(*names: str, user: str = "") -> list[dict[str, str]]:
    return [{"prompt_id": name, "text": name, "source": "", "user": user, "messages": None} for name in names]


@pytest.fixture
def store(tmp_path, monkeypatch) -> LocalStore:
    monkeypatch.setattr(module, "PART_ROWS", 2)
    return LocalStore(tmp_path)


def add(store: LocalStore, *names: str, user: str = "") -> tuple[int, int]:
    return append_new(store, "prompts", prompts(*names, user=user), IMPORTED_PROMPTS)


def ids(store: LocalStore) -> list[str]:
    return imported(store, "prompts", IMPORTED_PROMPTS).column("prompt_id").to_pylist()


def test_what_is_added_goes_to_the_last_part_or_the_next(store, tmp_path) -> None:
    assert [add(store, "a"), add(store, "b", "c"), add(store, "d"), add(store, "e"), add(store, "f")] == [
        (1, 0),
        (2, 0),
        (1, 0),
        (1, 0),
        (1, 0),
    ]
    keys = [f"imports/{name}.parquet" for name in ("prompts", "prompts/000001", "prompts/000002")]
    assert ImportedTable(store, "prompts", IMPORTED_PROMPTS).parts() == store.list("imports") == keys
    assert [pq.read_metadata(tmp_path / key).num_rows for key in keys] == [3, 2, 1]
    assert ids(store) == list("abcdef")


def test_what_is_in_any_part_is_not_added_again(store) -> None:
    add(store, "a", "b", "c")
    add(store, "d", "e", "f")
    assert add(store, "g", "a", "f", "g") == (1, 3)
    assert ids(store) == list("abcdefg")


def test_a_row_of_an_earlier_part_gets_its_user(store) -> None:
    add(store, "a", "b", "c")
    add(store, "d")
    assert add(store, "a", user="Grace") == (0, 1)
    assert add(store, "a", user="Ada") == (0, 1)
    table = imported(store, "prompts", IMPORTED_PROMPTS)
    assert ids(store) == list("abcd")
    assert table.column("user").to_pylist() == ["Grace", "", "", ""]


def test_a_table_of_an_earlier_version_goes_on(store) -> None:
    older = pa.Table.from_pylist(prompts("a", "b", "c"), schema=IMPORTED_PROMPTS).drop_columns(["messages"])
    store.put("imports/prompts.parquet", to_parquet(older))
    before = store.get("imports/prompts.parquet")
    assert add(store, "a", "d") == (1, 1)
    assert ids(store) == list("abcd")
    assert store.get("imports/prompts.parquet") == before


def test_a_part_that_two_processes_add_at_once_has_both(store, monkeypatch) -> None:
    add(store, "a", "b")
    table = ImportedTable(store, "prompts", IMPORTED_PROMPTS)
    create = store.create
    others = iter([pa.Table.from_pylist(prompts("other"), schema=IMPORTED_PROMPTS)])

    def late(key: str, data: bytes) -> bool:
        for rows in others:
            create(key, to_parquet(rows))
        return create(key, data)

    monkeypatch.setattr(LocalStore, "create", lambda _, key, data, private=False: late(key, data))
    table.append(pa.Table.from_pylist(prompts("own"), schema=IMPORTED_PROMPTS))
    assert ids(store) == ["a", "b", "other", "own"]


def test_a_damaged_part_is_one_sentence(store) -> None:
    add(store, "a", "b")
    add(store, "c", "d")
    store.put("imports/prompts/000001.parquet", b"no table")
    for use in (lambda: add(store, "e"), lambda: ids(store)):
        with pytest.raises(UserError, match=r"000001\.parquet: not a table.*move it away"):
            use()


def test_texts_are_seen_once_they_were_added(monkeypatch) -> None:
    monkeypatch.setattr("rlhf_dagster.data.parts.known._PENDING", 3)
    seen = SeenTexts(["a"])
    for number in range(10):
        assert seen.known(["a", f"t{number}", "never"]) == [True, False, False]
        seen.add([f"t{number}"])
    assert all(seen.known([f"t{number}" for number in range(10)]))
    assert "t3" in seen
    assert "t10" not in seen
