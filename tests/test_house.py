"""The plan of the package, where the import contracts do not reach: no circles, no crowded folder, no name twice."""

import ast
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp
import pytest

PACKAGE = Path(__file__).parents[1] / "rlhf_dagster"
WRONG_WAYS = {
    "up": ("records/ids.py", "from rlhf_dagster.config.loop import LoopConfig\n", "Floors"),
    "type-only": (
        "training/sft/train.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rlhf_dagster.training.dpo import losses\n",
        "Trainings",
    ),
    "lazy": (
        "loop/folder.py",
        "def wrong():\n    import dagster\n    return dagster\n",
        "The core works without Dagster",
    ),
    "heavy": ("config/base.py", "import torch\n", "The light part works without torch"),
    "sideways": (
        "labeling/label_studio/kinds/pair.py",
        "from rlhf_dagster.labeling.label_studio.kinds import ranking\n",
        "Kinds of label",
    ),
    "a folder of no floor": ("attic/__init__.py", "", "Floors"),
}
"""What must not be imported: into which file, the lines, and the contract that forbids them."""
ENTRY_POINT = "main"
"""What starts a program has this name wherever there is one."""


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, lazy and type-only imports included."""
    graph = grimp.build_graph("rlhf_dagster")
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def test_no_file_reaches_itself_through_what_it_imports(imports: Mapping[str, set[str]]) -> None:
    assert circles(imports) == []


def test_no_folder_reaches_itself_through_its_neighbours(imports: Mapping[str, set[str]]) -> None:
    folders = {module for module in imports if any(other.startswith(f"{module}.") for other in imports)}
    for folder in folders:
        assert circles(between_children(folder, imports)) == []


@pytest.mark.parametrize("way", WRONG_WAYS)
def test_one_import_the_wrong_way_breaks_its_contract(way: str, tmp_path: Path) -> None:
    file, lines, contract = WRONG_WAYS[way]
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE.parent / "pyproject.toml", tmp_path)
    changed = tmp_path / PACKAGE.name / file
    changed.parent.mkdir(exist_ok=True)
    with changed.open("a", encoding="utf-8") as opened:
        opened.write(lines)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]
    across = {"p": set(), "p.x": set(), "p.x.one": {"p.y.two"}, "p.y.two": set(), "p.y.three": {"p.x.four"}}
    assert circles(across | {"p.x.four": set(), "p.y": set()}) == []
    assert circles(between_children("p", across | {"p.x.four": set(), "p.y": set()})) == [["p.x", "p.y"]]


def test_no_folder_is_crowded() -> None:
    files = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        files[path.parent].append(path.name)
    assert len(files.pop(PACKAGE)) <= 5
    assert {folder.name: len(names) for folder, names in files.items() if len(names) > 17} == {}


def test_no_public_name_is_defined_in_two_modules() -> None:
    modules = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for name in set(defined_in(ast.parse(path.read_text(encoding="utf-8")))):
            modules[name].append(str(path.relative_to(PACKAGE)))
    twice = {name: sorted(found) for name, found in modules.items() if len(found) > 1 and name != ENTRY_POINT}
    assert twice == {}


def test_a_public_name_is_seen_however_it_is_defined() -> None:
    source = "A = 1\nB, C = 1, 2\nD: int = 3\ndef e(): ...\nclass F: ...\nasync def g(): ...\n_H = 1\nfrom x import I\n"
    assert sorted(defined_in(ast.parse(source))) == ["A", "B", "C", "D", "F", "e", "g"]


def defined_in(tree: ast.Module) -> Iterator[str]:
    """Public names that a module defines; those that it imports are another's."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def between_children(folder: str, imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Which files and folders directly in a folder import which others there, with all that is below them."""

    def child(module: str) -> str:
        return f"{folder}.{module.removeprefix(f'{folder}.').split('.')[0]}"

    below = {module for module in imports if module.startswith(f"{folder}.")}
    arrows: dict[str, set[str]] = defaultdict(set)
    for module in below:
        arrows[child(module)] |= {child(other) for other in imports[module] & below} - {child(module)}
    return arrows


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other: what is left when those without a way in or out are taken away."""
    left = {node: set(others) for node, others in arrows.items()}
    reached = {node: reachable(node, left) for node in left}
    groups = {tuple(sorted(other for other in reached[node] if node in reached.get(other, ()))) for node in left}
    return sorted(list(group) for group in groups if group)


def reachable(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(arrows.get(start, ()))
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += arrows.get(node, ())
    return found
