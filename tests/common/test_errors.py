import pickle

import pytest

from rlhf_dagster.errors import Damaged, UserError, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("disk full.\nTraceback of a service:\n  ..."), "disk full"),
        (
            OSError("\n\n  the second line is the first that says something...  \n"),
            "the second line is the first that says something",
        ),
        (KeyError("name"), "'name'"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (RuntimeError("..."), "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error_or_its_class(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("demonstratio\ns", "demonstratio\\ns"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\u2028b\x85c\r", "a\\u2028b\\x85c\\r"),
        ("\udc80", "\\udc80"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("fünf \u00a0 猫 👩\u200d🚀", "fünf \u00a0 猫 👩\u200d🚀"),
    ],
)
@pytest.mark.parametrize("kind", [UserError, Damaged])
def test_a_sentence_is_one_line_that_steers_no_terminal_whatever_it_quotes(
    kind: type[UserError], quoted: str, shown: str
) -> None:
    error = kind(f"`{quoted}` is not a setting.")
    assert str(error) == f"`{shown}` is not a setting."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
