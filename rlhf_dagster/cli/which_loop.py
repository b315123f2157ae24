"""Which loop a command works on: the one in a folder, or one that a Dagster project declares as a component."""

import functools
import inspect
import shlex
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from rlhf_dagster.common.files import reading
from rlhf_dagster.config.loop import CONFIG_FILE, load_config
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.records.loop_names import ALONE

if TYPE_CHECKING:
    from rlhf_dagster.automation.declared import DeclaredLoop
    from rlhf_dagster.component import RlhfLoop
    from rlhf_dagster.loop.folder import LoopFolder

_Command = TypeVar("_Command", bound=Callable[..., Any])
PROJECT_FILES = ("pyproject.toml", "dg.toml")
_project: ContextVar[Path | None] = ContextVar("project", default=None)
"""The `--project` of the command at work. Every command that has a loop takes it, and hands on the loop alone."""


def _say_which(context: typer.Context, option: typer.CallbackParam, folder: Path) -> Path:
    """Name the loop where the environment says which: nobody has typed it."""
    source = context.get_parameter_source(option.name or "")
    if source is not None and source.name == "ENVIRONMENT":
        print(f"rlhf: the loop {folder}, from RLHF_LOOP.", file=sys.stderr)
    return folder


LoopOption = Annotated[
    Path,
    typer.Option(
        "--loop",
        help="The loop's folder, which holds loop.yaml, or its name in a Dagster project.",
        envvar="RLHF_LOOP",
        callback=_say_which,
    ),
]
FolderArgument = Annotated[
    Path, typer.Argument(help="The loop's folder, which holds loop.yaml, or its name in a Dagster project.")
]
ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", help="A Dagster project that declares the loop; default: that of the working folder."),
]


class LoopTyper(typer.Typer):
    """Commands that also take `--project` where they take a loop."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Command], _Command]:
        declare = super().command(name, **options)

        def decorate(function: _Command) -> _Command:
            return declare(_with_project(function))

        return decorate


def _with_project(function: _Command) -> _Command:
    signature = inspect.signature(function)
    if not any(one.annotation in (LoopOption, FolderArgument) for one in signature.parameters.values()):
        return function

    @functools.wraps(function)
    def command(*args: Any, project: Path | None, **kwargs: Any) -> Any:
        before = _project.set(project)
        try:
            return function(*args, **kwargs)
        finally:
            _project.reset(before)

    option = inspect.Parameter("project", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ProjectOption)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), option]
    )
    command.__annotations__ = {**function.__annotations__, "project": ProjectOption}
    return cast("_Command", command)


def open_loop(place: Path) -> "LoopFolder":
    """The loop that a command names and may write to, brought up to date.

    Raises UserError where it is newer than this release, or a copy of a loop that lives elsewhere.
    """
    from rlhf_dagster.lineage.formats import bring_up_to_date
    from rlhf_dagster.loop.guards.place import require_in_place

    loop = find_loop(place)
    require_in_place(loop)
    bring_up_to_date(loop.store)
    return loop


def open_to_read(place: Path) -> "LoopFolder":
    """The same for a command that only reads: a copy may be read, and says that it is one."""
    from rlhf_dagster.lineage.formats import bring_up_to_date
    from rlhf_dagster.loop.guards.place import place_notice

    loop = find_loop(place)
    if notice := place_notice(loop):
        print(f"rlhf: {notice}", file=sys.stderr)
    bring_up_to_date(loop.store)
    return loop


def find_loop(place: Path) -> "LoopFolder":
    """The loop that a command names: by its folder, or by its name where it is a component of a Dagster project."""
    from rlhf_dagster.loop.folder import LoopFolder

    if project := _project.get():
        return find_declared(str(place), project)
    file = place / CONFIG_FILE
    with reading(file):
        is_there = file.exists()
    if not (is_there or place.is_absolute()) and (around := _project_around(Path.cwd())):
        return find_declared(str(place), around, f"{file}: no such file, and ")
    return LoopFolder(load_config(place), place.resolve(), replace(ALONE, said=shlex.quote(str(place))))


def _project_around(folder: Path) -> Path | None:
    """The Dagster project that a folder is in."""
    return next((one for one in (folder, *folder.parents) if _is_project(one)), None)


def _is_project(folder: Path) -> bool:
    files = (folder / name for name in PROJECT_FILES)
    return any(file.is_file() and 'directory_type = "project"' in file.read_text(encoding="utf-8") for file in files)


def find_declared(name: str, project: Path, elsewhere: str = "") -> "DeclaredLoop":
    """The loop of a project by the name or by the key prefix of its component.

    Raises UserError where the project declares none, which begins with where else it was looked for.
    """
    found = _components(project.resolve())
    named = [loop for loop in found if name in _names_of(loop)]
    if len(named) == 1:
        return named[0]
    if named:
        raise UserError(f"{project} declares several loops called {name}; name the one by its key_prefix.")
    declared = ", ".join(_names_of(loop)[-1] for loop in found) or "none"
    raise UserError(f"{elsewhere}{project} declares no loop called {name}; it declares {declared}.")


def _names_of(loop: "DeclaredLoop") -> list[str]:
    prefix = "/".join(loop.names.prefix)
    return [loop.config.name, *([prefix] if prefix else [])]


def _components(project: Path) -> list["DeclaredLoop"]:
    import dagster as dg

    from rlhf_dagster.component import RlhfLoop

    if not _is_project(project):
        raise UserError(f"{project} is no Dagster project: it has no pyproject.toml with a section [tool.dg].")
    sys.path[:0] = [str(folder) for folder in (project / "src", project) if str(folder) not in sys.path]
    try:
        tree = dg.ComponentTree.for_project(project)
        components = tree.get_all_components(of_type=RlhfLoop)
        return [_declared(component, tree) for component in components]
    except UserError:
        raise
    except Exception as error:
        # Whatever the code of the project raises; `dg check defs` shows all of it.
        raise UserError(f"{project} cannot be loaded ({first_line(error)}); `dg check defs` says more.") from None


def _declared(component: "RlhfLoop", tree: Any) -> "DeclaredLoop":
    from rlhf_dagster.automation.declared import DeclaredLoop

    component.root = (tree.project_root / component.root).resolve()
    loop = component.loop()
    return DeclaredLoop(
        loop.config,
        loop.root,
        loop.names,
        definitions=lambda: component.build_defs(tree.load_context),
        code_location=tree.code_location_name or "",
    )
