import pytest

from rlhf_dagster.data.line_records import parse_demonstration, parse_prompt
from rlhf_dagster.data.lines import BadLineError


def test_prompts_and_demonstrations() -> None:
    assert parse_prompt({"prompt": "p"}).source == ""
    assert parse_prompt({"prompt": "p", "source": "s", "user": "u"}).user == "u"
    assert parse_demonstration({"prompt": "p", "response": "r", "source": None}).response == "r"
    for parse, values, reason in (
        (parse_prompt, {"text": "p"}, "`prompt` is missing"),
        (parse_prompt, {"prompt": "p", "response": "r"}, "`response` is not a key here"),
        (parse_demonstration, {"prompt": "p"}, "`response` is missing"),
        (parse_demonstration, {"prompt": "p", "response": ""}, "`response` is empty"),
    ):
        with pytest.raises(BadLineError) as error:
            parse(values)
        assert str(error.value).startswith(reason)
