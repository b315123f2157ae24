from pathlib import Path

import pytest
import yaml

from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig, load_config
from rlhf_dagster.config.presets import INSTRUCT_GPT, PRESETS
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError


def sentence(values: object) -> str:
    with pytest.raises(UserError) as caught:
        LoopConfig.parse(values, "loop.yaml")
    text = str(caught.value)
    assert text.startswith("loop.yaml: ")
    assert "\n" not in text
    assert text[-1] in ".?"
    return text.removeprefix("loop.yaml: ")


def write(folder: Path, text: str) -> Path:
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sead": 1}, "`sead` is not a setting; did you mean `seed`?"),
        ({"ppo": {"update": 5}}, "`ppo.update` is not a setting; did you mean `updates`?"),
        ({"base_model": {"tiny": {"stepz": 3}}}, "`base_model.tiny.stepz` is not a setting; did you mean `steps`?"),
        ({"sft": {"zzz": 1}}, "`sft.zzz` is not a setting; known here: accumulate, batch_size, chat, epochs, "),
        # The section is optional, and the key that is missing is the one that was mistyped.
        (
            {"data": {"prompts_dataset": {"nmae": "x"}}},
            "`data.prompts_dataset.nmae` is not a setting; did you mean `name`?",
        ),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(values, expected) -> None:
    assert sentence(values).startswith(expected)


@pytest.mark.parametrize(
    ("values", "setting", "found"),
    [
        ({"seed": "five"}, "`seed`", "'five'"),
        ({"seed": -1}, "`seed`", "-1"),
        ({"ppo": {"learning_rate": "fast"}}, "`ppo.learning_rate`", "'fast'"),
        ({"ppo": {"updates": 0}}, "`ppo.updates`", "0"),
        ({"sft": 3}, "`sft`", "3"),
        ({"data": None}, "`data`", "None"),
        ({"data": {"pretraining_files": "text.txt"}}, "`data.pretraining_files`", "'text.txt'"),
        ({"preset": "tiney"}, "`preset`", "'tiney'"),
        ({"preset": ["tiny"]}, "`preset`", "['tiny']"),
        ({"name": "My loop"}, "`name`", "'My loop'"),
        ({"owner": "bob"}, "`owner`: must be an e-mail address or `team:NAME`", "'bob'"),
        ({"label_store": {"kind": "paper"}}, "`label_store.kind`", "'paper'"),
        ({1: 2}, "`1`", "1"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found(values, setting, found) -> None:
    text = sentence(values)
    assert setting in text
    assert f"(found {found})" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"data": {"prompts_dataset": {"split": "test"}}}, "`data.prompts_dataset.name` is missing; please set it."),
        ({"data": {"prompts_dataset": {"name": "x"}}}, "`data`: prompts_dataset must name its `prompt` column."),
        (
            {"data": {"demonstrations_dataset": {"name": "x", "prompt": "q"}}},
            "`data`: demonstrations_dataset must name its `response` column.",
        ),
        (
            {"data": {"validation": 0.6, "test": 0.4}},
            "`data`: validation (0.6) and test (0.4) leave no prompt to train on.",
        ),
        (
            {"data": {"source": "imports"}},
            "label_store.simulated_annotators needs `data.source: task`; set it to false for people.",
        ),
        ([{"seed": 1}], "expected a mapping of settings, found list."),
        ("seed", "expected a mapping of settings, found str."),
    ],
)
def test_settings_that_do_not_fit_together(values, expected) -> None:
    assert sentence(values) == expected


def test_people_label_where_there_is_no_task() -> None:
    config = LoopConfig.parse({"data": {"source": "imports"}, "label_store": {"simulated_annotators": False}}, "f")
    assert not config.has_task


def test_a_missing_file_names_the_command_that_writes_one(tmp_path) -> None:
    with pytest.raises(UserError, match=r"loop.yaml: no such file; `rlhf init DIR` writes one\."):
        load_config(tmp_path)


def test_an_empty_file_is_the_default_loop(tmp_path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")) == LoopConfig()


@pytest.mark.parametrize("text", ["seed: [1", "a: b: c", "\tseed: 1", "seed: !!python/object:os.system {}"])
def test_broken_yaml_is_one_sentence(tmp_path, text) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / CONFIG_FILE}: not valid YAML: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_one_sentence(tmp_path) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(tmp_path)


@pytest.mark.parametrize("text", ["[]", "0", "false", "''"])
def test_a_file_without_a_mapping_is_refused_also_where_it_is_falsy(tmp_path, text) -> None:
    with pytest.raises(UserError, match="expected a mapping of settings"):
        load_config(write(tmp_path, text))


def test_a_preset_sets_its_stages_and_own_settings_win() -> None:
    own = {"preset": "instructgpt", "seed": 7, "sft": {"epochs": 1.5}, "ppo": {"kl_target": 4.0}}
    config = LoopConfig.parse(own, "f")
    assert config.sampling == INSTRUCT_GPT["sampling"]
    assert config.reward_model == INSTRUCT_GPT["reward_model"]
    assert config.sft == INSTRUCT_GPT["sft"].changed(epochs=1.5)
    assert config.ppo == INSTRUCT_GPT["ppo"].changed(kl_target=4.0)
    assert config.seed == 7
    assert LoopConfig.parse(yaml.safe_load(yaml.safe_dump(config.model_dump())), "f") == config


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_sets_the_same_four_stages(preset) -> None:
    config = LoopConfig(preset=preset)
    for stage in ("sampling", "sft", "reward_model", "ppo"):
        assert getattr(config, stage) == PRESETS[preset][stage]


def test_settings_made_in_python_win_over_a_preset_where_they_are_set() -> None:
    config = LoopConfig(preset="ziegler2019", ppo=PpoSettings(updates=7))
    assert config.ppo == PRESETS["ziegler2019"]["ppo"].changed(updates=7)
    assert config == LoopConfig.parse({"preset": "ziegler2019", "ppo": {"updates": 7}}, "f")
    assert config.changed(seed=3).ppo == config.ppo


def test_of_settings_within_settings_only_what_is_given_wins_over_a_preset() -> None:
    own = {"preset": "qlora", "ppo": {"lora": {"rank": 64}}, "sft": {"lora": None, "schedule": {"warmup": 7}}}
    config, preset = LoopConfig.parse(own, "f"), PRESETS["qlora"]
    assert config.ppo.lora == preset["ppo"].lora.changed(rank=64)
    assert config.ppo.lora.base_bits == 4
    assert config.sft.lora is None
    assert config.sft.schedule == preset["sft"].schedule.changed(warmup=7)


def test_presets_for_real_models_set_their_compute_too() -> None:
    config = LoopConfig.parse({"preset": "lora", "compute": {"threads": 8}}, "f")
    assert config.compute == PRESETS["lora"]["compute"].changed(threads=8)
    assert config.compute.gradient_checkpointing
    assert not LoopConfig.parse({"preset": "instructgpt"}, "f").compute.gradient_checkpointing


def test_a_null_stage_is_the_presets() -> None:
    assert LoopConfig.parse({"preset": "ziegler2019", "ppo": None}, "f").ppo == PRESETS["ziegler2019"]["ppo"]


def test_seeds_differ_by_stage_round_and_loop_and_nothing_else() -> None:
    one, same, other = LoopConfig(seed=1), LoopConfig(seed=1, name="other"), LoopConfig(seed=2)
    seeds = {config.stage_seed(stage, key) for config in (one, other) for stage in "ab" for key in ("", "round-0001")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert one.stage_seed("a", "round-0001") == same.stage_seed("a", "round-0001")


@pytest.mark.parametrize("owner", ["team:rlhf", "team:a b", "ada.l@example.org"])
def test_owners_that_pass_are_owners_to_dagster(owner) -> None:
    import dagster as dg

    assert dg.AssetSpec("a", owners=[LoopConfig(owner=owner).owner]).owners == [owner]


@pytest.mark.parametrize("owner", ["team:", "bob", "a@b", "a@b.c", "@b.org"])
def test_owners_that_dagster_refuses_are_refused(owner) -> None:
    import dagster as dg

    with pytest.raises(dg.DagsterInvalidDefinitionError):
        dg.AssetSpec("a", owners=[owner])
    with pytest.raises(UserError, match="`owner`"):
        LoopConfig.parse({"owner": owner}, "f")


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999", "http://me:secret@host:8080", "localhost:8080"]
)
def test_an_address_that_cannot_be_used_is_refused(url) -> None:
    with pytest.raises(UserError, match=r"label_store\.url"):
        LoopConfig.parse({"label_store": {"url": url}}, "f")


@pytest.mark.parametrize(
    "address", ["", "${LEDGER}", "postgresql://ada@host:5433/labels", "sqlite:///labels.sqlite", "postgres:///labels"]
)
def test_addresses_of_a_ledger(address: str) -> None:
    assert LoopConfig.parse({"ledger": address}, "loop.yaml").ledger == address


@pytest.mark.parametrize(
    "address", ["postgresql://ada:opensesame@host/labels", "postgresql://host/labels?password=opensesame"]
)
def test_a_password_in_the_file_is_refused_and_not_shown(address: str) -> None:
    said = sentence({"ledger": address})
    assert "ledger holds a password; set it in PGPASSWORD" in said
    assert "opensesame" not in said


def test_what_is_no_address_of_a_ledger_is_refused() -> None:
    assert "ledger must be an address" in sentence({"ledger": "mysql://ada:opensesame@host/labels"})
    assert "opensesame" not in sentence({"ledger": "mysql://ada:opensesame@host/labels"})
