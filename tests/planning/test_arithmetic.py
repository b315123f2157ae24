"""Numbers keep how they came about, and what is shown gives what is said."""

import math

import pytest

from rlhf_dagster.planning.arithmetic import Known, Sheet, Term, larger, number_text, rounded_up


def of(*values: float) -> list[Term]:
    return [Term.of(value) for value in values]


def test_the_text_of_a_term_has_the_brackets_that_its_value_needs() -> None:
    two, three, five = of(2, 3, 5)
    for term, text, value in (
        (two + three * five, "2 + 3 x 5", 17),
        ((two + three) * five, "(2 + 3) x 5", 25),
        (two - (three - five), "2 - (3 - 5)", 4),
        (two - three + five, "2 - 3 + 5", 4),
        (two / (three * five), "2 / (3 x 5)", 2 / 15),
        (two / (three / five), "2 / (3 / 5)", 10 / 3),
        (two / three / five, "2 / 3 / 5", 2 / 15),
        (two * (three / five), "2 x 3 / 5", 1.2),
        (rounded_up(five / two), "ceil(5 / 2)", 3),
        (larger(two + three, five * two), "max(2 + 3, 5 x 2)", 10),
    ):
        assert (term.text, term.value) == (text, pytest.approx(value))
        assert evaluated(term.text) == pytest.approx(value)


def test_numbers_show_the_digits_that_count() -> None:
    numbers = {1_000_000: "1,000,000", 0.4: "0.4", 2803.77: "2,804", 0.0595719: "0.05957", 74.297: "74.3", 0: "0"}
    assert {value: number_text(value) for value in numbers} == numbers
    assert number_text(999.96) == "1,000"
    assert number_text(-2.5) == "-2.5"


def test_a_known_figure_stands_on_a_sheet_once() -> None:
    sheet, known = Sheet("s"), Known("a", 2, "h", "a book")
    result = sheet.result("twice", "h", sheet.known(known) + sheet.known(known))
    assert [(line.name, line.value, line.how) for line in sheet.lines] == [("a", 2, "a book"), ("twice", 4, "2 + 2")]
    assert (result.text, sheet.value("twice")) == ("4", 4)


def evaluated(text: str) -> float:
    """What a text gives when it is computed: numbers, signs, brackets and three functions."""
    assert set(text) <= set("0123456789.,+-x/() ceilfloormax"), text
    plain = text.replace(", ", ";").replace(",", "").replace(";", ", ").replace("max", "larger").replace("x", "*")
    names = {"ceil": math.ceil, "floor": math.floor, "larger": max}
    return eval(plain.replace("larger(", "larger("), {"__builtins__": {}}, names)
