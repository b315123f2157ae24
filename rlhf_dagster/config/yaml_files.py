"""Reading what people write in YAML or JSON: a key that is set twice is an error, where YAML would take the last."""

import json
from pathlib import Path
from typing import Any

import yaml

from rlhf_dagster.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"


class _TwiceError(ValueError):
    """A key is set twice; the message says where."""


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if key.tag != _MERGE and name in lines:
                raise _TwiceError(f"`{name}` is set twice, in lines {lines[name]} and {line}; keep one of them")
            lines[name] = line
        return super().construct_mapping(node, deep)


def parse_file(path: Path) -> Any:
    """The content of a YAML file, or of a JSON file by its name.

    Raises:
        OSError: the file cannot be read.
        UserError: the text is neither YAML nor JSON, or sets a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, _UniqueKeys)  # noqa: S506  # a safe loader
    except _TwiceError as twice:
        raise UserError(f"{path}: {twice}.") from None
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise UserError(f"{path}: not valid {kind}: {' '.join(str(error).split())}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(f"`{key}` is set twice; keep one of them")
        found[key] = value
    return found
