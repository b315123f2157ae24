"""Settings of language models that judge texts: as a reward, or as an annotator."""

from pydantic import Field, field_validator

from rlhf_dagster.config.base import Settings
from rlhf_dagster.records.machines import machine_name

VARIABLE = r"^[A-Z][A-Z0-9_]*$"
"""Names of environment variables."""
COMPARING_INSTRUCTIONS = (
    "You compare responses to a prompt. Better responses do what the prompt asks, are correct, clear and harmless, and "
    "are no longer than they need to be. The order in which they are shown means nothing."
)


class JudgeService(Settings):
    """How the server of a judge is asked, and how often at most. None of this decides what the judge says."""

    url_variable: str = Field("RLHF_JUDGE_URL", pattern=VARIABLE)
    """Environment variable with the server's address up to `/chat/completions`, such as `http://127.0.0.1:8000/v1`."""
    key_variable: str = Field("RLHF_JUDGE_KEY", pattern=VARIABLE)
    """Environment variable with the key, sent as bearer token and never stored; a server without keys needs none."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for the next byte of an answer; a whole answer may take twice as long."""
    retries: int = Field(8, ge=0)
    """How often a request is sent again where the server is away, fails (status 5xx) or asks to wait (429)."""
    longest_wait: float = Field(120.0, gt=0)
    """Most seconds before a request is sent again. The first wait is one second, each next one twice as long; a server
    that says how long (`Retry-After`) is obeyed, and not asked again where it says more than this."""
    at_once: int = Field(8, ge=1)
    """Requests under way at the same time, of all processes together."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Most requests that are sent in a minute, by all processes together; null sets no limit."""
    max_requests: int = Field(10_000, ge=1)
    """Budget: the most requests that one training, or the labels of one round, may make. Answers are kept and count
    once, however often the work is stopped and taken up again; requests that the server turns away are free."""


class JudgeSettings(Settings):
    """A language model behind an OpenAI-compatible address that judges texts."""

    model: str = Field(min_length=1)
    """Name of the model, as the server knows it."""
    parameters: dict[str, float | int | str | bool] = Field({"temperature": 0, "max_tokens": 256})
    """Further fields of each request, such as `seed`, or `max_completion_tokens` in place of `max_tokens`."""
    tries: int = Field(3, ge=1)
    """How often the judge is asked for an answer that can be read, each time told what was wrong with the last."""
    service: JudgeService = JudgeService()

    @field_validator("parameters")
    @classmethod
    def _leave_the_question_alone(cls, parameters: dict[str, float | int | str | bool]) -> dict[str, object]:
        taken = sorted({"model", "messages", "stream", "n"} & parameters.keys())
        if taken:
            raise ValueError(f"`{taken[0]}` is set by the loop; leave it out")
        return dict(parameters)


class MachineAnnotator(JudgeSettings):
    """A language model that labels comparisons as an annotator of its own (RLAIF: Bai et al. 2022; Lee et al. 2023).

    Its name begins with `machine:` wherever it is shown, and it is never counted among people.
    """

    name: str = Field("judge", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What stands after `machine:`."""
    instructions: str = Field(COMPARING_INSTRUCTIONS, min_length=1)
    """What the judge is told to look for; the form of its answer is added."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of a round's comparisons that it judges, drawn by a hash."""
    both_orders: bool = True
    """Ask about each comparison twice, the second time with the responses in the opposite order, and take the mean of
    the two answers: a preference for what stands first becomes a tie."""
    instead_of_people: bool = False
    """Whether nobody else is asked about the comparisons that it judges. Those that only measure annotators (gold
    questions, repeats, drift) are asked of people all the same."""
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of its labels in training, where a person's is 1; 0 only compares it with people."""

    @property
    def annotator(self) -> str:
        """Who it is in the tables of labels."""
        return machine_name(self.name)
