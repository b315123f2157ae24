"""Texts near to right ones: bytes flipped, pieces cut, doubled and exchanged, values of JSON replaced by odd ones."""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *(
        "",
        " ",
        "a",
        "0",
        "-1",
        "null",
        "\x00",
        "\ud800",
        "\u2028",
        "\x85",
        "é",
        "a" * 5000,
        "[/x]",
        "%s",
        "{0}",
        "../x",
    ),
    *("</script>", "=1+1", "round-0001", "2026-02-30T25:61:61Z", "9999-12-31T23:59:59+14:00", "1e999", "NaN", "~"),
    *([], {}, [[]], [{}], {"": ""}, [None], {"a": {"a": {"a": {}}}}, list(range(50)), ["a"] * 50, [0, [1, [2, [3]]]]),
)
ODD_PIECES: tuple[bytes, ...] = (
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"\t", b" ", b"\xe2\x80\xa8", b"\xc2\x85"),
    *(
        b'"',
        b"'",
        b"\\",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-",
        b"#",
        b"&a ",
        b"*a",
        b"<<: ",
        b"|",
        b">",
    ),
    *(b"!!int ", b"!!float ", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!set ", b"!!omap ", b"!!python/name:os "),
    *(b"null", b"true", b"NaN", b"Infinity", b"1e999", b"1" * 5000, b"-0", b"0x1", b"[" * 3000, b'{"a":' * 3000),
    *(b"{{", b"}}", b"{%", b"%}", b"%", b"${", b"PAR1", b"ARROW1", b"\x1f\x8b", b"?", b"---\n", b"...\n", b"=", b";"),
)


def mutated(seed: bytes, random: Random) -> bytes:
    """A text near to ``seed``: by its values where it is JSON, or by its bytes."""
    if random.random() < 0.6:
        for change in random.sample((_as_lines, _as_json), 2):
            made = change(seed, random)
            if made is not None:
                return made
    return _by_bytes(seed, random)


def _as_json(seed: bytes, random: Random) -> bytes | None:
    try:
        value = json.loads(seed)
    except (ValueError, RecursionError):
        return None
    return _written(odd_value(value, random))


def _as_lines(seed: bytes, random: Random) -> bytes | None:
    try:
        values = [json.loads(line) for line in seed.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    if not values:
        return None
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(len(values))
        values[place] = odd_value(values[place], random)
    return b"\n".join(map(_written, values))


def odd_value(value: Any, random: Random) -> Any:
    """A copy of ``value`` with something in it replaced, left out, doubled or added."""
    made = [copy.deepcopy(value)]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        holder, key = random.choice(list(_places(made)))
        _change(holder, key, random)
    return made[0] if made else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value, as what holds it and under what."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _change(holder: Any, key: Any, random: Random) -> None:
    what = random.random()
    if what < 0.6:
        holder[key] = copy.deepcopy(random.choice(ODD_VALUES))
    elif what < 0.75 and isinstance(holder, dict):
        del holder[key]
    elif what < 0.85 and isinstance(holder, dict):
        holder[random.choice(("", "x", "id", "\ud800", f"{key}_"))] = copy.deepcopy(holder[key])
    elif isinstance(holder, list):
        holder.extend(copy.deepcopy(holder[key]) for _ in range(random.choice((1, 2, 40))))
    else:
        holder[key] = [copy.deepcopy(holder[key])]


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _by_bytes(seed: bytes, random: Random) -> bytes:
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        random.choice(_BYTE_CHANGES)(data, random)
    return bytes(data)


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    start, end = _range(data, random)
    del data[start:end]


def _end(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _double(data: bytearray, random: Random) -> None:
    start, end = _range(data, random)
    data[start:start] = data[start:end]


def _insert(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.choice(ODD_PIECES)


def _exchange(data: bytearray, random: Random) -> None:
    start, end = _range(data, random)
    data[start:end] = random.choice(ODD_PIECES)


def _range(data: bytearray, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 8, 64, 1000)))


_BYTE_CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (_flip, _flip, _cut, _end, _double, _insert, _exchange)
