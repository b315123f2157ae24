"""Lines end at a line feed alone."""

import json

import pytest

from rlhf_dagster.common.lines import lines_of

BREAKS = ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]


@pytest.mark.parametrize("separator", BREAKS)
def test_no_other_character_ends_a_line(separator: str) -> None:
    text = f"one{separator}still one\ntwo\n"
    assert len(text.splitlines()) == 3
    assert lines_of(text) == [f"one{separator}still one", "two"]
    assert lines_of(text.encode()) == [f"one{separator}still one".encode(), b"two"]
    assert json.loads(lines_of(json.dumps({"reason": text}, ensure_ascii=False) + "\n")[0]) == {"reason": text}


def test_blank_lines_count_and_the_end_of_the_last_is_none() -> None:
    assert lines_of("") == []
    assert lines_of("a") == lines_of("a\n") == ["a"]
    assert lines_of("a\n\nb\n\n") == ["a", "", "b", ""]
