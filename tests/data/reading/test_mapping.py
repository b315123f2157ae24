import pytest

from rlhf_dagster.data.reading.mapping import check_columns, column_map, mapped
from rlhf_dagster.errors import UserError

ROW = {"post": {"title": "T", "parts": ["x", "y"]}, "answer1": "a", "answer2": None, "author": "Ada"}


def test_columns_are_renamed_taken_out_and_joined() -> None:
    columns = column_map(["response_a=answer1", "prompt={post.title}: {post.parts.1}", "user=author"])
    row = mapped(ROW, columns)
    assert row == {"post": ROW["post"], "answer2": None, "response_a": "a", "prompt": "T: y", "user": "Ada"}
    assert mapped(ROW, {"prompt": "post.title", "b": "answer2"})["prompt"] == "T"
    assert mapped(ROW, {"prompt": "{answer2}{answer1}"})["prompt"] == "a"


def test_a_column_that_a_row_lacks_stays_missing() -> None:
    assert "prompt" not in mapped(ROW, {"prompt": "{post.body}"})
    assert "prompt" not in mapped(ROW, {"prompt": "post.parts.7"})


def test_columns_that_no_row_has_and_what_is_no_pair() -> None:
    check_columns([{"x": 1}, ROW], {"prompt": "post.title"}, "f")
    with pytest.raises(UserError, match="f: no column `body`; it has post, answer1"):
        check_columns([ROW], {"prompt": "{post.title} {body}"}, "f")
    for wrong in ("prompt", "=x", "prompt="):
        with pytest.raises(UserError, match="give our name and that of the file"):
            column_map([wrong])
