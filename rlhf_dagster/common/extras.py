"""How a package that is missing is installed: for the Python at work, whose `pip` need not be the one on the PATH."""

import sys
from importlib.util import find_spec


def install_command(requirement: str) -> str:
    """The command that installs a requirement; environments of uv have no pip of their own."""
    if find_spec("pip") is None:
        return f"uv pip install --python {sys.executable} {requirement}"
    return f"{sys.executable} -m pip install {requirement}"


def install_extras(*extras: str) -> str:
    """The command that installs this package's extras, from wherever the package itself came."""
    return install_command(f"'rlhf-dagster[{','.join(extras)}]'")
