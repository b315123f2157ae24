"""The page of all rounds: what it shows, what it never shows, and that no text of the loop becomes HTML."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

from rlhf_dagster.lineage.registry import ChampionRecord
from rlhf_dagster.lineage.stop_cord import Stop
from rlhf_dagster.pages.markdown import NEWEST, rounds_markdown
from rlhf_dagster.pages.plots import RoundCurve, round_curves
from rlhf_dagster.pages.rounds import AnnotatorRow, RoundRow, RoundsPage, WaitingRound, day, render_rounds

EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u202e"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The tags, the attributes and the text of a page; fails where tags do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def rate(value: float, n: int = 200, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n, **more}


def full_row(number: int = 2, **changes: Any) -> RoundRow:
    key = f"round-{number:04d}"
    row = RoundRow(
        round=key,
        number=number,
        verdict="refused",
        because=["The sequence KL to SFT is 12 nats.", "Too long."],
        report=f"assets/eval_report/{key}.html",
        sampled="ppo-1",
        policy="ppo-2",
        comparisons=1500,
        labels=1950,
        annotators=12,
        accuracy=rate(0.611, 311),
        accuracy_on="by other annotators",
        length_baseline=rate(0.262, 312),
        agreement=rate(0.534, 313),
        against_champion=rate(0.401, 314, judge="annotators"),
        against_sft=rate(0.854, 315, judge="annotators"),
        kl=rate(6.7, 316),
    )
    return replace(row, **changes)


def page(text: str = "words", **changes: Any) -> RoundsPage:
    """A page with something in every part, every free text being ``text``."""
    champion = ChampionRecord(text, "round-0001", "promotion", text, text, "2026-11-21T01:25:31.932074+00:00")
    stamp = "2026-11-21T01:25:31+00:00"
    parts: dict[str, Any] = {
        "loop": text,
        "made": datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        "stop": Stop(text, text, stamp),
        "problems": [text],
        "waiting": [WaitingRound(text, 30, 120, [text])],
        "running": [text],
        "champions": [champion, replace(champion, action="rollback")],
        "rounds": [
            full_row(because=[text, text], sampled=text, policy=text),
            full_row(1, because=[text], against_sft=rate(0.6, judge=text)),
        ],
        "earlier": [RoundRow(round="round-0000", number=0, verdict="overtaken", policy=text)],
        "annotators": [
            AnnotatorRow(text, 2, "round-0002", 40, rate(0.7), rate(0.8), rate(0.3, chance=0.25), 0.9, text)
        ],
    }
    return RoundsPage(**parts | changes)


EMPTY = RoundsPage(loop="sentiment", made=datetime(2026, 11, 21, 9, 30, tzinfo=UTC))


def shown(given: RoundsPage) -> Page:
    return Page(render_rounds(given))


def test_no_text_of_the_loop_becomes_html() -> None:
    hostile, harmless = shown(page(EVIL)), shown(page())
    assert hostile.tags == harmless.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in harmless.attributes]
    assert hostile.text.count(EVIL) == harmless.text.count("words")
    assert "script" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]


def test_names_do_not_turn_the_direction_of_what_follows() -> None:
    assert shown(page(EVIL)).tags.count("bdi") >= 8


def test_its_markdown_says_what_matters_and_no_text_of_the_loop_is_markup_there() -> None:
    markdown = MarkdownIt("gfm-like", {"linkify": False})
    evil = f"- # 1. `a` | *b* [c](http://d) ![e](f)\n\n| g |\n| - |\n{EVIL}"
    harmless, hostile = (Page(markdown.render(rounds_markdown(page(text)))) for text in ("words", evil))
    assert hostile.tags == harmless.tags
    for said in ("Stopped by words", "words 30 of 120 are answered.", "85.4% (80.4 – 90.4, n 315)", "6.70", "Refused"):
        assert said in harmless.text
    assert hostile.text.count(EVIL) == harmless.text.count("words")
    many = page(rounds=[full_row(number) for number in range(NEWEST + 5, 0, -1)])
    assert Page(markdown.render(rounds_markdown(many))).tags.count("tr") == 1 + NEWEST
    assert "No round is open yet." in rounds_markdown(EMPTY)


def test_the_page_stands_alone() -> None:
    found = shown(page())
    assert not {"script", "link", "iframe", "form", "object", "base"} & set(found.tags)
    addresses = found.values("src", "href", "action", "data", "srcset")
    pictures = [address for address in addresses if address.startswith("data:image/png;base64,")]
    assert sorted(set(addresses) - set(pictures)) == [f"assets/eval_report/round-000{i}.html" for i in (1, 2)]
    assert len(pictures) == 1
    assert "url(" not in render_rounds(page())


def test_every_rate_has_its_interval_and_n() -> None:
    text = shown(page(rounds=[full_row()])).text
    for value, ends, n in [
        ("61.1%", "56.1 – 66.1", 311),
        ("26.2%", "21.2 – 31.2", 312),
        ("53.4%", "48.4 – 58.4", 313),
        ("40.1%", "35.1 – 45.1", 314),
        ("85.4%", "80.4 – 90.4", 315),
        ("6.70", "6.65 – 6.75", 316),
    ]:
        assert f"{value} {ends} n {n}" in text
    assert "30.0% 25.0 – 35.0, n 200, chance 25%" in text


@pytest.mark.parametrize(("value", "colour"), [(0.6, "up"), (0.4, "down"), (0.52, "")])
def test_win_rates_are_coloured_where_the_interval_excludes_a_half(value, colour) -> None:
    row = RoundRow("round-0001", 1, "refused", against_sft=rate(value, judge="annotators"))
    found = shown(replace(EMPTY, rounds=[row])).values("class")
    assert [name for name in ("up", "down") if name in found] == ([colour] if colour else [])


def test_an_empty_loop_says_what_comes_first() -> None:
    text = shown(EMPTY).text
    assert "No round is open yet" in text
    assert "Nothing runs." in text
    assert "None yet: the SFT policy will be the first." in text
    assert "as of 2026-11-21 09:30 UTC" in text
    assert "Stopped by" not in text


def test_a_round_without_figures_shows_dashes() -> None:
    text = shown(replace(EMPTY, rounds=[RoundRow("round-0001", 1, "waiting", ["Not sampled yet."])])).text
    assert "round-0001 – – – – – – – – In progress Not sampled yet." in text
    assert "None" not in text.replace("None yet", "")


def test_the_stop_is_the_first_thing_said() -> None:
    found = shown(page("x", stop=Stop("ada", "labels are wrong", "2026-11-21T01:25:31+00:00")))
    assert "Stopped by ada on 2026-11-21 01:25: labels are wrong" in found.text
    assert found.text.index("Stopped by") < found.text.index("What waits for whom")


def test_progress_is_drawn_and_never_beyond_its_end() -> None:
    bars = [WaitingRound("a", 30, 120), WaitingRound("b", 130, 120), WaitingRound("c", 0, 0), WaitingRound("d")]
    styles = shown(replace(EMPTY, waiting=bars)).values("style")
    assert styles == ["width: 25.0%", "width: 100%"]


def test_judges_are_named_beside_their_figures_where_there_are_several() -> None:
    people, model = full_row(2), full_row(1, against_sft=rate(0.7, judge="reward model"))
    assert "by the annotators;" in shown(replace(EMPTY, rounds=[people])).text
    text = shown(replace(EMPTY, rounds=[people, model])).text
    assert "by the annotators, else by the reward model;" in text
    assert "70.0% 65.0 – 75.0 n 200 reward model" in text


def test_curves_compare_only_what_compares() -> None:
    """Two rounds by the annotators and one by the reward model: the picture is that of the two."""
    two = [full_row(3), full_row(2)]
    other = RoundRow("round-0001", 1, "refused", against_sft=rate(0.1, judge="reward model"))
    pictures = [shown(replace(EMPTY, rounds=rows)).values("src") for rows in (two, [*two, other], two[:1])]
    assert pictures[0] == pictures[1] != []
    assert pictures[2] == []


def test_pictures_of_rounds_need_a_value_and_bear_missing_ends() -> None:
    gap = {"value": None, "low": None, "high": None}
    known = RoundCurve("a", [(1, rate(0.5)), (2, gap), (4, {"value": 0.4, "low": None, "high": 0.4 - 1e-17})])
    assert round_curves([known, RoundCurve("b", [(1, gap)])]) == round_curves([known])
    with pytest.raises(ValueError, match="no curve"):
        round_curves([RoundCurve("b", [(1, gap)])])


def test_moments_are_in_utc() -> None:
    assert day("2026-11-21T01:25:31.932074+02:00") == "2026-11-20 23:25"
    assert day("yesterday") == "yesterday"


def test_champions_that_are_not_listed_are_counted() -> None:
    assert "7 earlier changes of the champion" in shown(page(champions_left_out=7)).text
    assert "earlier change" not in shown(page()).text
