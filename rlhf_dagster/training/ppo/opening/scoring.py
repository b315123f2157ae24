"""What rewards a PPO policy: a reward model, a function, or several with weights."""

from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.judging.reward import ModelReward, RewardTerm, terms_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.training.functions import decisive_reward
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.ppo.reward import Score, TextScore, WeightedSum, by_text, ensemble_scores
from rlhf_dagster.training.reward.scores import RewardModel, load_reward_model
from rlhf_dagster.training.rewards.python_function import load_reward_function
from rlhf_dagster.training.rewards.terms import Surroundings, text_reward
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.chats.ends import end_id_of


def open_reward_model(spec: PpoSpec, bases: SharedBases) -> RewardModel | None:
    """The reward model that the spec names, where it is used."""
    separate = spec.settings.value == "separate"
    if spec.reward_function is not None and spec.reward is not None:
        raise UserError("reward and reward_function are both given; name the function in `reward` (`kind: function`).")
    if spec.reward_model is not None and not spec.rewarded_by_model and not separate:
        other = "reward_function" if spec.reward_function is not None else "a reward of another kind"
        raise UserError(f"reward_model and {other} are both given, and only one can reward; leave one out.")
    if spec.reward_model is not None:
        return load_reward_model(spec.reward_model, spec.compute, bases)
    if spec.rewarded_by_model or separate:
        use = "`ppo.value: separate` begins as a reward model" if separate else "nothing rewards the policy"
        raise UserError(f"reward_model is not given, but {use}; give one.")
    return None


def score_of(
    spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore | WeightedSum:
    if spec.reward_function is not None:
        return TextScore(tokenizer, load_reward_function(spec.reward_function))
    if spec.reward is None:
        return _model_score(spec, tokenizer, reward_model)
    terms = terms_of(spec.reward)
    scores = [_term_score(term, spec, tokenizer, reward_model) for term in terms]
    return WeightedSum(_names(terms), [term.weight for term in terms], scores)


def _names(terms: list[RewardTerm]) -> list[str]:
    """The kind of each term, numbered where there are several of it."""
    kinds = [term.kind for term in terms]
    numbers = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    return [kind if number == 1 else f"{kind}_{number}" for kind, number in zip(kinds, numbers, strict=True)]


def _term_score(
    term: RewardTerm, spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore:
    if isinstance(term, ModelReward):
        return _model_score(spec, tokenizer, reward_model)
    around = Surroundings(spec.compute, spec.answers or f"{spec.output}.answers", _purpose(spec))
    return TextScore(tokenizer, text_reward(term, around))


def _purpose(spec: PpoSpec) -> str:
    """What a judge's requests are counted for: the same for a training that goes on, another for any other."""
    assert spec.reward is not None  # noqa: S101  # only then is there a judge
    models = [folder.name for folder in (spec.start, spec.reward_model) if folder is not None]
    return f"ppo-{content_hash(spec.seed, models, decisive_reward(spec.reward))}"


def _model_score(
    spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore:
    assert reward_model is not None  # noqa: S101  # checked before
    model = reward_model.model
    if not reads_same_tokens(tokenizer, reward_model.tokenizer):
        return TextScore(tokenizer, by_text(reward_model, spec.sampling))
    return lambda batch: ensemble_scores(model, batch)


def reads_same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    special = [(tokenizer.pad_token_id, end_id_of(tokenizer)) for tokenizer in (one, other)]
    return special[0] == special[1] and one.get_vocab() == other.get_vocab()
