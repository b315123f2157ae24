"""Every example of docs/python.md runs as it stands there, and prints what stands under it."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox
from loops import Stages, copy_folder

from rlhf_dagster import EXPORTS

# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"^```(python|text|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MODULES = ("definitions", "our_loop")
"""Files of the page that are imported from its folder."""


@dataclass(frozen=True)
class Example:
    code: str
    shown: str
    """What the page says comes out."""


def blocks() -> list[tuple[str, str]]:
    """Language and content of each block of the page."""
    return [(match[1], match[2]) for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def files() -> dict[str, str]:
    """The blocks that begin with the name of a file."""
    return {match[1]: content for _, content in blocks() if (match := FILE.match(content))}


def examples() -> list[Example]:
    """The other blocks of Python, each with the block of text that follows it."""
    plain = [(kind, content) for kind, content in blocks() if not FILE.match(content)]
    codes, texts = plain[::2], plain[1::2]
    assert {kind for kind, _ in codes} == {"python"}
    assert {kind for kind, _ in texts} == {"text"}
    return [Example(code, shown) for (_, code), (_, shown) in zip(codes, texts, strict=True)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, stages: Stages) -> Iterator[list[str]]:
    """What each example printed, run one after the other in a folder with the page's files and a finished loop."""
    folder = tmp_path_factory.mktemp("page")
    copy_folder(stages.finished, folder / "my_loop")
    for name, content in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield [run(example.code) for example in examples()]
        for name in MODULES:
            sys.modules.pop(name, None)


def run(code: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
    return out.getvalue().strip()


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def test_each_example_prints_what_the_page_says(printed) -> None:
    """The words are the same, and the numbers close: another version of PyTorch may draw other samples."""
    for output, example in zip(printed, examples(), strict=True):
        assert NUMBER.sub("#", output) == NUMBER.sub("#", example.shown.strip())
        assert numbers(output) == pytest.approx(numbers(example.shown), rel=0.3, abs=0.3)


def test_what_the_examples_show_is_right(printed) -> None:
    _, reward, ppo, loop, project = map(numbers, printed)
    accuracy, _, praise, blame = reward
    assert accuracy > 0.65
    assert praise > 0.3 > -1 > blame
    first, last, kl = ppo
    assert last > 2 * first > 0
    assert 0 < kl < 50
    assert loop[0] == 400
    assert project[-1] == len(list(dg_assets()))


def dg_assets() -> Iterator[dg.AssetSpec]:
    from definitions import defs

    yield from defs.resolve_all_asset_specs()


def test_the_project_is_the_loop_with_its_resources_replaced(printed) -> None:
    import definitions

    defs = definitions.defs
    dg.Definitions.validate_loadable(defs)
    resources = defs.resources
    assert isinstance(resources["notifier"], definitions.Pager)
    assert resources["compute"].threads == 1
    assert resources["loop"] == definitions.loop
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("served_policy")).parent_keys == {dg.AssetKey("promotion")}
    assert {"collect_round", "train_round"} <= {job.name for job in defs.resolve_all_job_defs()}


def test_the_component_loads_with_its_settings_and_its_resource(printed) -> None:
    from our_loop import OurLoop

    contents = yaml.safe_load(files()["defs/reviews/defs.yaml"])
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=OurLoop, defs_path="reviews", defs_yaml_contents=contents)
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, OurLoop)
            assert (component.config.name, component.config.seed, component.config.ppo.updates) == ("reviews", 3, 30)
            assert component.config.compute.threads == 2
            assert definitions.resources["compute"].threads == 1
            dg.Definitions.validate_loadable(definitions)


def test_the_page_names_every_name() -> None:
    """Four trainings are named by their kind, `the same of`."""
    text = PAGE.read_text(encoding="utf-8")
    spelt_out = ("train_", "Sft", "RewardModel", "Ppo", "Dpo")
    assert [name for name in EXPORTS if not name.startswith(spelt_out) and f"`{name}`" not in text] == []
