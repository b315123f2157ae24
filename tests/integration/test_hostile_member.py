"""What a member of Label Studio's organization may do to a loop with an account of one's own, on the real server.

In the Community edition every member may read, change and delete everything (`docs/security.md`). For each such act the
loop is right, or refuses, or says it: no label is another person's, none is about other texts, none is lost.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from label_studio import LabelStudioServer

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.people import UNKNOWN
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.parse import labels_table, usable_labels
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.schemas import COMPLETIONS, table
from rlhf_dagster.records.tables import records
from rlhf_dagster.storage.local import LocalStore

pytestmark = pytest.mark.integration
ROUND, PURPOSE, N = "round-0001", "train", 8
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
ANN, MALLORY = "ann@example.com", "mallory@example.com"
_members: dict[tuple[str, str], AnnotatorSession] = {}


def completions() -> pd.DataFrame:
    none: dict[str, Any] = {
        "token_ids": [1],
        "log_probs": [-1.0],
        "reference_log_probs": [],
        "decoding": "{}",
        "seed": 0,
    }
    rows = [
        none
        | {"completion_id": f"c{prompt}-{index}", "prompt_id": f"p{prompt}", "prompt": f"A film about number {prompt}"}
        | {"policy_id": "sft", "index": index, "text": f"It was {'good' if index else 'bad'}, {prompt} times."}
        for prompt in range(N)
        for index in range(2)
    ]
    return table(rows, COMPLETIONS).to_pandas()


@dataclass
class Scene:
    """A round on the server, a member who judges, and one who means harm."""

    store: LabelStudioStore
    client: LabelStudioClient
    rows: list[dict[str, Any]]
    tasks: list[int]
    project: int
    ann: AnnotatorSession
    mallory: AnnotatorSession
    ids: dict[str, int]

    def answer(self, number: int, choice: Any = 0) -> list[dict[str, Any]]:
        return encode({"choice": choice, "strength": 1.0}, self.rows[number], SETTINGS)

    def judge(self, number: int, choice: Any = 0) -> int:
        """Ann judges a comparison; the annotation's number."""
        return int(self.ann.annotate(self.tasks[number], self.answer(number, choice), 5.0)["id"])

    def by_mallory(self, method: str, path: str, body: Any = None) -> httpx.Response:
        token = self.mallory._http.cookies.get("csrftoken") or ""
        headers = {"X-CSRFToken": token, "Referer": self.mallory.url}
        headers["Content-Type"] = "application/json"
        content = None if body is None else json.dumps(body)
        return self.mallory._http.request(method, f"{self.mallory.url}/{path}", content=content, headers=headers)

    def read(self) -> list[Annotation]:
        return self.store.read(ROUND, PURPOSE)[0]

    def counted(self) -> list[tuple[str, int]]:
        """Who has a label that counts, on which comparison."""
        self.store.count(ROUND, PURPOSE)
        labels, _ = labels_table(self.read(), self.store.comparisons(ROUND, PURPOSE))
        numbers = {row["comparison_id"]: number for number, row in enumerate(self.rows)}
        usable = usable_labels(labels)
        found = zip(usable["annotator"], usable["comparison_id"], strict=True)
        return sorted((self.who(name), numbers[comparison]) for name, comparison in found)

    def who(self, name: str) -> str:
        names = self.store.people.names({self.ids[ANN]: ANN, self.ids[MALLORY]: MALLORY})
        return {names[self.ids[ANN]]: "ann", names[self.ids[MALLORY]]: "mallory"}.get(name, name)

    def said(self) -> str:
        return " ".join(self.store.notices(ROUND, PURPOSE))


@pytest.fixture
def scene(label_studio: LabelStudioServer, tmp_path: Path) -> Iterator[Scene]:
    for email in (ANN, MALLORY):
        if (label_studio.url, email) not in _members:
            _members[label_studio.url, email] = label_studio.member(email)
    frame = build_comparisons(completions(), SETTINGS, ROUND, seed=0)
    place = (tmp_path / "l.sqlite", label_studio.url)
    store = LabelStudioStore(*place, client=label_studio.client, settings=SETTINGS, loop_name="hostile")
    store.send(frame)
    sent, client = store.comparisons(ROUND, PURPOSE), label_studio.client()
    ids = {user["email"]: int(user["id"]) for user in client.users()}
    ann, mallory = (_members[label_studio.url, email] for email in (ANN, MALLORY))
    tasks = sent["task_id"].astype(int).tolist()
    yield Scene(store, client, records(frame), tasks, int(sent["project"].iloc[0]), ann, mallory, ids)


def test_a_member_reads_what_others_have_answered_and_who_they_are(scene: Scene) -> None:
    """Label Studio allows it, and the page says so: no policy, no known answer and no role is among it."""
    number = scene.judge(0)
    found = scene.by_mallory("GET", f"api/annotations/{number}/")
    assert found.status_code == 200
    assert found.json()["result"]
    exported = scene.by_mallory("GET", f"api/projects/{scene.project}/export?exportType=JSON").text
    assert ANN in scene.by_mallory("GET", "api/users/").text
    assert not [word for word in ("sft", "policy", "gold", "completion") if word in exported]


def test_an_answer_that_another_member_has_changed_is_theirs_and_the_first_stays_on_record(scene: Scene) -> None:
    number = scene.judge(0, choice=0)
    assert scene.counted() == [("ann", 0)]
    assert scene.by_mallory("PATCH", f"api/annotations/{number}/", {"result": scene.answer(0, 1)}).is_success
    assert scene.counted() == [("mallory", 0)]
    versions = scene.read()
    assert [scene.who(version.annotator) for version in versions] == ["ann", "mallory"]
    assert versions[0].result["choice"] == 0


def test_who_gives_an_answer_another_name_has_not_changed_whose_it_is(scene: Scene) -> None:
    number = scene.judge(0)
    assert scene.counted() == [("ann", 0)]
    assert scene.by_mallory("PATCH", f"api/annotations/{number}/", {"completed_by": scene.ids[MALLORY]}).is_success
    assert scene.by_mallory("PATCH", f"api/annotations/{number}/", {"ground_truth": True}).is_success
    assert scene.counted() == [("ann", 0)]


@pytest.mark.parametrize("bearer", [ANN, "admin"])
def test_nobody_answers_in_the_name_of_another(scene: Scene, bearer: str) -> None:
    body = {"result": scene.answer(0), "lead_time": 1, "completed_by": scene.ids.get(bearer, 1)}
    body |= {"updated_by": body["completed_by"]}
    assert scene.by_mallory("POST", f"api/tasks/{scene.tasks[0]}/annotations/", body).status_code == 201
    assert scene.counted() == [("mallory", 0)]


@pytest.mark.parametrize("bearer", ["number", "address"])
def test_answers_that_are_imported_in_the_name_of_another_are_nobody_s(scene: Scene, bearer: str) -> None:
    data = scene.client.task_page(scene.project)[0]["data"]
    name: Any = scene.ids[ANN] if bearer == "number" else {"email": ANN}
    body = [{"data": data, "annotations": [{"result": scene.answer(0), "completed_by": name}]}]
    assert scene.by_mallory("POST", f"api/projects/{scene.project}/import", body).status_code == 201
    assert scene.counted() == [(UNKNOWN, 0)]


def test_an_account_that_is_called_like_a_pseudonym_gets_one_of_its_own(
    scene: Scene, label_studio: LabelStudioServer
) -> None:
    scene.judge(0)
    [(_, _)] = scene.counted()
    taken = people_of(LocalStore(scene.store._folder)).of(ANN)
    other = label_studio.member(f"{taken}@annotators.invalid")
    other.annotate(scene.tasks[1], scene.answer(1), 1.0)
    names = {version.annotator for version in scene.read()}
    assert len(names) == 2
    assert [scene.who(name) for name in names].count("ann") == 1


def test_a_flood_of_answers_is_one_label_for_each_comparison(scene: Scene) -> None:
    scene.judge(0, choice=0)
    scene.judge(1, choice=0)
    for _ in range(40):
        scene.mallory.annotate(scene.tasks[0], scene.answer(0, 1), 0.1)
    counts = scene.store.count(ROUND, PURPOSE)
    assert (counts.labels, counts.labelled, counts.usable) == (3, 2, 3)
    assert scene.counted() == [("ann", 0), ("ann", 1), ("mallory", 0)]


def test_a_flood_of_tasks_is_left_alone(scene: Scene) -> None:
    scene.judge(0)
    data = scene.client.task_page(scene.project)[0]["data"]
    body = [{"data": data | {"comparison": f"new-{number}"}} for number in range(1500)]
    body += [{"data": data | {"prompt_html": f"other {number}"}} for number in range(500)]
    assert scene.by_mallory("POST", f"api/projects/{scene.project}/import", body).status_code == 201
    assert scene.counted() == [("ann", 0)]
    assert len(scene.store.comparisons(ROUND, PURPOSE)) == N
    assert scene.store.send(scene.store.comparisons(ROUND, PURPOSE)).sent == 0


ODD_ANSWERS: list[Callable[[list[dict[str, Any]]], Any]] = [
    lambda _: [],
    lambda _: [{"value": "x" * 1_000_000}],
    lambda answer: [region | {"from_name": "preference\u2028"} for region in answer],
    lambda answer: answer * 3000,
    lambda answer: [region | {"value": {"choices": [["A2"]]}} for region in answer],
    lambda answer: [region | {"value": {"choices": ["\ud800"]}} for region in answer],
    lambda answer: [*answer, {"id": "x", "from_name": "choices", "type": "relation", "value": None}],
    lambda _: [None, 1, "x", [[[[]]]]],
]


@pytest.mark.parametrize("odd", ODD_ANSWERS)
def test_answers_of_no_form_are_set_aside_and_the_others_count(scene: Scene, odd: Callable[..., Any]) -> None:
    scene.judge(1)
    body = {"result": odd(scene.answer(0)), "lead_time": -1}
    sent = scene.by_mallory("POST", f"api/tasks/{scene.tasks[0]}/annotations/", body)
    assert scene.counted() == [("ann", 1)], sent.status_code
    if sent.is_success:
        assert len(labels_table(scene.read(), scene.store.comparisons(ROUND, PURPOSE))[1]) == 1


def test_texts_that_were_changed_are_said_and_what_is_answered_to_them_is_not_recorded(scene: Scene) -> None:
    data = {task["id"]: task["data"] for task in scene.client.task_page(scene.project)}[scene.tasks[0]]
    swapped = data | {"a_html": data["b_html"], "b_html": data["a_html"]}
    assert scene.by_mallory("PATCH", f"api/tasks/{scene.tasks[0]}/", {"data": swapped, "meta": {"x": 1}}).is_success
    scene.judge(0)
    scene.judge(1)
    assert scene.counted() == [("ann", 1)]
    assert "its texts are not those that were sent" in scene.said()
    assert scene.by_mallory("PATCH", f"api/tasks/{scene.tasks[0]}/", {"data": data}).is_success
    assert scene.counted() == [("ann", 0), ("ann", 1)]
    assert scene.said() == ""


def test_a_page_that_was_changed_is_said(scene: Scene) -> None:
    scene.judge(0)
    assert scene.counted() == [("ann", 0)]
    assert scene.said() == "", "the server gives the page back as it was made"
    page = scene.client.project_config(scene.project)
    body = {"label_config": page.replace("$a_html", "$c_html"), "title": "mine", "expert_instruction": "choose A"}
    assert scene.by_mallory("PATCH", f"api/projects/{scene.project}/", body).is_success
    scene.judge(1)
    scene.counted()
    assert "was changed there: annotators see another one than was made" in scene.said()


def test_deleted_answers_are_on_record_and_many_are_asked_about(scene: Scene) -> None:
    numbers = [scene.judge(number) for number in range(7)]
    assert len(scene.counted()) == 7
    assert scene.by_mallory("DELETE", f"api/annotations/{numbers[0]}/").is_success
    assert len(scene.counted()) == 6, "as a person may"
    action = f"api/dm/actions?id=delete_tasks_annotations&project={scene.project}"
    assert scene.by_mallory("POST", action, {"selectedItems": {"all": True, "excluded": []}}).is_success
    assert len(scene.counted()) == 6, "they count until somebody says what they are"
    assert "6 labels of round-0001 (train) may be lost" in scene.said()


def test_a_project_that_was_deleted_loses_no_label_and_stops_nothing(scene: Scene) -> None:
    for number in range(3):
        scene.judge(number)
    assert len(scene.counted()) == 3
    assert scene.by_mallory("DELETE", f"api/projects/{scene.project}/").is_success
    assert len(scene.counted()) == 3
    assert f"project {scene.project} of Label Studio is gone" in scene.said()
    assert scene.store.count(ROUND, PURPOSE).labels == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "api/users/{ann}/"),
        ("DELETE", "api/users/{ann}/"),
        ("DELETE", "api/organizations/1/memberships/{ann}/"),
        ("POST", "api/webhooks/"),
    ],
)
def test_the_server_itself_refuses(scene: Scene, method: str, path: str) -> None:
    body = {"email": "other@example.com", "url": "http://127.0.0.1:9/"}
    answer = scene.by_mallory(method, path.format(ann=scene.ids[ANN]), body)
    assert answer.status_code in (403, 404, 405)
    scene.judge(0)
    assert scene.counted() == [("ann", 0)]


def test_one_member_counts_once_for_a_stop(scene: Scene) -> None:
    stop = {"id": "s", "from_name": "flags", "to_name": "prompt", "type": "choices", "value": {"choices": ["stop"]}}
    for number in range(4):
        answer = encode({"choice": 0, "strength": 1.0, "flags": ["stop"]}, scene.rows[number], SETTINGS)
        scene.mallory.annotate(scene.tasks[number], answer or [stop], 1.0)
    assert scene.store.count(ROUND, PURPOSE).stop_requests == 1
