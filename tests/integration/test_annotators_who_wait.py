"""Simulated annotators in a real Label Studio that is killed while they work."""

import pytest
from batches import answers, expected, send
from loops import ROUND, write_loop

from rlhf_dagster.loop.annotators import PAUSE, Crew, follow, open_batches
from rlhf_dagster.loop.folder import LoopFolder

pytestmark = pytest.mark.integration


@pytest.mark.long
def test_annotators_wait_for_a_server_that_was_killed_and_label_nothing_twice(
    label_studio, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    settings = {"kind": "label_studio", "url": label_studio.url, "simulated_annotators": False}
    loop = LoopFolder.open(write_loop(tmp_path / "loop", label_store=settings, labeling={"kind": "pair"}))
    send(loop, 8)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            label_studio.kill()
        elif slept[-2:] == [PAUSE] * 2 and lines[-1].endswith("Waiting for it."):
            label_studio.start()
        elif slept[-4:] == [PAUSE] * 4:
            raise KeyboardInterrupt

    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        follow(Crew(loop, per_minute=60, sleep=sleep), lambda: open_batches(loop, None, ("train",)), lines.append)
    assert lines[0].startswith(f"Label Studio at {label_studio.url} cannot be reached")
    assert lines[1] == "The label store answers again."
    assert answers(loop) == expected(tmp_path / "other", 8)
    assert loop.label_store.count(ROUND, "train").complete == 8
