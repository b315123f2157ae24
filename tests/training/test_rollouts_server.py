"""Rollouts by a vLLM server: by one of the same interface, which samples by this package."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from ppo_modes import LORA
from test_ranks import Asked, train_on_ranks
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, about_training

from benchmarks.stand_in_engine import StandInEngine, StandInServer
from rlhf_dagster.config.training import ComputeSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.sampling.engines.transfer import NcclTransfer, pieces
from rlhf_dagster.training.sampling.engines.vllm_server import VllmServer
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import encode_prompts, pad

PROMPTS = ["red dog .", "good", "blue cat bad bad dog red", "cat cat"]
SETTINGS = PpoSettings(updates=4, batch_size=16, learning_rate=3e-3, rollouts_ahead=1)
UPDATE = ["/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/resume"]


@contextmanager
def serving(engine: StandInEngine) -> Iterator[ComputeSettings]:
    """The compute settings with which this server draws the responses."""
    server = StandInServer(engine)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield COMPUTE.changed(rollout_backend="vllm_server", rollout_server=server.url)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def engine(deep_sft: Path) -> StandInEngine:
    return StandInEngine(deep_sft)


@pytest.fixture
def compute(engine: StandInEngine) -> Iterator[ComputeSettings]:
    with serving(engine) as settings:
        yield settings


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path, compute: ComputeSettings) -> PpoSpec:
    paths = (deep_sft, deep_sft, deep_reward, tables.prompts, tables.text, tmp_path / "ppo")
    return PpoSpec(*paths, SETTINGS, FIXED, seed=1, compute=compute)


@pytest.mark.parametrize("sampling", [FIXED.changed(temperature=0.7), VARIABLE])
def test_responses_are_the_policy_s_whatever_its_weights(sampling: Any, compute: Any, deep_sft: Path) -> None:
    policy = load_policy(deep_sft, COMPUTE)
    embeddings, word = policy.model.transformer.wte.weight, policy.tokenizer.convert_tokens_to_ids("dog")
    with torch.no_grad():  # ending is as likely as a word
        embeddings[policy.tokenizer.eos_token_id] = embeddings[word]
    decoding = decoding_of(policy.tokenizer, sampling)
    prompts = pad(encode_prompts(policy.tokenizer, PROMPTS * 4, 6), decoding.pad_id, "left")
    with rollout_backend(compute, 16) as backend:
        for seed in range(2):
            uniforms = draw_uniforms(16, decoding.max_tokens, torch.Generator().manual_seed(seed))
            responses = backend.generate(policy.model, prompts, uniforms, decoding)
            lengths = responses.mask.sum(dim=1).tolist()
            tokens = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
            expected = response_log_probs(policy, PROMPTS * 4, tokens, sampling)
            for row, numbers, n in zip(responses.log_probs.tolist(), expected, lengths, strict=True):
                assert row[:n] == pytest.approx(numbers, abs=1e-4)
            assert (len(set(lengths)) > 1) == (not sampling.fixed_length)
            with torch.no_grad():  # as an optimiser would
                for parameter in policy.model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)


@pytest.mark.parametrize("changes", [{}, {"lora": LORA}, {"value": "separate"}, {"rollouts_ahead": 0}])
def test_ppo_s_responses_come_from_the_server(changes: dict[str, Any], spec: PpoSpec, engine: StandInEngine) -> None:
    result = train_ppo(replace(spec, settings=SETTINGS.changed(**changes)))
    assert max(result.curves["sampler_kl"]) < 1e-6
    assert about_training(result.warnings) == []
    # Ahead, the second update's responses are of the start, as the first one's.
    assert (abs(result.curves["kl"][1]) < 1e-5) == (changes.get("rollouts_ahead") != 0)
    began = ["/server_info", "/v1/models", "/get_world_size", "/init_weight_transfer_engine"]
    assert engine.calls == began + UPDATE * SETTINGS.updates + ["/shutdown_weight_transfer_engine"]


def test_the_sampler_works_while_the_trainer_does(
    spec: PpoSpec, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update begins before the responses of the next are drawn: they are held back until it has been made."""
    from rlhf_dagster.training.ppo import train

    trained, answer, optimise = threading.Event(), engine._answer, train.optimise
    begun: list[bool] = []

    def held(requests: Any) -> None:
        if engine.calls.count("/resume") > 1:
            begun.append(trained.wait(60))
        answer(requests)

    def releasing(*args: Any, **more: Any) -> Any:
        numbers = optimise(*args, **more)
        trained.set()
        return numbers

    monkeypatch.setattr(engine, "_answer", held)
    monkeypatch.setattr(train, "optimise", releasing)
    train_ppo(replace(spec, settings=SETTINGS.changed(updates=2)))
    assert begun
    assert all(begun)


def test_two_ranks_ask_one_server(spec: PpoSpec, engine: StandInEngine, tmp_path: Path) -> None:
    expected = train_ppo(spec).curves
    before = len(engine.calls)
    for outcome in train_on_ranks(tmp_path, [Asked("ppo", replace(spec, output=tmp_path / "two"))]):
        for curve, values in expected.items():
            assert outcome[0]["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
    assert engine.calls[before:].count("/update_weights") == SETTINGS.updates


def test_samples_come_from_the_server(policy: Policy, deep_sft: Path, compute: ComputeSettings) -> None:
    deep = load_policy(deep_sft, COMPUTE)
    assert len(sample(deep, PROMPTS, VARIABLE, 0, 2, compute=compute)) == 8
    with pytest.raises(UserError, match="weights are missing"):  # a model of one layer
        sample(policy, PROMPTS, VARIABLE, 0, compute=compute)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"transfer": "ipc"}, "takes weights by 'ipc'; start it with --weight-transfer-config"),
        ({"transfer": ""}, "takes no weights; start it with"),
        ({"transfer": "nccl"}, "takes weights by nccl, from a GPU, and the policy is on cpu"),
        ({"log_probs": "raw_logprobs"}, "start it with --logprobs-mode processed_logprobs"),
    ],
)
def test_a_server_that_cannot_is_one_sentence(options: dict[str, str], sentence: str, deep_sft: Path) -> None:
    policy = load_policy(deep_sft, COMPUTE)
    with serving(StandInEngine(deep_sft, **options)) as compute, pytest.raises(UserError, match=sentence):
        sample(policy, PROMPTS, FIXED, 0, compute=compute)


def test_a_server_without_room_or_that_is_away_is_one_sentence(
    deep_sft: Path, engine: StandInEngine, compute: ComputeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(deep_sft, COMPUTE)
    monkeypatch.setattr("benchmarks.stand_in_engine.LONGEST", 7)
    with pytest.raises(UserError, match=r"have up to 11 tokens, .* room for 7; start it with --max-model-len 11"):
        sample(policy, PROMPTS, FIXED, 0, compute=compute)
    away = compute.changed(rollout_server="http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9: the vLLM server .* gave no answer \(.*refused"):
        sample(policy, PROMPTS, FIXED, 0, compute=away)


def test_a_server_without_its_routes_or_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(404)

    monkeypatch.setenv("VLLM_API_KEY", "secret")
    server = VllmServer("http://127.0.0.1:9/")
    headers = server._http.headers
    server._http = httpx.Client(base_url=server.url, headers=headers, transport=httpx.MockTransport(answer))
    with pytest.raises(UserError, match=r"has no /server_info: start vLLM 0\.32 or later, with VLLM_SERVER_DEV_MODE=1"):
        server.facts()
    assert seen[0].headers["Authorization"] == "Bearer secret"


def test_settings_that_need_each_other() -> None:
    with pytest.raises(UserError, match="need each other; set both"):
        ComputeSettings.parse({"rollout_backend": "vllm_server"}, "compute")
    with pytest.raises(UserError, match="need each other; set both"):
        ComputeSettings.parse({"rollout_server": "http://host:8000"}, "compute")
    with pytest.raises(UserError, match="rollout_server"):
        ComputeSettings.parse({"rollout_backend": "vllm_server", "rollout_server": "host:8000"}, "compute")


def test_weights_go_in_files_of_a_size() -> None:
    weights = [("a", torch.ones(2, 3)), ("b", torch.ones(4).expand(3, 4)), ("c", torch.ones(1)), ("d", torch.ones(9))]
    groups = list(pieces(weights, 4 * 13))
    # 6 numbers and 12 are above 13 together; 12 and 1 are not; 9 are one more.
    assert [list(group) for group in groups] == [["a"], ["b", "c"], ["d"]]
    assert all(torch.equal(groups[place][name], dict(weights)[name]) for place, name in ((0, "a"), (1, "b"), (2, "d")))


def test_by_nccl_vllm_s_own_sender_is_given_the_plain_weights(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes are planted, with the names and arguments of vLLM 0.32; nothing is on a GPU here."""
    sent: list[tuple[Any, dict[str, torch.Tensor], list[Any]]] = []

    class Sender:
        def __init__(self, source: Any) -> None:
            self.source = source

        def send_weights(self) -> None:
            sent.append((self, dict(self.source), self.source.metadata()))

    def trainer_init(*, init_info: Any, client: Any, source: Any) -> Sender:
        assert isinstance(source, Source)
        assert (init_info.world_size, init_info.rank, init_info.packed) == (3, 0, True)
        assert client is engine
        return Sender(source)

    class Source: ...

    meta: Callable[..., Any] = lambda name, dtype, shape: SimpleNamespace(name=name, dtype=dtype, shape=shape)  # noqa: E731
    modules = {
        "vllm": {},
        "vllm.distributed": {},
        "vllm.distributed.weight_transfer": {
            "ParamMeta": meta,
            "WeightSource": Source,
            "WeightTransferTrainerFactory": SimpleNamespace(trainer_init=trainer_init),
        },
        "vllm.distributed.weight_transfer.nccl_engine": {"NCCLTrainerInitInfo": SimpleNamespace},
        "vllm.utils": {},
        "vllm.utils.network_utils": {"get_ip": lambda: "10.0.0.1", "get_open_port": lambda: 1234},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(__import__("sys").modules, name, module)
    engine: Any = object()
    transfer = NcclTransfer(engine, SimpleNamespace(workers=2))  # type: ignore[arg-type]
    model = SimpleNamespace(
        device=SimpleNamespace(type="cuda"),
        named_modules=policy.model.named_modules,
        named_parameters=policy.model.named_parameters,
        get_submodule=policy.model.get_submodule,
    )
    monkeypatch.setattr("rlhf_dagster.training.sampling.engines.transfer._on", lambda model: threading.Lock())
    transfer.send(model)  # type: ignore[arg-type]
    transfer.send(model)  # type: ignore[arg-type]
    (one, weights, described), (other, *_) = sent
    assert one is other
    own = dict(policy.model.named_parameters(remove_duplicate=False))
    assert weights.keys() == own.keys()
    assert all(torch.equal(weight, own[name]) for name, weight in weights.items())
    assert [(each.name, each.shape) for each in described] == [(name, tuple(own[name].shape)) for name in own]
