import pytest

from rlhf_dagster.errors import first_line


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
