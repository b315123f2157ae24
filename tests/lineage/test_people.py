"""The pseudonyms of a loop: keyed, the same for ever, and those that people had before there was a key."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from people import KEY

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.data.imported import add_prompts, imported
from rlhf_dagster.data.line_records import PromptLine
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.label_studio.people import SIMULATED_DOMAIN, People
from rlhf_dagster.lineage.people import PEOPLE_FILE, PEOPLE_KEY_VARIABLE, people_of
from rlhf_dagster.records.ids import pseudonym as first_pseudonym
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.pseudonyms import Pseudonyms, is_pseudonym
from rlhf_dagster.records.schemas import IMPORTED_PROMPTS, table
from rlhf_dagster.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_a_pseudonym_is_hmac_sha_256_of_the_name(store: LocalStore) -> None:
    expected = hmac.new(KEY.encode(), b"Ada", hashlib.sha256).hexdigest()[:20]
    assert people_of(store).of("Ada") == expected
    assert is_pseudonym(expected) and not is_pseudonym("Ada") and not is_pseudonym(expected.upper())
    assert [people_of(store).of(name) for name in ("", "machine:gpt", "source:file")] == [
        "",
        "machine:gpt",
        "source:file",
    ]
    assert people_of(store).of("ada") != expected


def test_each_loop_has_a_key_of_its_own_in_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PEOPLE_KEY_VARIABLE)
    one, other = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "other")
    assert people_of(one).of("Ada") == people_of(one).of("Ada") != people_of(other).of("Ada")
    assert (tmp_path / "one" / PEOPLE_FILE).stat().st_mode & 0o777 == 0o600
    key = unseal((tmp_path / "one" / PEOPLE_FILE).read_bytes(), "key")["key"]
    assert len(key) == 64 and key not in repr(people_of(one))


def test_who_was_on_record_before_there_was_a_key_keeps_the_name(store: LocalStore) -> None:
    """As in loops of version 0.1: in a table, in the key to imported names, or in the ledger alone."""
    rows = [{"prompt_id": "p", "text": "t", "messages": None, "source": "", "user": first_pseudonym("Ada")}]
    store.put("imports/prompts.parquet", to_parquet(table(rows, IMPORTED_PROMPTS)))
    store.put("imports/annotators.json", seal({first_pseudonym("Bob"): "Bob"}))
    people = people_of(store, lambda: [first_pseudonym("Cy"), "careless", "machine:gpt"])
    assert [people.of(name) for name in ("Ada", "Bob", "Cy")] == [
        first_pseudonym(name) for name in ("Ada", "Bob", "Cy")
    ]
    assert people.of("Di") == Pseudonyms(KEY.encode()).of("Di") != first_pseudonym("Di")
    add_prompts([PromptLine("new", "", "Ada"), PromptLine("other", "", "Di")], store, "file")
    found = imported(store, "prompts", IMPORTED_PROMPTS)
    users = dict(zip(found["text"].to_pylist(), found["user"].to_pylist(), strict=True)) if found else {}
    assert users == {"t": first_pseudonym("Ada"), "new": first_pseudonym("Ada"), "other": people.of("Di")}


def test_who_is_there_later_under_such_a_name_is_somebody_else(store: LocalStore) -> None:
    """A name without a key in a table that came after the key, as of a file of another loop, is nobody's."""
    people_of(store)
    rows = [{"prompt_id": "p", "text": "t", "messages": None, "source": "", "user": first_pseudonym("Ada")}]
    store.put("imports/prompts.parquet", to_parquet(table(rows, IMPORTED_PROMPTS)))
    assert people_of(store).of("Ada") != first_pseudonym("Ada")


def test_a_damaged_or_short_key_is_a_sentence(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PEOPLE_KEY_VARIABLE, "short")
    with pytest.raises(UserError, match=r"RLHF_PEOPLE_KEY: a key has at least 32 characters"):
        people_of(store)
    for content in (b"", b"{", seal({"kept": []}), seal({"key": "k" * 32, "kept": None})):
        store.put(PEOPLE_FILE, content)
        with pytest.raises(Damaged, match=PEOPLE_FILE):
            people_of(store)


def test_nobody_takes_a_name_by_the_address_of_an_account(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(KEY.encode())
    people = People(tmp_path / "annotators.json", lambda: pseudonyms)
    people.add_simulated(["careless"])
    ada = people.names({1: "Ada@example.org"})[1]
    assert ada == pseudonyms.of("ada@example.org")
    taken = {2: f"{ada}@{SIMULATED_DOMAIN}", 3: f"machine@{SIMULATED_DOMAIN}", 4: f"careless@{SIMULATED_DOMAIN}"}
    names = people.names(taken)
    assert (names[4], names[2]) == ("careless", pseudonyms.of(taken[2]))
    assert len({ada, *names.values()}) == 4
    assert json.loads((tmp_path / "annotators.json").read_text())[ada] == "ada@example.org"
    assert people.names({5: "ada@example.org"})[5] == ada
