"""The page of a replication: what it shows of each claim, and that it stands alone."""

import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.evaluation.report import jsonable
from rlhf_dagster.replication.base import Criterion, Measured
from rlhf_dagster.replication.page.drawing import inline_svg
from rlhf_dagster.replication.page.render import draw_claims, headline_of, render_replication, seeds_named
from rlhf_dagster.replication.page.rows import criterion_rows, digits_for, figure_rows, flat_settings, variant_rows
from rlhf_dagster.replication.page.write import write_replication_page
from rlhf_dagster.replication.records import ClaimRecord, ReplicationRecord, VariantRecord, write_replication

EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'"
VOID = {"meta"}
FIGURES = [{"budgets": [250, 1000], "wins": [Rate(0.61, 0.55, 0.66, 512).as_dict()], "kinds": {"own_one": None}}]
WINS = Criterion("It beats SFT", 0.612, 0.55, 0.66, 0.5, "above", 512, percent=True)
SLOPE = Criterion("It grows with the labels", 0.0123, 0.0101, 0.0145, 0.0, "below", 300)
UNKNOWN = Criterion("It is truthful", math.nan, -math.inf, math.inf, 0.25, "above", 0)


class Page(HTMLParser):
    """Tags, attributes and text; fails where tags do not close in order."""

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

    def values(self, name: str) -> list[str]:
        return [value for given, value in self.attributes if given == name]


class Drawn:
    """A claim that is only drawn."""

    def __init__(self, name: str) -> None:
        self.name = name

    def plot(self, figures: list[Measured]) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4, 2), layout="constrained")
        panel = figure.subplots()
        panel.plot([1, 2, 3], [rate["value"] for rate in figures[0]["wins"]] * 3, marker="o", label="<SFT> & more")
        panel.legend()
        return figure


def claim(name: str, verdict: str = "reproduced", text: str = "words", **changes: Any) -> dict[str, Any]:
    variant = {
        "name": f"labels-250 {text}",
        "seed": 0,
        "folder": "arms/labels-250-1f",
        "task": "sentiment",
        "rounds": 1,
        "until": "eval_report",
        "settings": {"labeling": {"comparisons_per_round": 250}, "name": text},
        "seconds": {"sft_checkpoint": 30.0, "ppo_policy": 60.0},
    }
    found = {
        "name": name,
        "title": f"Few labels {text}",
        "source": f"Ziegler et al. 2019 {text}",
        "paper": f"The paper has 86% {text}",
        "verdict": verdict,
        "summary": f"Here it is 61% {text}",
        "seeds": [0],
        "criteria": [jsonable(asdict(one)) | {"sentence": f"{one.sentence} {text}"} for one in (WINS, SLOPE, UNKNOWN)],
        "figures": [*FIGURES],
        "variants": [variant],
    }
    return found | changes


def record(*claims: dict[str, Any], seeds: tuple[int, ...] = (0,), text: str = "words") -> dict[str, Any]:
    return {
        "size": "quick",
        "seeds": list(seeds),
        "claims": [one | {"seeds": list(seeds)} for one in claims or (claim("C1", text=text),)],
        "seconds": 5400.0,
        "machine": {"processor": f"fast {text}", "cores": 2},
        "versions": {"rlhf-dagster": "0.2.0", "torch": f"2.9 {text}"},
        "at": "2026-11-29T15:30:00+00:00",
    }


def shown(given: dict[str, Any], plots: dict[str, str] | None = None) -> Page:
    return Page(render_replication(given, plots or {}))


def test_a_claim_is_shown_with_what_the_paper_says_what_we_found_and_what_must_hold() -> None:
    text = shown(record()).text
    for part in (
        "1 of 1 claim reproduced",
        "quick · seed 0 · 2026-11-29 15:30 UTC",
        "The paper The paper has 86% words Here Here it is 61% words",
        "It beats SFT words 61.2% 55.0 – 66.0 above 50% 512 holds",
        "It grows with the labels words 0.0123 0.0101 – 0.0145 below 0 300 does not hold",
        "It is truthful words – – above 0.25 0 open",
        "budgets 250, 1000 – –",
        "wins 0 0.61 0.55 – 0.66 512",
        "kinds own one –",
        'labels-250 words sentiment 1 eval_report labeling.comparisons_per_round: 250 name: "words" 1.5',
        "90 minutes of computing",
        "cores 2",
        "rlhf-dagster 0.2.0",
    ):
        assert part in text


@pytest.mark.parametrize("verdict", ["reproduced", "not reproduced", "not decided"])
def test_the_verdict_is_said_where_the_claims_are_listed_and_where_it_is_explained(verdict: str) -> None:
    page = shown(record(claim("C1", verdict)))
    assert sum(value.startswith("badge ") for value in page.values("class")) == 2
    assert page.text.count(f" {verdict} ") >= 3 - (verdict == "not decided")


def test_a_claim_that_failed_says_why_and_nothing_else() -> None:
    page = shown(record(claim("C2", "failed", summary="Its variant ran out of memory.", criteria=[], figures=[])))
    assert "It failed Its variant ran out of memory." in page.text
    assert "0 of 1 claim reproduced; 1 failed" in page.text
    assert "What must hold 9" not in page.text
    assert "All figures" not in page.text


def test_the_page_says_what_its_intervals_are_over() -> None:
    one, several = claim("C1"), claim("C2", figures=FIGURES * 3)
    alone, together, both = shown(record(one)), shown(record(several, seeds=(0, 1, 2))), shown(record(one, several))
    assert "Intervals are over the test prompts, labels or documents of that seed" in alone.text
    assert "Student’s t over seeds" not in alone.text
    assert "Student’s t over seeds, each of which has its own data, models and annotators." in together.text
    assert "of that seed" not in together.text
    assert "seeds 0 to 2" in together.text
    assert "models and annotators; of claims with one seed, they are over the test prompts" in both.text
    assert (alone.text.count(" Seeds "), both.text.count(" Seeds ")) == (0, 2)


def test_seeds_on_which_settings_were_chosen_are_no_results() -> None:
    assert "These are no results" in shown(record(seeds=(100,))).text
    assert "These are no results" not in shown(record(seeds=(0, 99))).text
    assert "none of those is shown here" in shown(record()).text
    decided = "was decided after runs of it on seeds 0 to 4"
    assert decided in shown(record() | {"size": "full"}).text and decided not in shown(record()).text


def test_a_claim_with_other_seeds_than_those_asked_for_names_them() -> None:
    given = record(claim("C1"), claim("C2"), seeds=(0, 1))
    given["claims"][1]["seeds"] = [0, 1, 2, 3]
    text = shown(given).text
    assert text.count("seeds 0 to 1") == 1
    assert text.count("· seeds 0 to 3") == 1


def test_the_page_stands_alone() -> None:
    plots = draw_claims([Drawn("C1"), Drawn("C2")], {"C1": FIGURES, "C2": FIGURES, "C3": FIGURES})
    assert list(plots) == ["C1", "C2"]
    page = shown(record(claim("C1"), claim("C2")), plots)
    assert not {"script", "link", "iframe", "form", "object", "base", "img", "metadata"} & set(page.tags)
    assert page.tags.count("style") == 1
    addresses = [value for name in ("href", "xlink:href", "src") for value in page.values(name)]
    identities = page.values("id")
    assert all(address.removeprefix("#") in identities for address in addresses)
    assert len(identities) == len(set(identities))
    assert {address.split("-")[0] for address in addresses} == {"#C1", "#C2"}


def test_no_text_becomes_html() -> None:
    hostile, harmless = (shown(record(claim("C1", text=text), text=text)) for text in (EVIL, "words"))
    assert hostile.tags == harmless.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in harmless.attributes]
    assert "onerror" not in {name for name, _ in hostile.attributes}


def test_the_same_figure_gives_the_same_text_which_fits_a_narrow_page() -> None:
    drawn = [inline_svg(Drawn("C1").plot(FIGURES), name) for name in ("C1", "C1", "C2")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0].startswith("<svg")
    assert 'width="384"' in drawn[0]
    assert "min-width: 288px; max-width: 100%" in drawn[0]
    assert not re.search(r"\bheight=\"\d+(\.\d+)?pt", drawn[0])


def test_figures_of_several_seeds_are_one_row() -> None:
    seeds = [{"labels": 250, "wins": Rate(value, 0.0, 1.0, 512).as_dict()} for value in (0.6, 0.7, 0.8)]
    labels, wins = figure_rows(seeds)
    assert labels == {"name": "labels", "value": "250", "interval": "–", "n": "–"}
    assert (wins["value"], wins["n"]) == ("0.70", "3")
    assert figure_rows([]) == []


def test_digits_follow_the_interval() -> None:
    widths = [digits_for(Rate(0, 0, width, 1)) for width in (0.003, 0.5, 7, 300, 0.0, math.inf, math.nan)]
    assert widths == [4, 2, 1, 0, 2, 2, 2]


def test_a_bound_is_said_in_full() -> None:
    rows = criterion_rows([jsonable(asdict(WINS)) | {"bound": bound} for bound in (0.5, 0.505, 0.001)])
    assert [row["bound"] for row in rows] == ["above 50%", "above 50.5%", "above 0.1%"]


def test_a_strip_shows_value_and_bound_wherever_they_lie() -> None:
    wins, slope, unknown = (row["strip"] for row in criterion_rows(claim("C1")["criteria"]))
    assert 0 < wins["bound"] < wins["low"] < wins["value"] < wins["high"] < 1
    assert 0 < slope["bound"] < slope["low"]
    assert unknown is None


def test_loops_are_one_row_for_all_seeds() -> None:
    first, second = claim("C1")["variants"][0], claim("C1")["variants"][0]
    (row,) = variant_rows([first, second | {"seed": 1, "seconds": {"sft_checkpoint": 150.0}}])
    assert row["minutes"] == 2.0


def test_settings_are_written_as_in_the_config() -> None:
    assert flat_settings({"ppo": {"kl_coef": 0.1, "stop": None}, "arms": ["dpo"], "on": True, "judge": {}}) == [
        "ppo.kl_coef: 0.1",
        "ppo.stop: null",
        'arms: ["dpo"]',
        "on: true",
        "judge: {}",
    ]


def test_what_all_loops_have_is_said_once() -> None:
    first = claim("C1")["variants"][0]
    second = first | {"name": "labels-500", "settings": {"labeling": {"comparisons_per_round": 500}, "name": "words"}}
    text = shown(record(claim("C1", variants=[first, second, first | {"seed": 1}]))).text
    assert 'All of them have name: "words" .' in text
    assert text.count('name: "words"') == 1
    assert text.count("labeling.comparisons_per_round: 250") == text.count("labeling.comparisons_per_round: 500") == 1
    assert "All of them" not in shown(record()).text


def test_headline_and_seeds() -> None:
    verdicts = ["reproduced", "not decided", "reproduced", "not reproduced", "failed"]
    found = headline_of([{"verdict": verdict} for verdict in verdicts])
    assert found == "2 of 5 claims reproduced; 1 not reproduced, 1 not decided, 1 failed"
    assert [seeds_named(seeds) for seeds in ([3], [0, 1], [0, 2, 7])] == ["seed 3", "seeds 0 to 1", "seeds 0, 2 and 7"]


def test_the_page_is_written_from_what_the_record_says(tmp_path) -> None:
    criteria = [WINS, UNKNOWN]
    variant = VariantRecord("labels-250", 0, "variants/labels-250", "sentiment", 1, "eval_report", {}, {"base": 60.0})
    found = ClaimRecord("C1", "Few labels", "Ziegler", "86%.", "not decided", "61%.", [0], criteria, FIGURES, [variant])
    undrawn = ClaimRecord("C2", "Undrawn", "Ziegler", "86%.", "not decided", "61%.", [0], criteria, [{}], [variant])
    write_replication(tmp_path, ReplicationRecord("quick", [0], [found, undrawn], 60.0))
    page = Page(write_replication_page(tmp_path, [Drawn("C1"), Drawn("C2")]).read_text(encoding="utf-8"))
    assert "0 of 2 claims reproduced; 2 not decided" in page.text
    assert "It is truthful – – above 0.25 0 open" in page.text
    assert "dagster" in page.text
    # The second has no figure that its plot could show, and says the rest.
    drawn = [name for name in ("C1", "C2") if any(one.startswith(f"{name}-") for one in page.values("id"))]
    assert drawn == ["C1"]
