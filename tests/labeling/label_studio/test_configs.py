"""Labelling configs: what is asked is what the reader of annotations knows, and no two keys are the same."""

from typing import Any
from xml.etree import ElementTree

import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import FLAGS
from rlhf_dagster.labeling.label_studio.configs import config_hash, instructions_html, labelling_config
from rlhf_dagster.labeling.label_studio.kinds.base import Control
from rlhf_dagster.labeling.label_studio.kinds.known import page_of
from rlhf_dagster.labeling.label_studio.markup import FLAG_KEYS
from rlhf_dagster.labeling.label_studio.tasks import task_data

PAGES = [
    ("pair", "train", {"kind": "pair"}),
    ("pair", "train", {"kind": "pair", "strength": False}),
    ("pair", "evaluation", {"evaluation_axes": ["helpful", "honest"]}),
    ("pair", "evaluation", {"evaluation_axes": []}),
    ("best_of_k", "train", {"kind": "best_of_k", "responses_per_prompt": 9}),
    ("best_of_k", "train", {"kind": "best_of_k", "responses_per_prompt": 2}),
    ("ranking", "train", {"kind": "ranking", "responses_per_prompt": 5}),
    ("rating", "train", {"kind": "rating", "responses_per_prompt": 4, "rating_axes": ["overall", "not_harmful"]}),
    ("rating", "train", {"kind": "rating", "responses_per_prompt": 9, "rating_axes": list("abcdefghi")}),
    ("demonstration", "demonstrations", {}),
]
ON_EVERY_PAGE = {"flags", "rationale"}
each_page = pytest.mark.parametrize(("kind", "purpose", "changes"), PAGES)


def page(kind: str, purpose: str, changes: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(labelling_config(kind, purpose, LabelingSettings(**changes)))


def comparison(kind: str, purpose: str, changes: dict[str, Any]) -> dict[str, Any]:
    k = {"pair": 2, "demonstration": 0}.get(kind, LabelingSettings(**changes).responses)
    return {
        "comparison_id": "c",
        "kind": kind,
        "purpose": purpose,
        "prompt": "?",
        "responses": ["x"] * k,
        "display_order": list(range(k)),
    }


def read_controls(kind: str, purpose: str, changes: dict[str, Any]) -> dict[str, Control]:
    k = len(comparison(kind, purpose, changes)["responses"])
    return page_of(kind, purpose, LabelingSettings(**changes)).controls(k)


@each_page
def test_controls_are_those_that_are_read(kind: str, purpose: str, changes: dict[str, Any]) -> None:
    controls = {
        element.get("name"): (element.tag.lower(), element.get("toName"))
        for element in page(kind, purpose, changes).iter()
        if element.get("toName") and element.get("name") != "absent"
    }
    known = read_controls(kind, purpose, changes)
    assert {name: controls[name] for name in controls.keys() - ON_EVERY_PAGE} == {
        name: (control.type, control.to_name) for name, control in known.items() if name != "absent"
    }
    assert controls.keys() >= ON_EVERY_PAGE


@each_page
def test_values_of_the_page_are_in_the_task(kind: str, purpose: str, changes: dict[str, Any]) -> None:
    asked = {
        element.get("value", "")[1:]
        for element in page(kind, purpose, changes).iter()
        if element.get("value", "").startswith("$")
    }
    assert set(task_data(comparison(kind, purpose, changes), LabelingSettings(**changes))) == asked | {"comparison"}


@each_page
def test_no_key_does_two_things(kind: str, purpose: str, changes: dict[str, Any]) -> None:
    keys = [element.get("hotkey") for element in page(kind, purpose, changes).iter() if element.get("hotkey")]
    choices = task_data(comparison(kind, purpose, changes), LabelingSettings(**changes)).get("choices", [])
    keys += [choice["hotkey"] for choice in choices]
    assert len(set(keys)) == len(keys)
    # Label Studio's own.
    assert "u" not in keys


@pytest.mark.parametrize(
    ("changes", "aliases"),
    [
        ({"strength": True}, ["A2", "A1", "tie", "B1", "B2", "cannot_decide"]),
        ({"strength": False}, ["A", "tie", "B", "cannot_decide"]),
    ],
)
def test_pair_stores_aliases(changes: dict[str, Any], aliases: list[str]) -> None:
    preference = page("pair", "train", {"kind": "pair"} | changes).find(".//Choices[@name='preference']")
    assert preference is not None
    assert [choice.get("alias") for choice in preference] == aliases


@each_page
def test_what_must_be_answered_is_required(kind: str, purpose: str, changes: dict[str, Any]) -> None:
    needed = {element.get("name") for element in page(kind, purpose, changes).iter() if element.get("required")}
    known = set(read_controls(kind, purpose, changes))
    # A ranker cannot be required; the order is not final unless it is said to be. What rating_status says need not be.
    assert needed == known - {"rank", "rating_status", "absent"}


@each_page
def test_every_page_has_the_flag_that_stops_and_the_instructions_name_it(
    kind: str, purpose: str, changes: dict[str, Any]
) -> None:
    flags = page(kind, purpose, changes).find(".//Choices[@name='flags']")
    assert flags is not None
    aliases = {choice.get("alias"): choice.get("hotkey") for choice in flags}
    assert aliases == dict(zip(FLAGS, FLAG_KEYS, strict=True)) or (
        kind == "demonstration" and aliases == dict(zip(FLAGS[1:], FLAG_KEYS[1:], strict=True))
    )
    assert ("Stop the training" in instructions_html(kind, purpose, LabelingSettings())) == (kind != "demonstration")


def test_axes_are_written_as_words() -> None:
    titles = [header.get("value", "") for header in page(*PAGES[7]).iter("Header")]
    assert "Not harmful [2]" in titles


def test_instructions_are_the_settings_own_and_harmless() -> None:
    settings = LabelingSettings(instructions="Choose **well**. <script>alert(1)</script>")
    html = instructions_html("pair", "train", settings)
    assert "<strong>well</strong>" in html
    assert "<script" not in html


@each_page
def test_every_kind_has_instructions(kind: str, purpose: str, changes: dict[str, Any]) -> None:
    html = instructions_html(kind, purpose, LabelingSettings(**changes))
    assert "Ctrl+Enter" in html
    assert "{" not in html


def test_pair_without_strength_is_not_asked_how_much() -> None:
    assert "how much" in instructions_html("pair", "train", LabelingSettings())
    assert "how much" not in instructions_html("pair", "train", LabelingSettings(strength=False))


def test_another_page_has_another_hash() -> None:
    pages = {
        config_hash(labelling_config(kind, purpose, LabelingSettings(**changes))) for kind, purpose, changes in PAGES
    }
    assert len(pages) == len(PAGES)
    assert config_hash("x") == config_hash("x")
