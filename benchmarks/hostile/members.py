"""Members of a label server, the server itself, and pages of others, who may send what they like.

Against a Label Studio in memory; what a member does to a real one is in tests/integration/test_hostile_member.py.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Thread
from typing import Any

import httpx

from benchmarks.hostile.case import Case, Place, require, tests_of, values_of
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.label_page.desk import Desk
from rlhf_dagster.label_page.server import TOKEN_HEADER, make_label_server
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import decode, encode
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.records.tables import records

EVENTS = tests_of("labeling/label_studio/test_events.py")
RESULTS = tests_of("labeling/label_studio/test_results.py")
GUARD = tests_of("automation/test_web_server.py")
PAGE = tests_of("label_page/test_label_server.py")
DESK = tests_of("label_page/test_desk.py")
MEMBERS = tests_of("integration/test_hostile_member.py")
ROUND, PURPOSE, N = "round-0001", "train", 8
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
ANN, MALLORY = 1, 2


class Scene:
    """A round on a server in memory, of which ann has judged two comparisons, and her labels are counted."""

    def __init__(self, place: Place) -> None:
        from fake_label_studio import label_studio_in_memory

        self.servers = ExitStack()
        self.fake = self.servers.enter_context(label_studio_in_memory())
        frame = build_comparisons(MEMBERS.completions(), SETTINGS, ROUND, seed=0)
        self.rows = records(frame)
        self.file = place.folder / "l.sqlite"
        self.store = self.opened()
        self.store.send(frame)
        for number in (0, 1):
            self.judge(number)
        self.require_labels(2)

    def opened(self) -> LabelStudioStore:
        token = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105
        client = partial(LabelStudioClient, self.fake.url, token, 5.0)
        return LabelStudioStore(self.file, self.fake.url, client=client, settings=SETTINGS, loop_name="hostile")

    def answer(self, number: int, **more: Any) -> list[dict[str, Any]]:
        return encode({"choice": 0, "strength": 1.0} | more, self.rows[number], SETTINGS)

    def judge(self, number: int, result: Any = None, by: int = ANN, **fields: Any) -> int:
        task = self.fake.task_of(self.rows[number]["comparison_id"])["id"]
        return self.fake.annotate(task, self.answer(number) if result is None else result, by, **fields)

    def require_labels(self, wanted: int, stops: int = 0) -> None:
        counts = self.store.count(ROUND, PURPOSE)
        require(counts.labels == wanted, f"{counts.labels} labels, not {wanted}")
        require(counts.stop_requests == stops, f"{counts.stop_requests} wish that it stops")


def against(name: str, act: Callable[[Scene], object], harmless: bool = True, says: str = "") -> Case:
    scenes: list[Scene] = []
    return Case(name, lambda _: act(scenes[0]), lambda place: scenes.append(Scene(place)), says, harmless)


def of_no_form(result: Any, scene: Scene) -> None:
    """It is set aside, and all others count."""
    scene.judge(2, result, MALLORY)
    scene.require_labels(2)
    scene.judge(3)
    scene.require_labels(3)


def unreadable(page: str, regions: Any, _: Place) -> None:
    require("unreadable" in decode(regions, RESULTS.comparison(page), RESULTS.SETTINGS), "it is read")


def at_a_time(seconds: Any, scene: Scene) -> None:
    scene.judge(2, by=MALLORY, lead_time=seconds)
    scene.require_labels(3)


def nonsense(path: str, body: str, scene: Scene) -> None:
    """Said, and no label is lost by it."""
    scene.fake.trouble = lambda asked: (200, body) if asked.path.partition("?")[0] == path else None
    try:
        scene.opened().read(ROUND, PURPOSE)
    except UserError:
        scene.fake.trouble = lambda _: None
        scene.require_labels(2)
        raise


def flood_of_answers(scene: Scene) -> None:
    for _ in range(2000):
        scene.judge(2, by=MALLORY)
    scene.require_labels(3)


def flood_of_tasks(scene: Scene) -> None:
    data = scene.fake.task_of(scene.rows[0]["comparison_id"])["data"]
    for number in range(3000):
        task = {"id": scene.fake.database.next("task"), "project": 1, "data": data | {"comparison": f"new-{number}"}}
        at = scene.fake.database.tick()
        scene.fake.database.tasks[task["id"]] = task | {"updated_at": at, "overlap": 1, "annotations": []}
    scene.require_labels(2)
    require(len(scene.store.comparisons(ROUND, PURPOSE)) == N, "there are more comparisons")


def stops(scene: Scene) -> None:
    for number in range(2, 8):
        scene.judge(number, scene.answer(number, flags=["stop"]), MALLORY)
    scene.require_labels(8, stops=1)


def deletions(scene: Scene) -> None:
    for number in range(2, N):
        scene.judge(number)
    scene.require_labels(N)
    for annotation in scene.fake.annotations():
        scene.fake.delete_annotation(annotation["id"])
    scene.require_labels(N)


def project_gone(scene: Scene) -> None:
    scene.fake.delete_project(1)
    scene.require_labels(2)


def other_texts(scene: Scene) -> None:
    task = scene.fake.task_of(scene.rows[2]["comparison_id"])
    task["data"] = task["data"] | {"a_html": task["data"]["b_html"], "b_html": task["data"]["a_html"]}
    scene.judge(2)
    scene.require_labels(2)


def forged(status: int, changes: dict[str, str], method: str, _: Place) -> None:
    GUARD.test_a_forged_request_never_reaches_dagster(status, changes, method)


def asked_of_the_page(changes: dict[str, Any], status: int, place: Place) -> None:
    from label_loops import loop_of_kind

    loop = loop_of_kind(place.folder / "own", "pair", n=2)
    server, address = make_label_server(Desk(loop, "Ada"), 0)
    Thread(target=server.serve_forever, daemon=True).start()
    origin, token = address.split("/#")
    headers = {TOKEN_HEADER: token, "Origin": origin, "Content-Type": "application/json"} | changes.get("headers", {})
    found = httpx.post(f"{origin}/next", content=changes.get("content", b"{}"), headers=headers)
    server.shutdown()
    require(found.status_code == status, f"status {found.status_code}")
    require(loop.label_store.count(ROUND, PURPOSE).labels == 0, "it counts")
    raise UserError(found.json()["error"])


def no_answer(result: Any, place: Place) -> None:
    from label_loops import loop_of_kind

    desk = Desk(loop_of_kind(place.folder / "own", "pair", n=1), "Ada")
    question = desk.next()
    require(question, "nothing is asked")
    desk.answer(question.comparison_id, result, 1.0)  # type: ignore[union-attr]


def bodies() -> dict[str, str]:
    """What a server may answer with status 200."""
    return {
        what: answer if isinstance(answer, str) and what != "not utf-8" else json.dumps(answer)
        for what, answer in EVENTS.NONSENSE.items()
    }


CASES: list[Case] = [
    *(
        against(f"an answer of no form: {part} {number}", partial(of_no_form, regions))
        for number, (page, regions, part) in enumerate(
            values_of(RESULTS.test_what_no_page_submits_is_kept_with_a_sentence)
        )
        if page == "pair" and regions is not None
    ),
    *(
        Case(f"an answer of no form to {page}: {part} {number}", partial(unreadable, page, regions), harmless=True)
        for number, (page, regions, part) in enumerate(
            values_of(RESULTS.test_what_no_page_submits_is_kept_with_a_sentence)
        )
        if page != "pair" or regions is None
    ),
    *(
        against(f"an odd answer {number}", lambda scene, odd=odd: of_no_form(odd(scene.answer(2)), scene))
        for number, odd in enumerate(MEMBERS.ODD_ANSWERS)
    ),
    *(
        against(f"an answer that took {str(seconds)[:20]}", partial(at_a_time, seconds))
        for seconds in values_of(EVENTS.test_a_time_that_is_none_is_left_out)
        if seconds not in ("NaN", "Infinity")
    ),
    against("2,000 answers to one comparison", flood_of_answers),
    against("3,000 tasks", flood_of_tasks),
    against("one member who wants a stop many times", stops),
    against("all answers deleted", deletions),
    against("the project deleted", project_gone),
    against("texts that were changed", other_texts),
    *(
        against(f"{path} answers {what}", partial(nonsense, path, body), harmless=False)
        for path in EVENTS.PATHS
        for what, body in bodies().items()
    ),
    *(
        Case(f"a forged request, {status} {number}", partial(forged, status, changes, method), harmless=True)
        for number, (status, changes, method) in enumerate(values_of(GUARD.test_a_forged_request_never_reaches_dagster))
    ),
    *(
        Case(f"a foreign request to the page, {status} {number}", partial(asked_of_the_page, changes, status))
        for number, (changes, status) in enumerate(values_of(PAGE.test_other_requests_are_refused_in_a_sentence))
    ),
    *(
        Case(f"no answer to the page: {sentence} {number}", partial(no_answer, result), says=sentence)
        for number, (result, sentence) in enumerate(
            values_of(DESK.test_what_is_no_answer_is_refused_and_nothing_is_kept)
        )
    ),
]
