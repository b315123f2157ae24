"""What a round makes and keeps, and the machine hours it takes."""

from rlhf_dagster.config.arms import PPO
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term, rounded_up
from rlhf_dagster.planning.engines import KILO, Generation, billions
from rlhf_dagster.planning.people import BILLION, HOUR, ONE
from rlhf_dagster.planning.question import PlanQuestion
from rlhf_dagster.planning.training import Sharded
from rlhf_dagster.training.footprint.shape import ModelSizes

REWARD_MODEL_TITLE = "Reward model"
"""The title of its training."""


def round_sheet(
    question: PlanQuestion,
    config: LoopConfig,
    model: ModelSizes,
    trainings: dict[str, Sharded],
    generation: Generation,
    comparisons_a_day: float,
) -> Sheet:
    """The hours of a first round's machines: sampling, reward model and PPO, each on the GPUs that its training takes.

    Later reward models learn from all labels so far, and take longer in proportion.
    """
    sheet = Sheet("A round")
    days = sheet.given("days of a round", question.round_days, "d")
    labels = sheet.result("labels of a round", "", Term.of(question.labels_per_day) * days)
    comparisons = sheet.result("comparisons of a round", "", Term.of(comparisons_a_day) * days)
    compared = Term.of(config.labeling.responses)
    sampled = generation.of(comparisons, comparisons * compared) / HOUR
    sampling = sheet.result("GPU-hours to sample them", "h", sampled)
    length = sheet.result(
        "tokens of an example", "", Term.of(question.prompt_tokens) + Term.of(question.response_tokens)
    )
    reward = _reward_hours(sheet, question, config, model, labels * compared * length)
    ppo = _ppo_hours(sheet, question, config, model, generation, length)
    of_ppo = Term.of(trainings[PPO.title].gpus)
    hours = sampling / of_ppo + reward / Term.of(trainings[REWARD_MODEL_TITLE].gpus) + ppo / of_ppo
    sheet.result("hours of a round's machines", "h", hours + _moved(sheet, config, model))
    whole = sheet.result("GPU-hours of a round", "h", sampling + reward + ppo)
    sheet.result("GPUs that do them in a day", "", rounded_up(whole / Term.of(24)))
    return sheet


def storage_sheet(
    question: PlanQuestion, config: LoopConfig, model: ModelSizes, trained: float, comparisons_a_day: float
) -> Sheet:
    """What a round leaves in the store. ``trained`` are the parameters of the policy and value that are trained."""
    sheet = Sheet("Storage")
    days = Term.of(question.round_days)
    completions = Term.of(comparisons_a_day) * days * Term.of(config.labeling.responses)
    tokens = Term.of(question.response_tokens) * sheet.known(constants.TOKEN_BYTES)
    each = sheet.known(constants.COMPLETION_BYTES) + tokens
    tables = sheet.result("completions of a round", "GB", completions * each / BILLION)
    written = sheet.known(constants.FULL_BYTES)
    kept = model.parameters if not config.ppo.lora else model.adapter_parameters(config.ppo.lora)
    models = sheet.result("reward model and policy of a round", "GB", Term.of(2) * Term.of(kept / 1e9) * written)
    sheet.result("a round", "GB", tables + models)
    sheet.result("a year, if all models are kept", "GB", (tables + models) * Term.of(365) / days)
    state = sheet.known(constants.STATE_BYTES)
    sheet.result("a state of PPO, while it trains", "GB", Term.of(trained / 1e9) * state)
    return sheet


def _reward_hours(sheet: Sheet, question: PlanQuestion, config: LoopConfig, model: ModelSizes, tokens: Term) -> Term:
    tokens = sheet.result("tokens of a reward model's pass", "", tokens)
    passes = sheet.given("passes", config.reward_model.epochs, "", "reward_model.epochs")
    operations = _trained(sheet, adapters=config.reward_model.lora is not None) * billions(model)
    return sheet.result(
        "GPU-hours of the reward model", "h", passes * tokens * operations / _rate(sheet, question) / HOUR
    )


def _ppo_hours(
    sheet: Sheet, question: PlanQuestion, config: LoopConfig, model: ModelSizes, generation: Generation, length: Term
) -> Term:
    ppo = config.ppo
    updates = sheet.given("updates of PPO", ppo.updates, "", "ppo.updates")
    episodes = sheet.given("episodes of an update", ppo.batch_size, "", "ppo.batch_size")
    passes = sheet.given("passes over them", ppo.epochs, "", "ppo.epochs")
    values = Term.of(1 if ppo.value == "separate" else 0)
    read = (Term.of(3) + values) * sheet.known(constants.READING_PASS)
    trained = (ONE + values) * passes * _trained(sheet, adapters=ppo.lora is not None)
    operations = sheet.result("operations of an episode, by parameter and token", "", read + trained)
    seconds = length * billions(model) * operations / _rate(sheet, question)
    learned = sheet.result("GPU-seconds to learn from an episode", "s", seconds)
    drawn = generation.prompt + generation.response
    return sheet.result("GPU-hours of PPO", "h", updates * episodes * (drawn + learned) / HOUR)


def _moved(sheet: Sheet, config: LoopConfig, model: ModelSizes) -> Term:
    """Hours in which new weights go to the engines, one host's network at a time."""
    moved = model.parameters if not config.ppo.lora else model.adapter_parameters(config.ppo.lora)
    weights = Term.of(moved / 1e9) * Term.of(constants.HALF_BYTES.value)
    seconds = sheet.result("seconds to bring new weights to engines", "s", weights / sheet.known(constants.NETWORK))
    return Term.of(config.ppo.updates) * seconds / HOUR


def _trained(sheet: Sheet, adapters: bool) -> Term:
    """Operations for a parameter and a token that is learned from, activations computed again."""
    return sheet.known(constants.ADAPTER_PASS if adapters else constants.TRAINING_PASS) + sheet.known(
        constants.RECOMPUTATION
    )


def _rate(sheet: Sheet, question: PlanQuestion) -> Term:
    """10^9 operations a second of a GPU that trains."""
    return Term.of(question.gpu.tflops) * KILO * sheet.known(constants.TRAINING_SHARE)
