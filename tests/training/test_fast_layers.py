"""Faster kernels compute what the layers that they take the place of do."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.training.models import fast_layers
from rlhf_dagster.training.models.fast_layers import FastConv1D, FastLinear, onednn_is_faster, use_fast_layers
from rlhf_dagster.training.models.lora import add_lora, merge_lora


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor with AVX-512 that MKL does not use, and for products of any size but none."""
    monkeypatch.setattr(fast_layers, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(fast_layers, "SMALLEST_PRODUCT", 1)
    yield


def model(**changes: object) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=24, n_layer=2, n_head=2, **changes)
    return GPT2LMHeadModel(config).eval()


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and the gradients of input and parameters, of a sum that weighs every output differently."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize(("inputs", "outputs"), [(24, 40), (40, 24), (7, 1)])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 1)])
@pytest.mark.parametrize("kind", ["linear", "without bias", "conv1d"])
def test_layers_and_their_gradients(inputs: int, outputs: int, shape: tuple[int, ...], kind: str) -> None:
    torch.manual_seed(1)
    layer = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=kind == "linear")
    x = torch.randn(*shape, inputs)
    expected = gradients(layer, x)
    use_fast_layers(parent := nn.Sequential(layer))
    assert type(parent[0]) in (FastLinear, FastConv1D)
    for one, other in zip(gradients(layer, x), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected[0], rtol=1e-5, atol=1e-5)


def test_small_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Linear(16, 8), torch.randn(4, 16)
    expected = layer(x)
    use_fast_layers(nn.Sequential(layer))
    called = []
    monkeypatch.setattr(fast_layers, "multiply", lambda *factors: called.append(factors) or expected)
    for smallest, calls in ((4 * 16 * 8 + 1, 0), (4 * 16 * 8, 1)):
        monkeypatch.setattr(fast_layers, "SMALLEST_PRODUCT", smallest)
        layer(x)
        assert len(called) == calls


def test_what_onednn_cannot_do_is_left_to_pytorch() -> None:
    layer = nn.Linear(4, 3)
    expected = layer(torch.ones(2, 4))
    use_fast_layers(nn.Sequential(layer))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    assert layer(torch.ones(0, 4)).shape == (0, 3)
    torch.testing.assert_close(layer.double()(torch.ones(2, 4).double()).float(), expected)


@pytest.mark.parametrize("activation", [NewGELUActivation, FastGELUActivation])
def test_the_activation_is_the_same_curve(activation: type[nn.Module]) -> None:
    parent = nn.Sequential(activation())
    x = torch.linspace(-6, 6, 1001)
    expected = parent(x)
    use_fast_layers(parent)
    assert type(parent[0]) is nn.GELU
    torch.testing.assert_close(parent(x), expected, rtol=0, atol=1e-6)


def test_a_model_stays_the_same_checkpoint() -> None:
    plain, fast = model(), model()
    use_fast_layers(fast)
    ids = torch.arange(20).view(2, 10)
    torch.testing.assert_close(fast(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)
    assert fast.config.activation_function == "gelu_new"
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert fast.lm_head.weight is fast.transformer.wte.weight


def test_a_copy_has_weights_of_its_own() -> None:
    fast = model()
    use_fast_layers(fast)
    ids = torch.arange(20).view(2, 10)
    before, twin = fast(ids).logits, copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(twin(ids).logits, before)


def test_adapters_go_on_top() -> None:
    fast = model()
    use_fast_layers(fast)
    ids = torch.arange(20).view(2, 10)
    before = fast(ids).logits
    adapted = add_lora(fast, LoraSettings(rank=2))
    torch.testing.assert_close(adapted(ids).logits, before)
    torch.testing.assert_close(merge_lora(adapted)(ids).logits, before)


@pytest.mark.parametrize(("vendor", "faster"), [("GenuineIntel", False), ("AuthenticAMD", True)])
def test_mkl_stays_where_it_is_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, faster: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(fast_layers, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert onednn_is_faster.__wrapped__() is faster
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert onednn_is_faster.__wrapped__() is False
