"""docs/security.md: every line that states a behaviour names the tests that hold it, and they are there."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlhf_dagster.common.bounds.limits import LIMITS
from rlhf_dagster.config.loop import LoopConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
HELD_BY = re.compile(r"`([\w/]+\.py)::(\w+)`")
TABLES = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)]
ROWS = [row for table in TABLES if table[0].rstrip().endswith("held by |") for row in table[2:]]


@cache
def names_in(file: str) -> set[str]:
    """Functions and constants of a test module."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return functions | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_line_is_held_by_tests_that_are_there(row: str) -> None:
    held = HELD_BY.findall(row.rpartition("| ")[2] or row)
    held = held or HELD_BY.findall(row)
    assert held, "no test is named"
    assert [name for file, name in held if name not in names_in(file)] == []


def test_most_of_the_page_is_held() -> None:
    assert len(ROWS) > 30
    assert {name for file, name in HELD_BY.findall(PAGE) if name not in names_in(file)} == set()


def test_every_way_of_a_hostile_member_is_on_the_page() -> None:
    file = "integration/test_hostile_member.py"
    tests = {name for name in names_in(file) if name.startswith("test_")}
    said = {name for found, name in HELD_BY.findall(PAGE) if found == file}
    assert tests - said == {"test_who_gives_an_answer_another_name_has_not_changed_whose_it_is"}


def test_settings_and_limits_of_the_page_are_there() -> None:
    config: Any = LoopConfig()
    for section, name in re.findall(r"`(automation|labeling)\.(\w+)[:`]", PAGE):
        assert isinstance(getattr(config, section), BaseModel)
        assert hasattr(getattr(config, section), name), name
    assert config.readable_by == "owner"
    variables = {limit.variable for limit in LIMITS.values()}
    assert set(re.findall(r"RLHF_LIMIT_\w+", PAGE)) <= variables


def test_links_of_the_page_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert link.startswith("https://") or (ROOT / "docs" / link.partition("#")[0]).is_file(), link
