"""Which licence a policy can have, by those of what it was made from."""

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.licences import LicensedSource, agreed_licence


def made_from(*licences: str) -> list[LicensedSource]:
    return [LicensedSource(f"source {number}", licence) for number, licence in enumerate(licences, 1)]


@pytest.mark.parametrize(
    ("licences", "given", "agreed"),
    [
        (["apache-2.0"], "", "apache-2.0"),
        (["mit", "cc-by-4.0"], "", "mit"),
        (["mit", "apache-2.0"], "cc-by-nc-4.0", "cc-by-nc-4.0"),
        (["apache-2.0", "cc-by-sa-4.0"], "", "cc-by-sa-4.0"),
        (["cc-by-sa-4.0", "cc-by-sa-4.0"], "cc-by-sa-4.0", "cc-by-sa-4.0"),
        (["llama3.1", ""], "llama3.1", "llama3.1"),
        (["", ""], "mit", "mit"),
    ],
)
def test_what_binds_is_taken_and_a_person_chooses_among_the_rest(licences, given, agreed) -> None:
    assert agreed_licence(made_from(*licences), given) == agreed


@pytest.mark.parametrize(
    ("licences", "given", "sentence"),
    [
        (["apache-2.0", ""], "", "licence of source 2 is not known"),
        (["", ""], "", "licence of source 1 and of source 2 is not known"),
        (["cc-by-nc-4.0", "gpl-3.0"], "", "source 1 under cc-by-nc-4.0 and source 2 under gpl-3.0"),
        (["cc-by-nc-4.0"], "mit", "source 1 is under cc-by-nc-4.0, which binds"),
        (["cc-by-nc-4.0", ""], "mit", "source 1 is under cc-by-nc-4.0, which binds"),
        (["mit"], "My Licence", "identifier of a licence"),
        (["mit"], "other", "identifier of a licence"),
    ],
)
def test_what_does_not_go_together_is_refused(licences, given, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        agreed_licence(made_from(*licences), given)
