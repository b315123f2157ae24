"""Personal data in what users wrote, found by Presidio's patterns and check digits, without a model.

That finds what has a form: addresses of mail and of machines, numbers of phones, cards, accounts and of some
authorities. It does not find names, postal addresses, dates of birth, or what a person tells of themselves.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.data import FeedbackSettings
from rlhf_dagster.errors import UserError

_PACKAGE, _EXTRA = "presidio_analyzer", "privacy"
_LEAST_SCORE = 0.3
"""Patterns that Presidio rates lower, such as nine digits in a row, say little without the words around them."""
_LEAST_DIGITS = 6
"""Of a phone number."""
_REMEMBERED = 2**14
"""Texts, such as system messages, that come again and again."""

_RECOGNIZERS = {
    "CREDIT_CARD": "CreditCardRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "US_SSN": "UsSsnRecognizer",
    "URL": "UrlRecognizer",
    "DE_TAX_ID": "DeTaxIdRecognizer",
    "ES_NIF": "EsNifRecognizer",
    "FI_PERSONAL_IDENTITY_CODE": "FiPersonalIdentityCodeRecognizer",
    "IN_PAN": "InPanRecognizer",
    "IT_FISCAL_CODE": "ItFiscalCodeRecognizer",
    "PL_PESEL": "PlPeselRecognizer",
    "SE_PERSONNUMMER": "SePersonnummerRecognizer",
    "TH_TNIN": "ThTninRecognizer",
    "UK_NHS": "NhsRecognizer",
    "UK_NINO": "UkNinoRecognizer",
}
"""Presidio's classes by kind, but for those that are made in a way of their own here."""


class Span(NamedTuple):
    """Where in a text personal data stands: from ``start`` up to ``end``."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], tuple[Span, ...]]


def finder_of(settings: FeedbackSettings) -> Finder:
    """What finds personal data in a text, in its order and without overlaps.

    Raises UserError where the extra is not installed, or a region of phone numbers is not known.
    """
    if settings.personal_data == "keep":
        return lambda text: ()
    if find_spec(_PACKAGE) is None:
        raise UserError(
            f"data.feedback looks for personal data with {_PACKAGE}; `{install_extras(_EXTRA)}`, or "
            "set data.feedback.personal_data to keep."
        )
    recognizers = [_recognizer(kind, settings) for kind in settings.personal_data_kinds]

    @lru_cache(_REMEMBERED)
    def find(text: str) -> tuple[Span, ...]:
        return _apart([one for recognize in recognizers for one in recognize(text)])

    return find


def masked(text: str, found: tuple[Span, ...]) -> str:
    """``text`` with a mark such as `<PHONE_NUMBER>` in place of what was found."""
    for start, end, kind in reversed(found):
        text = f"{text[:start]}<{kind}>{text[end:]}"
    return text


def _recognizer(kind: str, settings: FeedbackSettings) -> Finder:
    if kind == "PHONE_NUMBER":
        return _phone_numbers(settings.phone_regions)
    from presidio_analyzer import PatternRecognizer, predefined_recognizers

    if kind == "EMAIL_ADDRESS":
        # Presidio's own looks up the domain in a list that it fetches from the internet.
        patterns = predefined_recognizers.EmailRecognizer.PATTERNS
        return _finder(PatternRecognizer(supported_entity=kind, patterns=patterns))
    return _finder(getattr(predefined_recognizers, _RECOGNIZERS[kind])())


def _phone_numbers(regions: list[str]) -> Finder:
    import phonenumbers
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    unknown = [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        raise UserError(f"data.feedback.phone_regions: {unknown[0]!r} is no country with phone numbers, such as US.")
    find = _finder(PhoneRecognizer(supported_regions=tuple(regions)))
    return lambda text: find(text) if sum(map(str.isdigit, text)) >= _LEAST_DIGITS else ()


def _finder(recognizer: Any) -> Finder:
    entities = recognizer.supported_entities

    def find(text: str) -> tuple[Span, ...]:
        results = recognizer.analyze(text, entities, None)
        return tuple(Span(one.start, one.end, one.entity_type) for one in results if one.score >= _LEAST_SCORE)

    return find


def _apart(found: list[Span]) -> tuple[Span, ...]:
    """``found`` in the text's order; of those that overlap, all of their text, as of the kind that begins first."""
    apart: list[Span] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if apart and one.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, one.end))
        else:
            apart.append(one)
    return tuple(apart)
