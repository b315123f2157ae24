"""Words of languages that write spaces between them, and of those that do not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.words import UNSPACED, words

SPACED = st.text(st.characters(codec="utf-8", exclude_characters="\u200b").filter(lambda one: not is_unspaced(one)))


def is_unspaced(character: str) -> bool:
    return re.match(f"[{''.join(UNSPACED.values())}]", character) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Hello, wörld!\n it's ", ["Hello,", "wörld!", "it's"]),
        ("한국어 텍스트는", ["한국어", "텍스트는"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("我用iPhone 15手机。", ["我", "用", "iPhone", "15", "手", "机", "。"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("コーヒー々", ["コ", "ー", "ヒ", "ー", "々"]),
        ("は\u3099か", ["は\u3099", "か"]),
        ("ข้าวแล้ว", ["ข้", "า", "ว", "แ", "ล้", "ว"]),
        ("ខ្ញុំ\u200bទៅ", ["ខ្", "ញុំ", "ទៅ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("", []),
        ("\u200b \u3000", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(SPACED)
def test_where_words_are_spaced_they_stand_between_white_space(text: str) -> None:
    assert words(text) == text.split()


@given(st.text())
def test_no_character_is_lost_but_spaces(text: str) -> None:
    assert "".join(words(text)) == "".join(text.replace("\u200b", " ").split())
