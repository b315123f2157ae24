"""How fast a model generates, from the peak rates of its GPUs: for users, for labels and for PPO."""

from dataclasses import dataclass

from rlhf_dagster.errors import UserError
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term, larger, rounded_up
from rlhf_dagster.planning.devices import Gpu
from rlhf_dagster.planning.people import BILLION, DAY
from rlhf_dagster.planning.question import PlanQuestion
from rlhf_dagster.training.footprint.shape import ModelSizes

ENGINES = (1, 2, 4, 8)
"""GPUs that an engine divides the weights among (tensor parallelism), within a host."""
KILO = Term.of(1000)


def billions(model: ModelSizes) -> Term:
    """A model's parameters, in 10^9."""
    return Term.of(model.parameters / 1e9)


@dataclass(frozen=True)
class Generation:
    """GPU-seconds of one response, its prompt read once for each."""

    prompt: Term
    response: Term
    sheet: Sheet

    def of(self, prompts: Term, responses: Term) -> Term:
        """GPU-seconds of so many prompts and responses."""
        return prompts * self.prompt + responses * self.response


def engine_sheet(question: PlanQuestion, model: ModelSizes) -> Generation:
    """The rate of an engine on the fewest GPUs of which the weights take at most half, or on as many as a host has."""
    fitting = [gpus for gpus in ENGINES if _engine_rows(Sheet(""), question, model, gpus).value >= 1]
    if not fitting:
        raise UserError(
            f"{question.model} in bfloat16 leaves no room for a response on {ENGINES[-1]} GPUs of "
            f"{question.gpu.gib:.0f} GiB; take a larger GPU."
        )
    roomy = [gpus for gpus in fitting if _weights(model).value <= _memory(question, gpus).value / 2]
    sheet = Sheet("Generation")
    rate = _engine(sheet, question, model, roomy[0] if roomy else fitting[-1])
    operations = _operations(sheet, question.gpu)
    reading = sheet.known(constants.READING_PASS) * billions(model)
    prompt = sheet.result("GPU-seconds of a prompt", "s", Term.of(question.prompt_tokens) * reading / operations)
    response = sheet.result("GPU-seconds of a response", "s", Term.of(question.response_tokens) / rate)
    return Generation(prompt, response, sheet)


def serving_sheet(question: PlanQuestion, generation: Generation) -> Sheet:
    """The GPUs that answer the champion's users."""
    sheet = Sheet("Serving the champion")
    prompts = sheet.given("prompts a second", question.prompts_per_second, "/s")
    tokens = Term.of(question.response_tokens)
    sheet.result("tokens a second", "/s", prompts * tokens)
    sheet.result("tokens a day", "billion", prompts * tokens * DAY / BILLION)
    sheet.result("GPUs that serve", "", rounded_up(prompts * (generation.prompt + generation.response)))
    return sheet


def _engine(sheet: Sheet, question: PlanQuestion, model: ModelSizes, gpus: int) -> Term:
    """Tokens a second of each of an engine's GPUs: a step takes as long as its products or as reading its memory."""
    gpu = question.gpu
    rows = _engine_rows(sheet, question, model, gpus)
    operations, count = _operations(sheet, gpu), Term.of(gpus)
    products = sheet.known(constants.READING_PASS) * billions(model) * rows / (operations * count)
    products = sheet.result("seconds of a step's products", "s", products)
    # Half of the responses' tokens are there on average.
    length = Term.of(question.prompt_tokens) + Term.of(question.response_tokens) / Term.of(2)
    read = _weights(model) + rows * length * _cache(model)
    bandwidth = Term.of(gpu.bandwidth) * KILO * count * sheet.known(constants.SERVING_SHARE)
    reading = sheet.result("seconds to read weights and cache", "s", read / bandwidth)
    return sheet.result("tokens a second of a GPU", "/s", rows / larger(products, reading) / count)


def _engine_rows(sheet: Sheet, question: PlanQuestion, model: ModelSizes, gpus: int) -> Term:
    sheet.given("GPUs of an engine", gpus, "", "1, 2, 4 or 8: the first of which weights take at most half")
    sheet.known(constants.USABLE)
    memory = _memory(question, gpus)
    weights = sheet.result("weights", "GB", _weights(model))
    length = Term.of(question.prompt_tokens) + Term.of(question.response_tokens)
    each = sheet.result("cache of a response", "GB", length * _cache(model))
    return sheet.result("responses at once", "", ((memory - weights) / each).called("floor", lambda value: value // 1))


def _memory(question: PlanQuestion, gpus: int) -> Term:
    """GB that are planned with on so many GPUs."""
    of_one = Term.of(question.gpu.gib) * Term.of(constants.GIB)
    return of_one * Term.of(gpus) * Term.of(constants.USABLE.value)


def _weights(model: ModelSizes) -> Term:
    """GB in bfloat16."""
    return billions(model) * Term.of(constants.HALF_BYTES.value)


def _cache(model: ModelSizes) -> Term:
    """GB of one token's keys and values in all layers, in bfloat16."""
    both, shape = Term.of(2), model.shape
    of_bytes = both * Term.of(constants.HALF_BYTES.value) * Term.of(shape.layers) * Term.of(shape.keys)
    return of_bytes / BILLION


def _operations(sheet: Sheet, gpu: Gpu) -> Term:
    """10^9 operations a second of a GPU."""
    return Term.of(gpu.tflops) * KILO * sheet.known(constants.SERVING_SHARE)
