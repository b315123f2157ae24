"""The readers, each with texts that are right. What one raises besides a UserError is a fault."""

import gzip
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.common.sealed import html_of, is_whole_page, seal, unseal
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.config.loop import CONFIG_FILE, load_config
from rlhf_dagster.config.yaml_files import parse_file
from rlhf_dagster.data.conversations.logged import line_of_log
from rlhf_dagster.data.export.row_files import rows_to
from rlhf_dagster.data.import_file import ImportOptions, Kind, import_file
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.json_rows import json_object
from rlhf_dagster.data.reading.known import open_source
from rlhf_dagster.errors import UserError
from rlhf_dagster.judge.json_answers import last_object_with, number_between
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.html import conversation_html, to_html
from rlhf_dagster.labeling.label_studio.results import decode
from rlhf_dagster.labeling.label_studio.transport import answers
from rlhf_dagster.labeling.parse import parse
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.lineage.registry import HISTORY, PINS, POLICIES, ChampionRecord, PolicyRegistry
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.records.parquet import read_parquet, to_parquet
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.state_folders import damage, is_of
from rlhf_dagster.training.spec_files import commented_spec, spec_from_values

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Reader:
    name: str
    seeds: Sequence[bytes]
    read: Read
    """Reads a text, in an empty folder of its own if it needs one."""


class WrongResult(Exception):  # noqa: N818
    """Something was read, or written, that is not what it should be."""


def require(holds: bool, what: str = "wrong") -> None:
    if not holds:
        raise WrongResult(what)


def _lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def _import(kind: Kind, name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    store = EmbeddedLabelStore(folder / "labels.sqlite") if kind == "judgments" else None
    dry = len(data) % 4 > 0  # writing costs most
    import_file(kind, folder / name, LocalStore(folder / "loop"), store, ImportOptions(dry_run=dry, partial=True))


CHAT = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
JUDGMENTS: dict[str, bytes] = {
    "own": _lines(
        {
            "comparison": "c1",
            "prompt": "Say a.",
            "responses": ["a", "b"],
            "choice": 0,
            "annotator": "ann",
            "seconds": 3,
        },
        {"comparison": "c2", "prompt": "Say b.", "responses": ["a", "b", "c"], "ranks": [1, 2, 3], "annotator": "bob"},
        {"comparison": "c3", "prompt": CHAT[:1], "responses": ["a", "b"], "ratings": {"q": [1, 5]}, "at": "2026-01-01"},
    ),
    "pair": _lines(
        {"prompt": "Say a.", "chosen": "a", "rejected": "b", "margin": 1.5}, {"chosen": CHAT, "rejected": CHAT}
    ),
    "hh": _lines({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}),
    "openai": _lines({"input": {"messages": CHAT[:1]}, "preferred_output": CHAT[1:], "non_preferred_output": CHAT[1:]}),
    "completions": _lines(
        {"prompt": "p", "completions": [{"response": "a", "rating": 4}, {"response": "b", "rating": 2}]}
    ),
    "label_studio": json.dumps(
        [
            {
                "id": 1,
                "data": {"prompt": "p", "answer1": "a", "answer2": "b"},
                "annotations": [
                    {
                        "id": 7,
                        "completed_by": 1,
                        "was_cancelled": False,
                        "lead_time": 3.0,
                        "created_at": "2026-01-01T00:00:00Z",
                        "result": [
                            {"from_name": "choice", "to_name": "p", "type": "choices", "value": {"choices": ["left"]}},
                            {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": "left"}},
                        ],
                    }
                ],
            }
        ]
    ).encode(),
    "winner": _lines({"question": "p", "answer_a": "a", "answer_b": "b", "winner": "model_a", "judge": "x", "turn": 1}),
}
LIKED = _lines({"prompt": "p", "completion": "a", "label": True}, {"messages": CHAT, "thumbs": "up", "user": "u"})
LOGGED = _lines(
    {"id": "r", "request": {"messages": CHAT[:1], "user": "u"}, "response": {"choices": [{"message": CHAT[1]}]}},
    {"feedback": {"id": "r", "thumbs": "up", "choice": 0}, "user": "u"},
    {"messages": CHAT, "consent": "yes", "policy": "p"},
)


def _table(kind: str) -> bytes:
    table = pa.table({"prompt": ["Say a.", "Say b."] * 20, "n": [1, None] * 20, "l": [["a"], []] * 20})
    buffer = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, buffer)
    else:
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    return buffer.getvalue()


def _loop_file(data: bytes, folder: Path) -> None:
    (folder / CONFIG_FILE).write_bytes(data)
    load_config(folder).recorded()


def _spec(stage: str, suffix: str, data: bytes, folder: Path) -> None:
    file = folder / f"spec{suffix}"
    file.write_bytes(data)
    spec_from_values(TRAININGS[stage].spec, parse_file(file), str(file), folder)


def _records(data: bytes, folder: Path) -> None:
    unseal(data, "a.json")
    is_whole_page(data)


def _page(data: bytes, folder: Path) -> None:
    if is_whole_page(data):
        html_of(data.decode("utf-8", "replace").encode())


def _registry(data: bytes, folder: Path) -> None:
    """The same text as an entry of the history, as a policy, and as a pin."""
    store = LocalStore(folder)
    for key in (f"{HISTORY}/000001.json", f"{POLICIES}/sft.json", f"{PINS}/round-0001.json"):
        store.put(key, data)
    registry = PolicyRegistry(store)
    for ask in (
        registry.history,
        registry.champion,
        partial(registry.get, "sft"),
        partial(registry.pinned, "round-0001"),
        partial(registry.promote, "sft", "round-0001", "gate", "better"),
        Journal(store, HISTORY, ChampionRecord).problems,
        Journal(store, HISTORY, ChampionRecord).repair,
    ):
        _sentence(ask)


def _stop(data: bytes, folder: Path) -> None:
    (folder / "STOP").write_bytes(data)
    found = read_stop(LocalStore(folder))
    require(found is not None)
    require("\n" not in found.sentence)


def _state(data: bytes, folder: Path) -> None:
    for name in ("state.json", "sizes.json", "record.json", "weights"):
        (folder / name).write_bytes(data)
    damage(folder)
    _sentence(partial(is_of, folder, "x"))


def _server(data: bytes, folder: Path) -> None:
    try:
        value = answers.parsed(data)
    except answers.WrongShape:
        return
    checks: tuple[Callable[[Any], Any], ...] = (
        answers.user,
        answers.organizations,
        answers.invitation,
        answers.projects,
        answers.one_task,
        partial(answers.made, wanted=2),
        partial(answers.page, check=partial(answers.task, full=True), size=2),
        partial(answers.page, check=answers.task_state, size=2),
        _in_order,
    )
    for check in checks:
        try:
            check(value)
        except answers.WrongShape as wrong:
            require("\n" not in str(wrong)[:200])


def _in_order(value: Any) -> None:
    answers.in_order(answers.page(value, partial(answers.task, full=True), 2).tasks, 0, None, None)


@cache
def _comparison() -> dict[str, Any]:
    return {
        "comparison_id": "c",
        "round": "round-0001",
        "purpose": "train",
        "kind": "pair",
        "display_order": [1, 0],
        "response_ids": ["a", "b"],
        "k": 2,
    }


def _annotation(data: bytes, folder: Path) -> None:
    """What an annotator's regions say, on the page of every kind, and whether training could read it."""
    try:
        regions = answers.parsed(data)
    except answers.WrongShape:
        return
    for kind in ("pair", "best_of_k", "ranking", "rating"):
        comparison = _comparison() | {"kind": kind}
        result = decode(regions, comparison, LabelingSettings(kind=kind))
        at = pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime()
        for one in (result, regions):
            parse(Annotation("a", "c", "ann", 1, "submitted", one, 1.0, created_at=at, updated_at=at), comparison)


def _html(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _decodes(data) else repr(data)
    for made in (to_html(text), conversation_html(text)):
        made.encode()
        lowered = made.lower()
        tags = ("script", "img", "iframe", "a ", "svg", "style", "form", "input")
        require(not any(f"<{tag}" in lowered for tag in tags), lowered)


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _judge(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    try:
        number_between(last_object_with("score", text).get("score"), 0, 10, "score")
    except ValueError as error:
        require(str(error))


def _logged(data: bytes, folder: Path) -> None:
    for line in data.decode("utf-8", "replace").split("\n"):
        row = json_object(line)
        with suppress(BadLineError):
            if not isinstance(row, BadLineError):
                line_of_log(row)


def _export(data: bytes, folder: Path) -> None:
    """Rows with the texts of ``data``, written in each form and read again."""
    text = data.decode("utf-8", "surrogatepass" if _decodes(data) else "replace")
    pieces = [text[:40], text[40:4000], text[:1]]
    for suffix in (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet"):
        path = folder / f"out{suffix}"
        with rows_to(path, {"prompt": pa.string(), "texts": pa.list_(pa.string())}) as write:
            for piece in pieces:
                write({"prompt": piece, "texts": [piece, ""]})
        back = [row for _, row in open_source(path).rows()]
        require(len(back) == len(pieces), f"{len(back)} rows of {suffix}")
        if suffix != ".tsv" and "\ud800" not in ascii(text) and "\\ud" not in ascii(text) and "\x00" not in text:
            require([row["prompt"] for row in back] == pieces, f"other texts in {suffix}")


def _template(data: bytes, folder: Path) -> None:
    from jinja2 import TemplateError

    from rlhf_dagster.training.texts.chats.rendering import TemplateFailedError, render

    with suppress(TemplateError, TemplateFailedError):
        render(data.decode("utf-8", "replace"), CHAT, True, {"bos_token": "<s>"})


def _sentence(ask: Callable[[], object]) -> None:
    try:
        ask()
    except UserError as error:
        require("\n" not in str(error), str(error))


LOOP_FILE = b"""name: a
preset: tiny
seed: 3
data: {source: task, task: sentiment}
sft: &s {epochs: 1, learning_rate: 1e-3}
labeling: {kind: ranking, overlap: 0.2, comparisons_per_round: 40}
automation: {open_round_cron: "0 6 * * 1", timezone: Europe/Berlin, quiet_minutes: 1}
label_store: {kind: label_studio, url: "http://127.0.0.1:8080"}
gate: {max_kl: 20}
"""
TASK = {
    "id": 1,
    "updated_at": "2026-01-01T00:00:00Z",
    "data": {},
    "total_annotations": 1,
    "cancelled_annotations": 0,
    "drafts": [],
    "annotations": [
        {
            "id": 5,
            "result": [],
            "completed_by": 1,
            "was_cancelled": False,
            "lead_time": 1.0,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        }
    ],
}
REGIONS = [
    {"from_name": "choice", "to_name": "response_a", "type": "choices", "value": {"choices": ["Left is better"]}},
    {"from_name": "ranking", "to_name": "responses", "type": "ranker", "value": {"ranker": {"rank": ["A", "B"]}}},
    {"from_name": "rating_1", "to_name": "response_1", "type": "rating", "value": {"rating": 3}},
    {"from_name": "rationale", "to_name": "prompt", "type": "textarea", "value": {"text": ["why"]}},
    {"from_name": "flags", "to_name": "prompt", "type": "choices", "value": {"choices": ["stop"]}},
]
CHAMPION = ChampionRecord("sft", "", "initial", "loop", "begins", "2026-01-01T00:00:00Z")
TEMPLATES = (
    b"{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ bos_token }}{% endfor %}"
    b"{% if add_generation_prompt %}<|assistant|>{% endif %}",
    b"{%- macro f(x) -%}{{ x * 3 }}{%- endmacro -%}"
    b"{{ raise_exception('no') if messages|length > 9 else f(messages[0].content) }}",
)


def readers() -> dict[str, Reader]:
    """All readers by their names."""
    found = [
        Reader("loop.yaml", [LOOP_FILE], _loop_file),
        *(
            Reader(f"spec {stage}", [_example(stage)], partial(_spec, stage, ".yaml"))
            for stage in ("sft", "ppo", "dpo")
        ),
        Reader(
            "spec.json",
            [json.dumps({"model": "m", "demonstrations": "d", "output": "o", "settings": {}}).encode()],
            partial(_spec, "sft", ".json"),
        ),
        *(
            Reader(f"judgments {form}", [data], partial(_import, "judgments", "j.jsonl"))
            for form, data in JUDGMENTS.items()
        ),
        Reader("gold", [JUDGMENTS["own"]], partial(_import, "gold", "g.jsonl")),
        Reader("feedback", [LIKED], partial(_import, "feedback", "f.jsonl")),
        Reader(
            "prompts",
            [_lines({"prompt": "p"}, {"messages": CHAT[:1], "user": "u"})],
            partial(_import, "prompts", "p.json"),
        ),
        Reader(
            "demonstrations",
            [_lines({"prompt": "p", "response": "r"}, {"messages": CHAT})],
            partial(_import, "demonstrations", "d.jsonl"),
        ),
        Reader(
            "csv", [b'prompt;user\n"Say a;b";u\nc;\n', b"prompt\tuser\na\tb\n"], partial(_import, "prompts", "p.csv")
        ),
        Reader("parquet", [_table("parquet")], partial(_import, "prompts", "p.parquet")),
        Reader("arrow", [_table("arrow")], partial(_import, "prompts", "p.arrow")),
        Reader("gzip", [gzip.compress(b'{"prompt": "a"}\n' * 50, mtime=0)], partial(_import, "prompts", "p.jsonl.gz")),
        Reader("logs", [LOGGED], _logged),
        Reader("records", [seal({"a": [1, {"b": "c"}], "d": 1.5})], _records),
        Reader(
            "registry",
            [
                seal(asdict(CHAMPION)),
                json.dumps(
                    {"policy_id": "sft", "checkpoint": "m", "kind": "sft", "round_key": "", "parents": []}
                ).encode(),
                b'{"policy_id": "sft"}',
            ],
            _registry,
        ),
        Reader(
            "tables",
            [to_parquet(pa.table({"a": [1, 2], "b": ["x", None]})), _table("parquet")],
            lambda data, folder: read_parquet(data, "a.parquet"),
        ),
        Reader("stop", [b'{"by": "a", "reason": "b", "at": "c"}', b"the labels are wrong\n"], _stop),
        Reader("states", [seal({"identity": "x", "files": {"a": "b"}})], _state),
        Reader(
            "server",
            [
                json.dumps({"total": 1, "tasks": [TASK]}).encode(),
                json.dumps(TASK).encode(),
                b'[{"id": 1, "created_at": "2026-01-01T00:00:00Z"}]',
                b'{"task_ids": [1, 2]}',
                b'{"results": [{"id": 1, "title": "t", "created_at": "2026-01-01T00:00:00Z"}]}',
            ],
            _server,
        ),
        Reader(
            "annotations", [json.dumps(REGIONS).encode(), *(json.dumps([one]).encode() for one in REGIONS)], _annotation
        ),
        Reader(
            "html",
            [
                b"# a\n\n*b* [c](javascript:d) <img src=x> `e`\n\n1. f\n| a | b |\n|---|---|\n| 1 | 2 |",
                b"Human: a\nAssistant: b\n",
            ],
            _html,
        ),
        Reader("pages", [b"<p>a</p><!-- _sha256 00 -->\n"], _page),
        Reader("judge", [b'So: {"score": 7, "why": "good"}', b'```json\n{"score": "7"}\n```'], _judge),
        Reader("exports", [b"a\r\nb,c;\t'\"=1+1", "é\u2028\x85\u200b".encode()], _export),
        Reader("templates", TEMPLATES, _template),
    ]
    return {reader.name: reader for reader in found}


def _example(stage: str) -> bytes:
    """The commented spec of a stage with its settings put in."""
    lines = commented_spec(TRAININGS[stage].spec).splitlines()
    opened = [
        line.replace("# ", "", 1)
        if line.lstrip().startswith("# ") and ":" in line[:40] and line.count(" ") < 12
        else line
        for line in lines
    ]
    return "\n".join(opened).encode()
