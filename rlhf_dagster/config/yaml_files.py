"""Reading what people write in YAML or JSON: a key that is set twice is an error, where YAML would take the last."""

import json
from pathlib import Path
from typing import Any

import yaml

from rlhf_dagster.common.bounds.limits import MEBIBYTE, SETTINGS_DEPTH, SETTINGS_MIB, SETTINGS_VALUES
from rlhf_dagster.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"


class _TwiceError(ValueError):
    """A key is set twice; the message says where."""


class _TooMuchError(ValueError):
    """A text is beyond a limit; the message says which."""


class _UniqueKeys(yaml.SafeLoader):
    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        _count_values(node, 1, {})
        return node

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
        UserError: the text is neither YAML nor JSON, sets a key twice, or is beyond the limits of settings.
    """
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = _text_of(path)
        # Whatever a value's text makes a constructor of YAML raise.
        return json.loads(text, object_pairs_hook=_unique) if kind == "JSON" else yaml.load(text, _UniqueKeys)  # noqa: S506
    except (_TwiceError, _TooMuchError) as refused:
        raise UserError(f"{path}: {refused}.") from None
    except RecursionError:
        raise UserError(f"{path}: its mappings and lists are too deep within one another; make it flatter.") from None
    except OSError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid {kind}: {' '.join(str(error).split())}.") from None
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: not valid {kind}: a value is not of the type that its tag names ({error}).") from None


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(SETTINGS_MIB.most * MEBIBYTE + 1)
    if len(data) > SETTINGS_MIB.most * MEBIBYTE:
        raise _TooMuchError(
            f"has more than {SETTINGS_MIB.most:,} MiB, so it is no file of settings; {SETTINGS_MIB.said()}"
        )
    # Some editors begin a file with a byte order mark.
    return data.decode("utf-8-sig")


def _count_values(node: yaml.Node | None, depth: int, counted: dict[int, int]) -> int:
    """How many values a part of a text has, where each alias counts as all that it stands for.

    ``counted`` holds the parts that are counted, and 0 for those that are being counted.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    known = counted.get(id(node))
    if known == 0:
        raise _TooMuchError(f"the part at line {node.start_mark.line + 1} holds itself; write it out")
    if known is not None:
        return known
    if depth > SETTINGS_DEPTH.most:
        raise _TooMuchError(
            f"line {node.start_mark.line + 1} is too deep in mappings and lists; {SETTINGS_DEPTH.said()}"
        )
    counted[id(node)] = 0
    parts = [part for one in node.value for part in (one if isinstance(one, tuple) else (one,))]
    total = 1 + sum(_count_values(part, depth + 1, counted) for part in parts)
    if total > SETTINGS_VALUES.most:
        raise _TooMuchError(
            f"has more than {SETTINGS_VALUES.most:,} values where its aliases are written out; {SETTINGS_VALUES.said()}"
        )
    counted[id(node)] = total
    return total


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(f"`{key}` is set twice; keep one of them")
        found[key] = value
    return found
