"""Environments that name other loops, hand on secrets, or put modules in the way."""

import os
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.hostile.case import SECRET, Case, Place, require, rlhf, tests_of, values_of
from rlhf_dagster.common.child_processes import dagster_environment, is_secret, plain_environment, python_command
from rlhf_dagster.config.labeling import LabelStoreSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.tokens import token_for
from rlhf_dagster.lineage.people import PEOPLE_KEY_VARIABLE, people_of
from rlhf_dagster.storage.local import LocalStore

CHILDREN = tests_of("common/test_child_processes.py")
LIMITS = tests_of("common/test_limits.py")
CONFIGS = tests_of("config/test_loop_config.py")
TOKENS = tests_of("labeling/label_studio/test_tokens.py")
HERE, ELSEWHERE = "https://labels.example", "https://evil.example"
HEADERS = {"a line break": "a\r\nX-Evil: 1", "letters of no header": "ключ", "a zero": "a\0b"}
ODD: dict[str, Mapping[str, str]] = {
    "no home": {"HOME": "/nowhere"},
    "no folder for temporary files": {"TMPDIR": "/nowhere"},
    "a cache that is no folder": {"RLHF_CACHE": "/dev/null/cache"},
    "a terminal of no width": {"COLUMNS": "0"},
    "a terminal of a million columns": {"COLUMNS": "1000000"},
    "no language": {"LANG": "xx_YY.nonsense", "LC_ALL": "xx_YY.nonsense"},
}


def with_variables(variables: Mapping[str, str]) -> Callable[[Place], None]:
    return lambda _: os.environ.update(variables)


def status(place: Place) -> None:
    rlhf("round", "status", "--loop", own_loop(place))


def own_loop(place: Place) -> Any:
    from loops import write_loop

    return write_loop(place.folder / "own")


def inherits_nothing(name: str, value: str, _: Place) -> None:
    os.environ[name] = value
    require(is_secret(name, value), f"{name} does not look like a secret")
    require(name not in plain_environment(), f"{name} is inherited")


def child_says_its_environment(_: Place) -> None:
    """What it says is searched for the secrets, as all output is."""
    subprocess.run(python_command("-c", "import os; print(os.environ)"), env=plain_environment(), check=True)  # noqa: S603


def imports_in_a_folder(name: str, make: Callable[[], dict[str, str]], place: Place) -> None:
    (place.folder / f"{name}.py").write_text(place.code())
    subprocess.run(python_command("-c", f"import {name}"), cwd=place.folder, env=make(), check=True)  # noqa: S603


def with_places(places: str) -> dict[str, str]:
    os.environ["PYTHONPATH"] = places
    return dagster_environment(os.environ)


def token_elsewhere(place: Place) -> None:
    require(token_for(LabelStoreSettings(kind="label_studio", url=HERE), place.folder) == SECRET, "no token")
    token_for(LabelStoreSettings(kind="label_studio", url=ELSEWHERE), place.folder)


def odd_token(token: str, _: Place) -> None:
    LabelStudioClient("http://127.0.0.1:9", token, timeout=1.0).check()


def parsed(values: Mapping[str, Any], _: Place) -> None:
    LoopConfig.parse(dict(values), "loop.yaml")


def settings(name: str, values: Mapping[str, Any], says: str = "") -> Case:
    return Case(name, partial(parsed, values), says=says)


CASES: list[Case] = [
    *(
        Case(f"a limit of {value!r}", status, with_variables({"RLHF_LIMIT_TEMPLATE_SECONDS": value}), "RLHF_LIMIT")
        for value in values_of(LIMITS.test_what_is_no_limit_is_a_sentence)
    ),
    Case("a limit of no name", status, with_variables({"RLHF_LIMIT_ALL": "1"}), "RLHF_LIMIT_ALL is no limit"),
    *(
        Case(f"a child of a process with {name}", partial(inherits_nothing, name, value), harmless=True)
        for name, value in CHILDREN.SECRETS.items()
    ),
    Case("a child that says its environment", child_says_its_environment, harmless=True),
    *(
        Case(f"{name}.py in the folder", partial(imports_in_a_folder, name, plain_environment), harmless=True)
        for name in CHILDREN.SHADOWED
    ),
    *(
        Case(
            f"places of modules {places!r}",
            partial(imports_in_a_folder, "queue", partial(with_places, places)),
            harmless=True,
        )
        for places in ("", ":", "elsewhere:", ":elsewhere", "a::b")
    ),
    *(
        settings(f"a token called {name}", {"label_store": {"token_variable": name}}, "token_variable")
        for name in values_of(TOKENS.test_a_foreign_loop_can_name_no_other_secret)
    ),
    Case("a token for another server", token_elsewhere, says="went to https://labels.example until now"),
    *(Case(f"a token with {what}", partial(odd_token, token)) for what, token in HEADERS.items()),
    *(
        settings(f"a server at {url}", {"label_store": {"url": url}}, r"label_store\.url")
        for url in values_of(CONFIGS.test_an_address_that_cannot_be_used_is_refused)
    ),
    *(
        settings(f"a ledger at {address.partition(':')[0]} {number}", {"ledger": address.replace("opensesame", SECRET)})
        for number, address in enumerate(
            [*values_of(CONFIGS.test_a_password_in_the_file_is_refused_and_not_shown), "mysql://ada:opensesame@host/l"]
        )
    ),
    Case(
        "a short key to people's names",
        lambda place: people_of(LocalStore(place.folder)),
        with_variables({PEOPLE_KEY_VARIABLE: "short"}),
        PEOPLE_KEY_VARIABLE,
    ),
    *(
        Case(f"the loop {name!r} by a variable", lambda _: rlhf("round", "status"), with_variables({"RLHF_LOOP": name}))
        for name in ("/dev/null", "/proc", "/nowhere", "~", "http://evil.example", "a" * 300, "$(touch ran)")
    ),
    *(Case(name, status, with_variables(variables), harmless=True) for name, variables in ODD.items()),
]
