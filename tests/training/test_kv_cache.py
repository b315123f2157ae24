import torch
from transformers import DynamicCache, GPT2Config, MistralConfig

from rlhf_dagster.training.sampling.kv_cache import BufferedLayer, make_cache

CONFIG = GPT2Config(n_layer=2, n_head=3, n_embd=12, vocab_size=9)


def test_it_holds_what_a_cache_that_grows_holds_also_when_rows_are_dropped() -> None:
    torch.manual_seed(0)
    ours, plain = make_cache(CONFIG, capacity=8), DynamicCache(config=CONFIG)
    rows = 5
    for tokens, kept in ((4, [0, 2, 3]), (1, [1, 2]), (3, [0])):
        for layer in range(2):
            keys, values = torch.randn(2, rows, 3, tokens, 4)
            for one, other in zip(ours.update(keys, values, layer), plain.update(keys, values, layer), strict=True):
                assert torch.equal(one, other)
        assert ours.get_seq_length() == plain.get_seq_length()
        for cache in (ours, plain):
            cache.batch_select_indices(torch.tensor(kept))
        rows = len(kept)
    assert torch.equal(ours.layers[1].keys, plain.layers[1].keys)


def test_other_kinds_of_layers_are_left_alone() -> None:
    sliding = MistralConfig(num_hidden_layers=2, sliding_window=4)
    kinds = [type(layer) for layer in make_cache(sliding, 8).layers]
    assert BufferedLayer not in kinds
    assert kinds == [type(layer) for layer in DynamicCache(config=sliding).layers]
