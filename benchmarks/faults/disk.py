"""What may be on a disk after a power loss: a model of a file system that promises no more than POSIX does.

What a file holds survives once the file is synced, and a name once its folder is. Everything later may have reached the
disk or not, in any order: names are given and taken whole, files are old, new, cut off or partly zeros.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar, Union

from benchmarks.faults.shim import Call

Node = Union["File", "Folder"]


@dataclass(eq=False)
class File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass(eq=False)
class Folder:
    now: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)


@dataclass(eq=False)
class Change:
    """Names given and taken at once; None takes a name away."""

    names: tuple[tuple[Folder, str, Node | None], ...]

    def touches(self, folder: Folder) -> bool:
        return any(one is folder for one, _, _ in self.names)

    def apply(self) -> None:
        for folder, name, node in self.names:
            if node is None:
                folder.durable.pop(name, None)
            else:
                folder.durable[name] = node


class Disk:
    """The folder ``root``, empty and synced at the beginning, after each call that it is told."""

    def __init__(self, root: Path, honour_sync: bool = True) -> None:
        self.root, self.honour_sync = PurePosixPath(root), honour_sync
        self.top = Folder()
        self.pending: list[Change] = []

    def tell(self, call: Call) -> None:
        does = self._does.get(call.kind)
        if does is not None and not call.path.endswith(" (deleted)"):
            does(self, call)

    def crash(self, into: Path, rng: random.Random) -> None:
        """Write one of the states in which the disk may be found. Nothing can be told to this disk afterwards."""
        for change in _reached(self.pending, rng):
            change.apply()
        _write(self.top, into, rng)

    def _open(self, call: Call) -> None:
        folder, name = self._place(call.path)
        if name not in folder.now:
            self._change((folder, name, File()))

    def _create(self, call: Call) -> None:
        self._open(call)
        self._file(call.path).now.clear()

    def _write(self, call: Call) -> None:
        now, end = self._file(call.path).now, call.offset + len(call.data)
        now.extend(bytes(max(0, end - len(now))))
        now[call.offset : end] = call.data

    def _truncate(self, call: Call) -> None:
        now = self._file(call.path).now
        now.extend(bytes(max(0, call.offset - len(now))))
        del now[call.offset :]

    def _sync(self, call: Call) -> None:
        node = self._node(call.path)
        if not self.honour_sync:
            return
        if isinstance(node, File):
            node.durable = bytes(node.now)
            return
        for change in [one for one in self.pending if one.touches(node)]:
            change.apply()
            self.pending.remove(change)

    def _rename(self, call: Call) -> None:
        source, target = self._place(call.path), self._place(call.other)
        self._change((*source, None), (*target, self._node(call.path)))

    def _link(self, call: Call) -> None:
        self._change((*self._place(call.other), self._node(call.path)))

    def _remove(self, call: Call) -> None:
        self._change((*self._place(call.path), None))

    def _make(self, call: Call) -> None:
        self._change((*self._place(call.path), Folder()))

    _does: ClassVar[dict[str, Callable[["Disk", Call], None]]] = {
        "o": _open,
        "c": _create,
        "w": _write,
        "t": _truncate,
        "s": _sync,
        "r": _rename,
        "l": _link,
        "u": _remove,
        "d": _remove,
        "m": _make,
    }

    def _change(self, *names: tuple[Folder, str, Node | None]) -> None:
        for folder, name, node in names:
            if node is None:
                folder.now.pop(name, None)
            else:
                folder.now[name] = node
        self.pending.append(Change(names))

    def _place(self, path: str) -> tuple[Folder, str]:
        parent = self._node(str(PurePosixPath(path).parent))
        return _as_folder(parent), PurePosixPath(path).name

    def _file(self, path: str) -> File:
        node = self._node(path)
        if not isinstance(node, File):
            raise IsADirectoryError(path)
        return node

    def _node(self, path: str) -> Node:
        node: Node = self.top
        for name in PurePosixPath(path).relative_to(self.root).parts:
            node = _as_folder(node).now[name]
        return node


def _as_folder(node: Node) -> Folder:
    if not isinstance(node, Folder):
        raise NotADirectoryError
    return node


def _reached(pending: Sequence[Change], rng: random.Random) -> Iterable[Change]:
    """Which changes of names have reached the disk: none, all, the first ones, or any."""
    kind = rng.choice(["none", "all", "first", "any"])
    if kind == "any":
        return [change for change in pending if rng.random() < 0.5]
    return pending[: {"none": 0, "all": len(pending), "first": rng.randint(0, len(pending))}[kind]]


def _write(folder: Folder, into: Path, rng: random.Random) -> None:
    into.mkdir(exist_ok=True)
    for name, node in folder.durable.items():
        if isinstance(node, Folder):
            _write(node, into / name, rng)
        else:
            (into / name).write_bytes(_content(node, rng))


def _content(file: File, rng: random.Random) -> bytes:
    now = bytes(file.now)
    if now == file.durable:
        return now
    cut = rng.randint(0, len(now))
    return rng.choice([file.durable, now, now[:cut], now[:cut] + bytes(len(now) - cut), bytes(len(now))])
