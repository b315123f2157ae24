"""Every claim's rule on figures that nobody measured: it can say each of the three verdicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rlhf_dagster.evaluation.report import jsonable
from rlhf_dagster.replication.base import Claim, Measured
from rlhf_dagster.replication.known import CLAIMS
from rlhf_dagster.replication.page.render import draw_claims
from rlhf_dagster.replication.verdicts import judge, outcome_of_criterion

every_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)


def with_rates(found: Any, change: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Figures with every estimate in them changed."""
    if isinstance(found, Mapping):
        return change(found) if {"value", "low", "high", "n"} <= set(found) else _each(found, change)
    return [with_rates(one, change) for one in found] if isinstance(found, list | tuple) else found


def _each(found: Mapping[str, Any], change: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    return {name: with_rates(one, change) for name, one in found.items()}


def of_one_prompt(rate: Mapping[str, Any]) -> dict[str, Any]:
    """The estimate as it is where a single prompt was answered, which has no spread."""
    return {"value": rate["value"], "low": None, "high": None, "n": 1}


def unmeasured(rate: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "n": 0}


def verdict(claim: Claim, figures: Sequence[Measured]) -> str:
    return judge(claim.criteria(figures))


def test_claims_stand_in_the_order_of_their_numbers() -> None:
    assert [claim.name for claim in CLAIMS] == [f"C{number}" for number in range(1, 14)]


@every_claim
def test_what_the_papers_found_is_reproduced_and_its_contrary_is_not(claim: Claim) -> None:
    assert verdict(claim, claim.supporting()) == "reproduced"
    assert verdict(claim, claim.contrary()) == "not reproduced"
    assert "fails" in map(outcome_of_criterion, claim.criteria(claim.contrary()))


@every_claim
def test_seeds_that_agree_come_to_the_same(claim: Claim) -> None:
    assert verdict(claim, [*claim.supporting()] * 3) == "reproduced"
    assert verdict(claim, [*claim.contrary()] * 3) == "not reproduced"


@every_claim
def test_seeds_that_disagree_decide_nothing(claim: Claim) -> None:
    assert verdict(claim, [claim.supporting()[0], claim.contrary()[0]]) == "not decided"


@every_claim
@pytest.mark.parametrize("change", [of_one_prompt, unmeasured])
def test_too_few_prompts_decide_nothing(claim: Claim, change: Callable[[Mapping[str, Any]], Any]) -> None:
    for figures in (claim.supporting(), claim.contrary()):
        assert verdict(claim, [with_rates(one, change) for one in figures]) == "not decided"


@every_claim
def test_figures_are_what_json_keeps(claim: Claim) -> None:
    for figures in (claim.supporting(), claim.contrary()):
        kept = [jsonable(one) for one in figures]
        assert kept == list(figures)
        assert claim.criteria(kept) == claim.criteria(figures)


@every_claim
def test_a_claim_says_and_draws_what_was_found(claim: Claim) -> None:
    for figures in (claim.contrary(), [*claim.supporting()] * 2):
        said = claim.summary(figures)
        assert said.endswith(".")
        assert "nan" not in said
        assert "<svg" in draw_claims([claim], {claim.name: figures})[claim.name]
    for text in (claim.title, claim.source, claim.paper, *(one.sentence for one in claim.criteria(claim.supporting()))):
        assert text
    assert claim.paper.endswith(".")


@every_claim
def test_a_variant_has_one_name_and_a_size_some_variants(claim: Claim) -> None:
    for size in ("quick", "full"):
        variants = claim.variants(size)
        assert variants
        by_name = {variant.name: variant for variant in variants}
        assert all(by_name[variant.name] == variant for variant in variants)
