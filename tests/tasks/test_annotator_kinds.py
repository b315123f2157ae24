"""Which kind of simulated annotators labels is a setting, refused where the task does not have it."""

import pytest
from loops import write_loop

from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.data.tables import build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.tasks.annotator_kinds import annotators_of
from rlhf_dagster.tasks.sentiment import TASK


def test_a_task_with_one_kind_has_no_other():
    assert annotators_of(TASK, "", 3) == TASK.annotators(3)
    with pytest.raises(UserError, match=r"`sentiment` has no annotators of the kind `strict`; it has one kind"):
        annotators_of(TASK, "strict", 3)


def test_the_first_stage_refuses_a_kind_that_the_task_lacks(tmp_path):
    loop = LoopFolder.open(write_loop(tmp_path, data={"annotator_kind": "strict"}))
    with pytest.raises(UserError, match=r"data\.annotator_kind: .* `strict`"):
        build_prompts(loop.config, loop.root, loop.store)


def test_a_kind_without_a_task_is_refused():
    with pytest.raises(UserError, match="needs `source: task`"):
        DataSettings.parse({"source": "imports", "annotator_kind": "strict"}, "loop.yaml")


def test_a_loop_of_version_0_1_keeps_its_identity():
    assert "annotator_kind" not in DataSettings().recorded()
