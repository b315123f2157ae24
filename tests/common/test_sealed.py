"""A record is what was written, or it is said which file is not."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.sealed import FORMAT, checksum, is_whole_page, read_as, seal, seal_page, unseal
from rlhf_dagster.errors import Damaged, UserError

CONTENT = {"policy": "ppo-1", "win_rate": 0.731, "reasons": ["besser", "ü\u2028"], "none": None, "n": 3}


def test_what_was_sealed_is_read() -> None:
    assert unseal(seal(CONTENT), "x.json") == CONTENT
    assert unseal(seal(CONTENT, indent=None, sort_keys=True), "x.json") == CONTENT


def test_every_flipped_bit_is_noticed_or_changes_nothing() -> None:
    data = seal(CONTENT, indent=None)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                found = unseal(bytes(flipped), "x.json")
            except UserError as error:
                assert "x.json" in str(error)
            else:
                assert {name: found.get(name) for name in CONTENT} == CONTENT


def test_a_record_that_is_nested_too_deeply_is_damaged() -> None:
    with pytest.raises(Damaged, match=r"x.json is damaged: it is not valid JSON"):
        unseal(b'{"a": ' + b"[" * 100_000, "x.json")


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_anything_that_json_holds_comes_back(content: dict) -> None:
    if {"_sha256", "_format"} & content.keys():
        with pytest.raises(ValueError, match="cannot have the key"):
            seal(content)
    else:
        assert unseal(seal(content), "x.json") == content


def test_records_of_version_0_1_and_of_people_have_no_seal() -> None:
    assert unseal(b'{"by": "Ada"}', "x.json") == {"by": "Ada"}


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b'{"a": ', b"[1]", b"null", b"\xff"])
def test_what_is_no_record_is_named(data: bytes) -> None:
    with pytest.raises(Damaged, match=r"registry/pins/x\.json is damaged"):
        unseal(data, "registry/pins/x.json")


def test_a_newer_format_is_refused_in_a_sentence() -> None:
    record = {"a": 1, "_format": FORMAT + 1}
    data = json.dumps(record | {"_sha256": checksum(record)}).encode()
    with pytest.raises(UserError, match=f"x.json has format {FORMAT + 1}.*install the release that wrote it"):
        unseal(data, "x.json")


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        seal({"rate": float("nan")})


@dataclass(frozen=True)
class Pin:
    round: str
    policy_id: str


@pytest.mark.parametrize(
    "values",
    [
        {"round": "r"},
        {"round": "r", "policy_id": "p", "colour": "red"},
        {"round": "r", "policy_id": 5},
        {"round": None, "policy_id": "p"},
        {"round": ["r"], "policy_id": "p"},
    ],
)
def test_a_record_with_other_keys_is_damaged(values: dict) -> None:
    assert read_as(Pin, {"round": "r", "policy_id": "p"}, "pin") == Pin("r", "p")
    with pytest.raises(Damaged, match="pin is damaged"):
        read_as(Pin, values, "pin")


def test_a_page_is_whole_or_not() -> None:
    page = seal_page("<p>ü\ud800</p>")
    assert is_whole_page(page)
    assert is_whole_page(b"<p>of version 0.1</p>")
    for position in range(len(page)):
        flipped = bytearray(page)
        flipped[position] ^= 4
        mark = page.index(b"<!--")
        assert not is_whole_page(bytes(flipped)) or mark <= position < mark + len(b"<!-- _sha256 ")


@dataclass(frozen=True)
class Mixed:
    number: float
    maybe: int | None
    action: Literal["a", "b"]
    parts: tuple[str, ...]
    there: bool = False


def test_a_record_of_many_types_is_read_and_a_flag_is_no_number() -> None:
    good = {"number": 1, "maybe": None, "action": "a", "parts": ["x"], "there": True}
    assert read_as(Mixed, good, "x") == Mixed(**good)
    changes = ({"number": True}, {"number": "1"}, {"maybe": 1.5}, {"action": "c"}, {"parts": "x"}, {"there": 1})
    for change in changes:
        with pytest.raises(Damaged, match=f"x is damaged: '{next(iter(change))}' is not what it must be"):
            read_as(Mixed, good | change, "x")
