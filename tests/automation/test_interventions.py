"""The jobs by which a person steps in: what they do, who is on record, and what a wrong field says."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.snap import JobSnap
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from gate_figures import report as figures
from loops import ROUND, small
from rounds_on_disk import keep, register

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.failures import find_failure
from rlhf_dagster.automation.interventions.define import BY_TAG
from rlhf_dagster.automation.interventions.known import INTERVENTIONS, intervention_jobs
from rlhf_dagster.automation.watch import WHY_TAG
from rlhf_dagster.build import build_loop
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint, model_digest
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.champions import restore_champion
from rlhf_dagster.records.loop_names import ALONE, LOOP_TAG, LoopNames
from rlhf_dagster.records.round_keys import IMPORT_ROUND

Do = Callable[..., str]
ADA = {"by": "Ada", "reason": "I read 50 samples"}
NAMES = LoopNames(("nlp", "mine"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """SFT is the champion, and the policy of the first round passes the gate and waits for a person."""
    made = LoopFolder(
        LoopConfig.parse(small(gate={"approval": True}, evaluation={"human_judgments": 0}), "test"), tmp_path, NAMES
    )
    register(made, "sft", "")
    made.registry.set_initial("sft")
    candidate(made, ROUND)
    return made


def candidate(loop: LoopFolder, key: str, **changes: Any) -> None:
    """The policy `ppo` of a round with its report, in which nothing is wrong but for ``changes``."""
    keep(loop, "ppo", "ppo", key)
    loop.registry.register("ppo", "models/ppo", "ppo", key)
    digest = model_digest(loop.root / "models" / "ppo")
    loop.write_json("ppo_policy", key, Checkpoint("ppo", "models/ppo", digest).as_pointer())
    loop.write_json("eval_report", key, figures(**changes))


@pytest.fixture
def do(instance: dg.DagsterInstance, loop: LoopFolder) -> Do:
    """Launch a job with these fields; returns why it failed, or what it said."""

    def launch(job: str, user: str = "", **fields: Any) -> str:
        (definition,) = (one for one in intervention_jobs(loop.config, NAMES) if one.name == NAMES.own(job))
        result = definition.execute_in_process(
            run_config={"ops": {NAMES.own(job): {"config": fields}}},
            instance=instance,
            resources={NAMES.own("loop"): loop},
            tags={"user": user} if user else {},
            raise_on_error=False,
        )
        failure = find_failure(result.all_events)
        return failure.reason if failure else said(instance, result.run_id)

    return launch


def said(instance: dg.DagsterInstance, run_id: str) -> str:
    """The lines that a run has logged by itself."""
    return "\n".join(entry.user_message for entry in instance.all_logs(run_id) if entry.dagster_event is None)


def champion(loop: LoopFolder) -> str:
    record = loop.registry.champion()
    assert record
    return record.policy_id


def decided(instance: dg.DagsterInstance, loop: LoopFolder) -> dict[str, Any]:
    """The decision on the first round, which Dagster's newest record of the asset says too."""
    decision = loop.json("promotion", ROUND)
    record = instance.get_latest_materialization_event(dg.AssetKey(NAMES.path("promotion")))
    assert decision and record and record.asset_materialization
    assert record.asset_materialization.partition == ROUND
    assert record.asset_materialization.metadata["promoted"].value == decision["promoted"]
    return decision


def test_every_job_has_a_sentence_and_its_fields_are_described() -> None:
    jobs = intervention_jobs(LoopConfig(), ALONE)
    assert [job.name for job in jobs] == [one.name for one in INTERVENTIONS]
    for job, one in zip(jobs, INTERVENTIONS, strict=True):
        assert job.description == one.description and one.description.endswith(".")
        assert job.tags[LOOP_TAG] == LoopConfig().name
        assert all(field.description for field in one.config.model_fields.values())


def test_a_launchpad_begins_with_every_field_and_nothing_else(tmp_path: Path) -> None:
    repository = build_loop(LoopConfig(), tmp_path, names=NAMES).get_repository_def()
    for one in INTERVENTIONS:
        job = JobSnap.from_job_def(repository.get_job(NAMES.own(one.name)))
        schema, (mode,) = job.config_schema_snapshot, job.mode_def_snaps
        text = default_values_yaml_from_type_snap(schema, schema.get_config_snap(mode.root_config_key))
        begins_with = yaml.safe_load(text)
        assert set(begins_with) == {"ops"}
        assert set(begins_with["ops"][NAMES.own(one.name)]["config"]) == set(one.config.model_fields)


def test_they_stand_beside_the_schedule_of_a_loop_that_has_a_prefix(tmp_path: Path) -> None:
    built = build_loop(LoopConfig(), tmp_path, names=NAMES)
    dg.Definitions.validate_loadable(built)
    assert {NAMES.own(one.name) for one in INTERVENTIONS} < {job.name for job in built.jobs or []}


def test_an_approval_makes_the_policy_the_champion(do: Do, instance, loop: LoopFolder) -> None:
    assert f"ppo of {ROUND} is the champion: by Ada, I read 50 samples" in do("approve", **ADA)
    assert (champion(loop), decided(instance, loop)["promoted"]) == ("ppo", True)
    assert loop.registry.history()[-1].by == "Ada"
    (run,) = instance.get_runs()
    expected = {LOOP_TAG: "nlp/mine", BY_TAG: "Ada", WHY_TAG: ADA["reason"], "rlhf/round": ROUND}
    assert expected.items() <= run.tags.items()
    assert do("approve", round=ROUND, **ADA) == "ppo cannot be promoted: ppo is already the champion."


def test_who_did_it_is_the_user_that_dagster_knows(do: Do, loop: LoopFolder) -> None:
    assert do("approve", reason="good") == "Say who you are in the field `by`: it stays on record."
    do("approve", user="ada@example.org", reason="good")
    assert loop.registry.history()[-1].by == "ada@example.org"


def test_the_gate_s_no_is_a_failure_unless_anyway(do: Do, instance, loop: LoopFolder) -> None:
    candidate(loop, ROUND, kl={"value": 5000.0})
    assert "over the budget of 1000. --anyway (in the UI, `anyway: true`) promotes against it." in do("approve", **ADA)
    assert (champion(loop), loop.registry.approvals()) == ("sft", [])
    do("approve", anyway=True, **ADA)
    assert (champion(loop), decided(instance, loop)["outcome"]) == ("ppo", "fail")


def test_a_refusal_keeps_the_champion_and_is_a_decision(do: Do, instance, loop: LoopFolder) -> None:
    assert "sft stays the champion" in do("refuse", by="Ben", reason="it swears")
    assert decided(instance, loop)["reasons"] == ["Refused by Ben: it swears"]
    assert do("refuse", **ADA) == f"ppo of {ROUND} is refused already: Refused by Ben: it swears"
    do("approve", **ADA)
    assert champion(loop) == "ppo"
    assert do("refuse", **ADA) == "ppo was promoted, so it cannot be refused; a rollback takes it down."


def test_what_the_gate_refuses_needs_no_refusal(do: Do, loop: LoopFolder) -> None:
    candidate(loop, ROUND, kl={"value": 5000.0})
    assert "is refused already: The sequence KL to SFT is 5000.00 nats" in do("refuse", **ADA)
    assert loop.registry.approvals() == []


@pytest.mark.parametrize("job", ["approve", "refuse"])
def test_a_word_needs_a_round_a_reason_and_a_loop_that_goes_on(do: Do, loop: LoopFolder, job: str) -> None:
    assert "has no evaluated policy" in do(job, round="round-0002", **ADA)
    assert "and a reason" in do(job, by="Ada")
    do("stop", by="Ben", reason="odd labels")
    assert do(job, **ADA).startswith("Stopped by Ben: odd labels.")
    assert (champion(loop), loop.registry.approvals()) == ("sft", [])


def test_a_word_waits_for_the_run_that_makes_the_round(do: Do, instance, loop: LoopFolder) -> None:
    definition = build_loop(loop.config, loop.root, names=NAMES).resolve_job_def(NAMES.own("train_round"))
    tags = {"dagster/partition": ROUND, **definition.run_tags}
    run = instance.create_run_for_job(definition, status=dg.DagsterRunStatus.STARTED, tags=tags)
    sentence = f"nlp__mine__train_round of {ROUND} is at work (run {run.run_id[:8]}): wait until it ends."
    assert do("approve", **ADA) == do("retire_model", model="ppo", **ADA) == sentence
    instance.report_run_failed(run)
    assert "is the champion" in do("approve", **ADA)


def test_a_rollback_leads_to_the_champion_before(do: Do, loop: LoopFolder) -> None:
    assert "no earlier champion" in do("rollback", **ADA)
    do("approve", **ADA)
    assert do("rollback", to="ghost", **ADA) == "There is no policy ghost; registered: ppo, sft."
    assert do("rollback", by="Ben", reason="it swears").startswith("sft is the champion, in the place of ppo.")
    record = loop.registry.history()[-1]
    assert (record.policy_id, record.by, record.reason) == ("sft", "Ben", "it swears")


def test_of_two_who_roll_back_at_once_the_second_takes_down_nobody(do: Do, loop: LoopFolder) -> None:
    do("approve", **ADA)
    asked = datetime.now(UTC)
    do("rollback", by="Ben", reason="it swears")
    with pytest.raises(UserError, match=r"sft became the champion .* \(rollback by Ben: it swears\); if it is not"):
        restore_champion(loop, None, "Ada", "it swears", asked)
    assert "is already the champion" in loop.registry.rollback("sft", "Ada", "it swears").reason
    refused = loop.registry.rollback("ppo", "Ada", "it swears", since=asked)
    assert (refused.promoted, refused.reason[:24]) == (False, "sft became the champion ")
    assert [entry.policy_id for entry in loop.registry.history()] == ["sft", "ppo", "sft"]
    assert restore_champion(loop, "ppo", "Ada", "it does not", asked).champion == "ppo"


def test_a_loop_is_stopped_also_by_somebody_in_a_hurry_and_goes_on_by_a_name(do: Do, loop: LoopFolder) -> None:
    assert do("stop").startswith("Say why")
    assert do("stop", reason="odd labels").startswith("Stopped by somebody in the UI: odd labels.")
    assert "It was stopped at" in do("stop", by="Ben", reason="again")
    assert do("resume") == "Say who you are in the field `by`: it stays on record."
    assert "The loop goes on." in do("resume", by="Ada")
    assert (do("resume", by="Ada"), read_stop(loop.store)) == ("The loop was not stopped.", None)


def test_only_the_next_round_is_opened(do: Do, instance, loop: LoopFolder) -> None:
    wrong = do("open_round", round="monday")
    assert wrong == "monday is no round's name: rounds are called round-0001, round-0002 and so on."
    assert do("open_round", round="round-0007").startswith("round-0007 cannot be opened: the next round is round-0002")
    assert open_rounds(instance, loop) == []
    assert do("open_round").startswith("round-0002 is open. Next: the job `collect_round` on it.")
    assert do("open_round", round="round-0003").startswith("round-0003 is open.")
    assert do("open_round", round="round-0003") == "round-0003 is open already; the next round is round-0004."
    assert open_rounds(instance, loop) == ["round-0002", "round-0003"]


def test_a_file_is_imported_and_judgments_open_their_round(do: Do, instance, loop: LoopFolder, tmp_path: Path) -> None:
    prompts = written(tmp_path, *({"prompt": f"film {number} ."} for number in range(3)), {"promt": "wrong"})
    said = do("import_file", file=prompts)
    assert said.startswith("4 lines read: 3 added, 0 already there, 1 refused.\nline 4: ")
    renamed = written(tmp_path, {"question": "film 9 ."})
    assert "1 added" in do("import_file", kind="prompts", file=renamed, columns={"prompt": "question"})
    judgment = {"comparison": "c", "prompt": "film .", "annotator": "p", "responses": ["good .", "bad ."], "choice": 0}
    judgments = written(tmp_path, judgment)
    assert "rlhf run collect_round --round round-0000" in do("import_file", kind="judgments", file=judgments)
    assert open_rounds(instance, loop) == [IMPORT_ROUND]


def test_an_import_that_brings_nothing_fails(do: Do, instance, loop: LoopFolder, tmp_path: Path) -> None:
    wrong = written(tmp_path, {"text": "a film"})
    assert do("import_file", file=wrong).startswith("Nothing can be imported: line 1: ")
    assert "its columns (text) are those of no form" in do("import_file", kind="judgments", file=wrong)
    assert do("import_file", file=f"{tmp_path}/nowhere.jsonl").startswith(f"{tmp_path}/nowhere.jsonl: ")
    assert "No FILE is given" in do("import_file")
    mostly = written(tmp_path, {"prompt": "one ."}, {"text": "two"}, {"text": "three"})
    assert do("import_file", file=mostly) == "Nothing is imported: more than half is refused."
    assert "1 added" in do("import_file", file=mostly, partial=True)
    right = written(tmp_path, {"prompt": "another ."})
    assert "0 added" in do("import_file", file=right, dry_run=True)
    assert open_rounds(instance, loop) == []


def written(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / f"rows-{len(list(folder.glob('rows-*')))}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def test_a_model_is_retired_unless_it_is_needed(do: Do, loop: LoopFolder) -> None:
    assert do("retire_model", model="sft", **ADA).startswith("sft stays: ")
    keep(loop, "reward", "reward", ROUND)
    assert do("retire_model", model="reward", **ADA) == f"reward stays: {ROUND} is not decided."
    do("approve", **ADA)
    assert "reward (0.0 MB) is removed" in do("retire_model", model="reward", **ADA)
    assert "by Ada: I read 50 samples." in loop.removals.removed()["reward"].sentence
