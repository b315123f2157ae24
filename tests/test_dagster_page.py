"""docs/dagster.md: its settings load in a project, its class works, and its names are those that a loop gets."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from team_project import write_project

from rlhf_dagster import LoopConfig, LoopNames, Notifier, RlhfLoop

# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
PAGE = (Path(__file__).parents[1] / "docs" / "dagster.md").read_text(encoding="utf-8")
SUPPORT = LoopNames(("nlp", "support"))


def blocks(kind: str) -> list[str]:
    """The contents of the page's blocks of a language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_settings_of_the_page_load_beside_a_team_s_assets(tmp_path: Path) -> None:
    first, _, tagged, translated = map(yaml.safe_load, blocks("yaml"))
    attributes = first["attributes"] | tagged | translated["attributes"] | {"root": str(tmp_path / "loop")}
    tree = dg.ComponentTree.for_project(write_project(tmp_path, "page_project", {"support": attributes}))
    definitions = tree.build_defs()
    dg.Definitions.validate_loadable(definitions)
    assert '"nvidia.com/gpu": 1' in definitions.resolve_job_def("support__prepare").tags["dagster-k8s/config"]
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    costs = {spec.tags["cost"] for key, spec in specs.items() if key.startswith("support/")}
    assert (specs["support/reward_model"].tags["cost"], costs) == ("high", {"high", "low"})
    assert specs["support/prompts"].owners == ["team:support"]
    assert specs["support/prompts"].automation_condition == dg.AutomationCondition.on_missing()


def test_a_loop_is_called_what_the_page_says() -> None:
    rows = [re.findall(r"`([^`]+)`", line) for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
    called = {row[-2]: row[-1] for row in rows if len(row) == 2}
    assert called.pop("prompts") == "/".join(SUPPORT.path("prompts"))
    assert called == {name: SUPPORT.own(name) for name in ("data", "train_round", "rounds")}
    assert SUPPORT.tag("name") == {"rlhf/loop": "nlp/support"}


def test_the_class_of_the_page_changes_what_it_says(tmp_path: Path) -> None:
    (code,) = blocks("python")
    names = {"RlhfLoop": RlhfLoop, "dg": dg, "Mapping": Mapping, "Any": Any, "Pager": Notifier}
    exec(code, names)
    loop = names["SupportLoop"](LoopConfig(), tmp_path, LoopNames(("support",)))
    project = write_project(tmp_path, "page_class", {})
    built = loop.build_defs(dg.ComponentTree.for_project(project).load_context)
    assert {spec.tags.get("domain") for spec in built.resolve_all_asset_specs()} == {"support"}
    assert isinstance(built.resources["support__notifier"], Notifier)
