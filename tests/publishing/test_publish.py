"""A policy given away to a folder and to the Hub: what goes along, what its card says, and how it is taken back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import StandInHub
from huggingface_hub import ModelCard
from kept_models import keep
from loops import assert_one_sentence, copy_folder, rlhf_here, write_loop
from transformers import AutoModelForCausalLM

from rlhf_dagster.data.import_file import ImportOptions, import_file
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import ADAPTER_WEIGHTS, named_base, write_base
from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.model_folders import ADAPTER_CONFIG
from rlhf_dagster.lineage.publications import Publications
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.references import check_journals
from rlhf_dagster.publishing.card import write_policy_card
from rlhf_dagster.publishing.contents import require_nothing_private, write_adapters_alone
from rlhf_dagster.publishing.facts import facts_of
from rlhf_dagster.publishing.places import place_of
from rlhf_dagster.publishing.sources import sources_of
from rlhf_dagster.records.licences import LicensedSource
from rlhf_dagster.training.models.policies import load_tokenizer
from rlhf_dagster.training.texts.chats.encoding import reads_chats

KEY = "round-0001"
KNOWN_JUDGE = "reward model (which it was trained on)"
PARENTS = {"reward_model": {"model_id": "reward-1", "digest": "d"}}
GOES_ALONG = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def champion(loop: LoopFolder) -> str:
    record = loop.registry.champion()
    assert record
    return record.policy_id


@pytest.fixture
def loop(shared_loop: LoopFolder, tmp_path: Path) -> LoopFolder:
    """One of the test's own."""
    return LoopFolder.open(copy_folder(shared_loop.root, tmp_path / "loop"))


def published(loop: LoopFolder, to: object, *more: str) -> str:
    result = rlhf_here("publish", "--to", to, "--by", "Grace Hopper", "--loop", loop.root, *more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_folder_gets_the_model_and_its_card_alone(loop: LoopFolder, tmp_path: Path) -> None:
    policy, out = champion(loop), tmp_path / "out"
    said = published(loop, out)
    assert f"{policy} is published at {out} as {policy}, under apache-2.0." in said
    assert {file.name for file in (out / policy).iterdir()} == GOES_ALONG
    assert (out / "latest").resolve() == out / policy
    assert reads_chats(load_tokenizer(out / "latest"))
    opened, own = (
        AutoModelForCausalLM.from_pretrained(place) for place in (out / "latest", loop.policy(policy).folder)
    )
    assert all((a == b).all() for a, b in zip(opened.parameters(), own.parameters(), strict=True))
    texts = "".join(file.read_text() for file in (out / policy).iterdir() if file.suffix in (".json", ".md"))
    for private in ("Ada", "Grace", "fifty samples", str(loop.root), str(tmp_path)):
        assert private not in texts


def test_the_card_has_lineage_labels_figures_and_the_gate(loop: LoopFolder, tmp_path: Path) -> None:
    published(loop, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out/latest/README.md")
    assert (card.data.license, card.data.library_name, card.data.base_model) == ("apache-2.0", "transformers", None)
    checkpoint = loop.policy(champion(loop))
    for part in (
        "Promoted by a person, on 20",
        f"`{checkpoint.model_id}`, digest `{checkpoint.digest}`",
        "a small model, trained from scratch by the loop (`base-",
        "Prompts are chats in the tokenizer's template.",
        "1,943 usable labels by simulated annotators (3 annotators) and\n400 by machines, on 1,500 comparisons.",
        f"| {KEY} | 1,500 | 1,943 | 400 | promoted |",
        "| win rate over the SFT policy, by reward model | 98.4% | 96.9% to 99.2% | 512 |",
        "| sequence KL to the SFT policy, in nats | 5.93 | 5.61 to 6.26 | 512 |",
        "| gap between reward models of other labels | 0.025 | unknown | 512 |",
        "| max_kl | pass | The sequence KL to SFT is 5.93 nats. |",
        "| the texts of the task sentiment | apache-2.0 |",
    ):
        assert part in card.content


@pytest.mark.parametrize(
    ("parents", "judge"), [({}, "reward model"), (PARENTS, "reward model (which it was trained on)")]
)
def test_a_judge_that_has_trained_the_policy_is_said_to_have(
    loop: LoopFolder, parents: dict[str, dict[str, str]], judge: str
) -> None:
    policy = loop.policy(champion(loop))
    write_manifest(loop.root / policy.path, kind="ppo", round_key=KEY, parents=parents)
    changed = loop.models.identify(loop.root / policy.path, "ppo", KEY)
    (rate,) = facts_of(loop, replace(policy, digest=changed.digest))["win_rates"]
    assert rate["judge"] == judge


def test_the_sft_policy_has_no_labels_and_no_figures(shared_loop: LoopFolder, tmp_path: Path) -> None:
    sft = shared_loop.policy(shared_loop.registry.previous_champion() or "")
    card = {"licence": "mit", "sources": [], "place": "org/name", "revision": "", "adapters": False, "rows": 0}
    write_policy_card(tmp_path, facts_of(shared_loop, sft), **card)
    text = (tmp_path / "README.md").read_text()
    for part in ("It starts its loop", "took its place on", "No preference label", "was not evaluated", "No gate has"):
        assert part in text
    assert 'AutoTokenizer.from_pretrained("org/name")' in text
    base = rlhf_here("publish", "--to", tmp_path / "out", "--policy", "base", "--loop", shared_loop.root)
    assert_one_sentence(base, "no policy that this loop has trained")


def test_what_is_not_the_champion_needs_a_word(loop: LoopFolder, tmp_path: Path) -> None:
    given = ["publish", "--to", tmp_path / "out", "--policy", KEY, "--loop", loop.root]
    loop.registry.rollback(loop.registry.previous_champion() or "", "Ada", "rude")
    assert_one_sentence(rlhf_here(*given), "is not the champion, which is sft-", "--anyway")
    assert not (tmp_path / "out").exists()
    assert rlhf_here(*given, "--anyway").returncode == 0
    card = (tmp_path / "out/latest/README.md").read_text()
    assert "Promoted by a person, on 20" in card
    assert "It was rolled back on 20" in card


def test_a_withdrawal_marks_the_card_and_takes_the_link_away(loop: LoopFolder, tmp_path: Path) -> None:
    policy, out = champion(loop), tmp_path / "out"
    published(loop, out)
    twice = rlhf_here("publish", "--to", out, "--loop", loop.root)
    assert_one_sentence(twice, f"{policy} is published at {out} already, as {policy}")
    given = ["publish", "--withdraw", "--to", out, "--loop", loop.root]
    assert_one_sentence(rlhf_here(*given), "give your name and a reason")
    assert_one_sentence(rlhf_here(*given, "--license", "mit", "--reason", "x"), "--withdraw takes")
    result = rlhf_here(*given, "--by", "Ada", "--reason", "it is rude")
    assert result.returncode == 0, result.stderr
    assert "What stands there: nothing." in result.stdout
    assert {file.name for file in out.iterdir()} == {f"{policy}-withdrawn"}
    card = ModelCard.load(out / f"{policy}-withdrawn" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.text.lstrip().startswith("> **Withdrawn on 20")
    assert "it is rude" in card.text
    assert_one_sentence(rlhf_here(*given, "--reason", "x"), "No publication stands", "nothing of this loop")
    published(loop, out)
    assert (out / "latest").resolve() == out / f"{policy}-2"
    assert [one.action for one in Publications(loop.store).entries()] == ["published", "withdrawn", "published"]
    assert list(check_journals(loop)) == []


def test_a_rollback_says_what_is_still_published(loop: LoopFolder, tmp_path: Path) -> None:
    policy, out = champion(loop), tmp_path / "out"
    published(loop, out)
    for folder in (loop.root / "models").glob("sft-*"):
        assert loop.policy(folder.name).folder == folder
    result = rlhf_here("rollback", "--reason", "it is rude", "--loop", loop.root)
    assert result.returncode == 0, result.stderr
    assert f"{policy} is published at {out} as {policy}. To withdraw it: rlhf publish --withdraw" in result.stdout


def test_the_hub_has_a_tag_for_each_publication(loop: LoopFolder, hub: StandInHub) -> None:
    policy = champion(loop)
    said = published(loop, "org/name")
    assert (hub.private, hub.tags) == (True, {policy: hub.head})
    assert f"commit {hub.head}" in said
    assert set(hub.files(policy)) == GOES_ALONG
    assert f'"org/name", revision="{policy}"' in hub.files(policy)["README.md"].decode()
    first, sft = hub.head, loop.registry.previous_champion()
    assert sft
    result = rlhf_here("publish", "--withdraw", "--to", "org/name", "--reason", "it is rude", "--loop", loop.root)
    assert result.returncode == 0, result.stderr
    assert list(hub.tags) == [f"{policy}-withdrawn"]
    assert b"**Withdrawn on 20" in hub.files()["README.md"]
    assert b"Withdrawn" not in hub.files(first)["README.md"]
    published(loop, "org/name")
    assert sorted(hub.tags) == [f"{policy}-2", f"{policy}-withdrawn"]
    assert b"Withdrawn" not in hub.files()["README.md"]


def test_what_the_hub_refuses_is_one_sentence(loop: LoopFolder, hub: StandInHub) -> None:
    hub.refuses = True
    result = rlhf_here("publish", "--to", "org/name", "--loop", loop.root)
    assert_one_sentence(result, "org/name on the Hub", "HF_TOKEN")
    assert Publications(loop.store).entries() == []


def test_who_can_see_a_repository_is_meant(loop: LoopFolder, hub: StandInHub, tmp_path: Path) -> None:
    published(loop, "hub:org/name", "--public")
    assert hub.private is False
    other = rlhf_here("publish", "--to", "org/name", "--anyway", "--policy", "sft", "--loop", loop.root)
    assert_one_sentence(other, "Everybody can see org/name")
    folder = rlhf_here("publish", "--to", tmp_path / "out", "--public", "--loop", loop.root)
    assert_one_sentence(folder, "--public is for a repository")


def test_a_name_that_may_be_either_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    with pytest.raises(UserError, match=r"write \./org/name or hub:org/name"):
        place_of("org/name")
    assert place_of("./org/name").name == str(tmp_path / "org/name")
    assert place_of("hub:org/name").name == "org/name"
    with pytest.raises(UserError, match="called ORG/NAME"):
        place_of("hub:name")


def test_licences_are_read_where_they_stand(tmp_path: Path, hub: StandInHub) -> None:
    hub.licences = {"models/some/base": "llama3.1", "datasets/some/prompts": "cc-by-4.0"}
    columns = {"prompt": "p", "response": "r"}
    data = {
        "source": "imports",
        "prompts_dataset": {"name": "some/prompts", "prompt": "p"},
        "demonstrations_dataset": {"name": "local", **columns},
    }
    base = {"source": "hub", "name": "some/base"}
    loop = LoopFolder.open(
        write_loop(tmp_path / "loop", data=data, base_model=base, label_store={"simulated_annotators": False})
    )
    (loop.root / "local").mkdir()
    (loop.root / "local/README.md").write_text("---\nlicense: mit\n---\n# Data\n")
    assert {source.what: source.licence for source in sources_of(loop)} == {
        "the base model some/base": "llama3.1",
        "the data set some/prompts": "cc-by-4.0",
        "the data in local": "mit",
    }
    hub.licences = {}
    for name, licence in (("site.jsonl", "cc-by-sa-4.0"), ("forum.jsonl", "")):
        (loop.root / name).write_text(json.dumps({"prompt": f"asked on {name}"}) + "\n")
        import_file("prompts", loop.root / name, loop.store, options=ImportOptions(licence=licence))
    found = {source.what: source.licence for source in sources_of(loop)}
    assert (found["the base model some/base"], found["the imported data"]) == ("", "")
    assert found["the imported data of site.jsonl"] == "cc-by-sa-4.0"


def test_nobody_has_licensed_what_users_have_asked(tmp_path: Path) -> None:
    data = {"source": "imports", "feedback": {"logs": ["logs"]}}
    loop = LoopFolder.open(write_loop(tmp_path, data=data, label_store={"simulated_annotators": False}))
    assert LicensedSource("what users have asked", "") in sources_of(loop)


def test_adapters_name_the_base_that_others_have(loop: LoopFolder, tmp_path: Path) -> None:
    plain = loop.policy(champion(loop))
    assert_one_sentence(
        rlhf_here("publish", "--to", tmp_path / "out", "--adapters", "--loop", loop.root), "--adapters", "plain model"
    )
    folder = loop.models.work_folder("adapters")
    folder.mkdir(parents=True)
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"base_model_name_or_path": str(plain.folder), "r": 4}))
    (folder / ADAPTER_WEIGHTS).write_bytes(b"weights")
    write_base(folder, plain.folder, named_base(plain.folder))
    adapters = keep(loop, folder, "adapters")
    out = tmp_path / "files"
    out.mkdir()
    with pytest.raises(UserError, match="nobody else has the base model"):
        write_adapters_alone(loop, adapters, out)
    base = loop.config.base_model.changed(source="hub", name="some/base", revision="abc")
    of_hub = LoopFolder(loop.config.changed(base_model=base), loop.root)
    write_adapters_alone(of_hub, adapters, out)
    assert {file.name for file in out.iterdir()} == {ADAPTER_CONFIG, ADAPTER_WEIGHTS}
    named = json.loads((out / ADAPTER_CONFIG).read_text())
    assert (named["base_model_name_or_path"], named["revision"], named["r"]) == ("some/base", "abc", 4)
    require_nothing_private(out, loop)
    (out / "config.json").write_text(json.dumps({"made_in": str(loop.root)}))
    with pytest.raises(UserError, match=r"config.json names the loop's folder"):
        require_nothing_private(out, loop)
