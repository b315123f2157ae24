"""docs/operations.md: its sentences, commands, options and metrics are those of the package."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rlhf_dagster.cli.app import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
QUOTES = re.findall("“([^”]+)”", PAGE)[1:]
"""The first one explains what the marks mean."""
METRIC = re.compile(r"\brlhf_(?!dagster\b)[a-z_]+")
PLACE = re.compile(r"%[sd]|…+")


def messages() -> set[str]:
    """Every text in the package that is no docstring, with ``…`` where something is put in."""
    found: set[str] = set()
    for file in (ROOT / "rlhf_dagster").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found |= {text(node) for node in ast.walk(tree) if id(node) not in inside | said}
    return found - {""}


def text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return PLACE.sub("…", node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        return PLACE.sub("…", "".join(map(str, parts)))
    return ""


def is_said(quote: str, said: set[str]) -> bool:
    """Whether a quote stands in a text. A ``…`` at its beginning or its end leaves out what is there."""
    wanted = PLACE.sub("…", quote)
    core = wanted.removeprefix("… ").removeprefix("…").removesuffix("….").removesuffix("…").strip()
    return len(core.split()) >= 3 and any(core in one for one in said)


@pytest.fixture(scope="module")
def said() -> set[str]:
    return messages()


def test_every_sentence_of_the_page_is_one_of_the_package(said: set[str]) -> None:
    assert len(QUOTES) > 50
    assert [quote for quote in QUOTES if not is_said(quote, said)] == []


@pytest.mark.parametrize("changed", ["… waits for the annotators: …", "“", "… is …", "Label Studio did never start; …"])
def test_a_sentence_that_is_said_nowhere_would_be_seen(changed: str, said: set[str]) -> None:
    assert not is_said(changed, said)


def commands() -> Iterator[str]:
    """Each command on the page, without what follows in a comment."""
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        yield from (line.partition("#")[0].strip() for line in block.splitlines())
    yield from re.findall(r"`(rlhf [^`]+)`", PAGE.replace("```", ""))


def test_every_command_and_option_of_the_page_is_there() -> None:
    asked = [command.replace('"', "").split()[1:] for command in commands()]
    assert len(asked) > 25
    for words in asked:
        found: Any = typer.main.get_command(app)
        while hasattr(found, "commands"):
            name = words.pop(0)
            assert name in found.commands, name
            found = found.commands[name]
        options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_the_metrics_of_the_page_are_those_that_are_written() -> None:
    files = (ROOT / "rlhf_dagster" / place for place in ("loop/reporting/metrics.py", "cli/upkeep/metrics.py"))
    written = {name for file in files for name in re.findall(r'"(rlhf_[a-z_]+)"', file.read_text(encoding="utf-8"))}
    table = {name for line in PAGE.splitlines() if line.startswith("| `rlhf_") for name in METRIC.findall(line)}
    assert table >= written
    assert set(METRIC.findall(PAGE)) == written


def test_the_alarms_are_rules() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    rules = yaml.safe_load(block)
    assert all(rule.keys() == {"alert", "expr"} for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5


def test_links_of_the_page_lead_somewhere() -> None:
    heads = {line.lstrip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert link.startswith("https://") or link.removeprefix("#") in heads, link


def test_every_sentence_of_the_page_is_expected_by_a_test() -> None:
    """Three words in a row of it stand in a test, or in a benchmark that causes it."""
    files = (file for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
    code = "".join(file.read_text(encoding="utf-8") for file in files if file != Path(__file__))
    expected = " ".join(re.sub(r'"\s*\n\s*r?f?"', "", code).replace("\\", "").split())
    runs = {quote: list(in_threes(quote)) for quote in QUOTES}
    assert [quote for quote, found in runs.items() if found and not any(words in expected for words in found)] == []
    assert sum(map(bool, runs.values())) > 50


def in_threes(quote: str) -> Iterator[str]:
    """All runs of three words with nothing put in between them."""
    for part in PLACE.split(quote):
        words = part.strip(" .;:,").split()
        yield from (" ".join(words[at : at + 3]) for at in range(len(words) - 2))
