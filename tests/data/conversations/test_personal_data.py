"""Personal data in texts: each kind that the settings name is found, and what is no personal data is not."""

from typing import get_args

import pytest

from rlhf_dagster.config.data import FeedbackSettings, PersonalData
from rlhf_dagster.data.conversations import personal_data
from rlhf_dagster.data.conversations.personal_data import Span, finder_of, masked
from rlhf_dagster.errors import UserError

EXAMPLES = {
    "EMAIL_ADDRESS": "ada.lovelace+x@mail.example.com",
    "PHONE_NUMBER": "(415) 555-2671",
    "CREDIT_CARD": "5555 5555 5555 4444",
    "IBAN_CODE": "GB82 WEST 1234 5698 7654 32",
    "IP_ADDRESS": "2001:db8::8a2e:370:7334",
    "MAC_ADDRESS": "00:1B:44:11:3A:B7",
    "CRYPTO": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    "US_SSN": "536-90-4399",
    "URL": "https://example.org/~ada",
    "DE_TAX_ID": "86095742719",
    "ES_NIF": "12345678Z",
    "FI_PERSONAL_IDENTITY_CODE": "131052-308T",
    "IN_PAN": "ABCPE1234F",
    "IT_FISCAL_CODE": "RSSMRA85T10A562S",
    "PL_PESEL": "44051401359",
    "SE_PERSONNUMMER": "811218-9876",
    "TH_TNIN": "1101700207030",
    "UK_NHS": "943 476 5919",
    "UK_NINO": "AB 12 34 56 C",
}
HARMLESS = (
    "In 2024 I paid 1,500.50 for 12 eggs.",
    "On 2026-11-29 at 19:30, version 3.11.7 of 123456 items, 50% of 20261129.",
    "Ada Lovelace lives in Marylebone and was born in December.",
    "a@b, @ada, 10 / 3 = 3.3333333",
)


@pytest.mark.parametrize("kind", get_args(PersonalData))
def test_each_kind_is_found_where_it_stands(kind: PersonalData) -> None:
    pytest.importorskip("presidio_analyzer", reason="needs the extra `privacy`")
    find = finder_of(FeedbackSettings(personal_data_kinds=[kind]))
    text = f"Mine is {EXAMPLES[kind]} , I think."
    assert masked(text, find(text)) == f"Mine is <{kind}> , I think."
    assert find("Mine is mine, I think.") == ()


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_so_is_left_alone(text: str) -> None:
    pytest.importorskip("presidio_analyzer", reason="needs the extra `privacy`")
    assert finder_of(FeedbackSettings())(text) == ()


def test_what_overlaps_is_one() -> None:
    found = personal_data._apart(
        [Span(5, 9, "URL"), Span(0, 7, "EMAIL_ADDRESS"), Span(0, 2, "URL"), Span(9, 12, "URL")]
    )
    assert found == (Span(0, 9, "EMAIL_ADDRESS"), Span(9, 12, "URL"))
    assert masked("a@b.cd.ef10.0", found) == "<EMAIL_ADDRESS><URL>0"


def test_a_region_that_is_none_is_one_sentence() -> None:
    pytest.importorskip("presidio_analyzer", reason="needs the extra `privacy`")
    with pytest.raises(UserError, match="'XX' is no country with phone numbers"):
        finder_of(FeedbackSettings(phone_regions=["XX"]))


def test_without_the_extra_nothing_is_taken_for_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal_data, "find_spec", lambda name: None)
    for way in ("leave_out", "mask"):
        with pytest.raises(UserError, match=r"pip install 'rlhf-dagster\[privacy\]'"):
            finder_of(FeedbackSettings(personal_data=way))  # type: ignore[arg-type]
    assert finder_of(FeedbackSettings(personal_data="keep"))("ada@example.com") == ()
