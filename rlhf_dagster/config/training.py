"""Settings of the base model and of each training stage. Importing this imports no torch."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from rlhf_dagster.common.child_processes import is_secret
from rlhf_dagster.config.base import CONSENT, LATER, Settings
from rlhf_dagster.config.schedule import PLAIN, ScheduleSettings

OF_LOOPS: JsonDict = {"of_loops": True}
"""Marks a setting that the stages of a loop read, and a training by itself does not."""


def is_of_loops(field: FieldInfo) -> bool:
    """Whether a setting means nothing outside a loop."""
    return field.json_schema_extra is OF_LOOPS or field.json_schema_extra is CONSENT


class RaySettings(Settings):
    """What a training on Ray (`compute.launch: ray`) asks of the cluster."""

    address: str = ""
    """Address of the cluster's Jobs API, such as `http://ray-head:8265`; empty: that of the environment variable
    RAY_API_SERVER_ADDRESS, else this machine's. Its token is the environment's (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)."""
    per_process: dict[str, float] = Field(default={"CPU": 1.0})
    """Ray resources of each of `compute.processes`, such as `{GPU: 1, CPU: 8}`. Without a GPU they train on CPUs; a
    process has as many threads of PyTorch as CPUs, at most `compute.threads`."""
    fewest_processes: int = Field(0, ge=0)
    """With how many processes a training goes on where the cluster has no room for all; 0: it waits for all."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Ray's placement of the processes: on few nodes, on many, on one, each on another."""
    restarts: int = Field(3, ge=0)
    """How often processes that die are started again within one job, from the last state; a node that is taken away
    with notice is not counted."""
    orphan_seconds: float = Field(600.0, gt=0)
    """A job whose run is gone writes its state and ends after this time, unless the run's next try takes it over."""
    environment: dict[str, str] = Field(default={})
    """Further environment variables of the processes, such as `GLOO_SOCKET_IFNAME`. Everybody who sees Ray's dashboard
    sees them: secrets are those of the nodes' own environment."""

    @field_validator("per_process")
    @classmethod
    def _something_of_each(cls, asked: dict[str, float]) -> dict[str, float]:
        nothing = [name for name, amount in asked.items() if amount <= 0]
        if not asked or nothing:
            raise ValueError("name at least one resource, and more than nothing of each, such as `{CPU: 1}`")
        if asked.get("GPU", 1) != int(asked.get("GPU", 1)):
            raise ValueError("a process has whole GPUs")
        return asked

    @field_validator("environment")
    @classmethod
    def _no_secret(cls, given: dict[str, str]) -> dict[str, str]:
        secret = [name for name, value in given.items() if is_secret(name, value)]
        if secret:
            raise ValueError(
                f"the variable {secret[0]} looks like a secret, and Ray's dashboard shows these; put it into the "
                "environment of Ray's nodes"
            )
        return given


THIS_CLUSTER = RaySettings()


class ComputeSettings(Settings):
    """What a training or sampling stage runs on."""

    threads: int = Field(2, ge=1)
    """Most CPU threads that PyTorch may use; OMP_NUM_THREADS lowers it further."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a CUDA device where there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` multiplies matrices in bfloat16 (autocast), and holds weights that are only read in it; trained weights,
    losses and log-probabilities stay in float32."""
    trained_weights: Literal["fp32", "bf16"] = Field("fp32", json_schema_extra=LATER)
    """`bf16` (with `precision: bf16`) also holds trained weights in bfloat16: half their memory. Updates are rounded
    stochastically, so that steps smaller than a weight's last digit count on average. Vectors, heads and adapters are
    small and stay in float32; so is the checkpoint."""
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", json_schema_extra=LATER)
    """`adamw_8bit` keeps Adam's two moments in eight bits each (Dettmers et al. 2022), a quarter of their memory; those
    of tensors with fewer than 4,096 numbers stay in float32. It needs the extra `quantised`."""
    gradient_checkpointing: bool = Field(False, json_schema_extra=LATER)
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more work."""
    logits_mib: int = Field(256, ge=1, json_schema_extra=LATER)
    """Most MiB of logits, in float32, that are computed at once; what has more positions is done in pieces. Sampling
    needs those of one token of each row."""
    launch: Literal["in_process", "process", "ray"] = "in_process"
    """Where training runs: in the process of the Dagster run; in a child process in a group of its own, which leaves
    nothing behind on a device, ends after a checkpoint when its run is cancelled, and cannot take the run with it; or
    as a job of a Ray cluster (`pip install 'rlhf-dagster[ray]'`)."""
    processes: int = Field(1, ge=1)
    """Training processes (`launch: process` or `ray`), under `torchrun` or Ray Train where there are several; each
    takes one GPU. Batch sizes are those of all processes together."""
    ray: RaySettings = Field(THIS_CLUSTER, json_schema_extra=LATER)
    """What `launch: ray` asks of the cluster."""
    sharding: Literal["none", "full", "auto"] = Field("none", json_schema_extra=LATER)
    """How several `processes` hold a training's models: `none`, whole on each; `full`, in parts, one on each (FSDP2),
    with gradients, optimiser, reference and reward model; `auto`, in parts where whole ones do not fit into memory.
    Weights are whole on all processes while responses are sampled."""
    checkpoint_seconds: float = Field(120.0, ge=0)
    """Seconds between the states from which a retry goes on; 0 writes one after every step."""
    grace_seconds: float = Field(60.0, gt=0)
    """Seconds that a child has to write its state when its run is cancelled, before it is killed."""
    retries: int = Field(2, ge=0)
    """How often a training whose process died is taken up again by itself, from its last state."""
    trackers: list[Literal["wandb", "mlflow"]] = Field([])
    """Where metrics go beside the loop's `logs/`, in a project of the loop's name. Keys and addresses are those of the
    environment, such as WANDB_API_KEY or MLFLOW_TRACKING_URI."""
    pass_variables: list[str] = Field([], json_schema_extra=LATER)
    """Environment variables that a training in a child process is given although they look like secrets, such as the
    key of a service that your own reward function asks. It has all others that do not look so."""
    rollout_backend: Literal["native", "transformers", "vllm", "vllm_server"] = "native"
    """What draws responses, in PPO, for labels and in evaluation: this package, continuous batching of transformers,
    vLLM in the same process (`pip install 'rlhf-dagster[vllm]'`), or a vLLM server, whose weights are then those of the
    policy. The distribution is the same, the random numbers are not."""
    rollout_server: str = Field("", pattern=r"^$|^https?://[^\s@?#]+$", json_schema_extra=LATER)
    """Address of the server of `rollout_backend: vllm_server`, such as http://127.0.0.1:8000. It serves nothing else
    meanwhile."""

    @model_validator(mode="after")
    def _several_in_processes_of_their_own(self) -> Self:
        if self.processes > 1 and self.launch == "in_process":
            raise ValueError(f"compute.processes is {self.processes}, which needs `compute.launch: process` or `ray`")
        return self

    @model_validator(mode="after")
    def _ray_has_what_is_asked(self) -> Self:
        fewest = self.ray.fewest_processes
        if fewest > self.processes:
            raise ValueError(
                f"compute.ray.fewest_processes is {fewest} and compute.processes {self.processes}; lower the first"
            )
        if self.launch == "ray" and self.device == "cuda" and "GPU" not in self.ray.per_process:
            raise ValueError(
                "`compute.device: cuda` on Ray needs a GPU in compute.ray.per_process, such as `{GPU: 1, CPU: 8}`"
            )
        return self

    @model_validator(mode="after")
    def _shards_what_can_be(self) -> Self:
        if self.sharding == "full" and (needed := self.needed_to_shard()):
            raise ValueError(f"`compute.sharding: full` needs {needed}; set that, or compute.sharding to none")
        return self

    @model_validator(mode="after")
    def _narrow_weights_in_narrow_products(self) -> Self:
        if self.trained_weights == "bf16" and self.precision != "bf16":
            raise ValueError("`compute.trained_weights: bf16` needs `compute.precision: bf16`; set both, or neither")
        return self

    @model_validator(mode="after")
    def _backend_can(self) -> Self:
        if self.processes > 1 and self.rollout_backend == "vllm":
            raise ValueError("`compute.rollout_backend: vllm` samples for one process; set compute.processes to 1")
        if (self.rollout_backend == "vllm_server") != bool(self.rollout_server):
            raise ValueError(
                "`compute.rollout_backend: vllm_server` and compute.rollout_server need each other; set both"
            )
        if self.precision == "bf16" and self.rollout_backend == "transformers":
            raise ValueError("`compute.rollout_backend: transformers` samples in fp32; set compute.precision to it")
        return self

    def needed_to_shard(self) -> str:
        """The setting without which models are not held in parts; empty where they can be."""
        if self.processes == 1:
            return "compute.processes above 1"
        others = {"optimizer": "adamw", "trained_weights": "fp32", "rollout_backend": "native"}
        return next(
            (f"`compute.{name}: {value}`" for name, value in others.items() if getattr(self, name) != value), ""
        )


class TinyModelSettings(Settings):
    """A GPT-2 shape that is made and pretrained on the spot."""

    tokenizer: Literal["word", "bpe"] = "word"
    """`word` keeps every word of the text (small closed vocabularies); `bpe` learns byte-level pieces."""
    vocabulary: int = Field(1024, ge=32)
    """Largest number of tokens (the `word` tokenizer stops earlier when the text has fewer words)."""
    layers: int = Field(2, ge=1)
    width: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    context: int = Field(64, ge=8)
    """Longest sequence, in tokens."""
    steps: int = Field(1200, ge=1)
    """Optimiser steps of pretraining."""
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(4e-3, gt=0)
    chat: bool = Field(False, json_schema_extra=LATER)
    """Whether the tokenizer gets a chat template, with control tokens of its own for the turns (`sft.chat: true` has
    prompts read in it). The model meets them in SFT; pretraining text is text."""
    seed: int = 0
    """Seed of the base model alone, so that loops with different seeds share one cached base model."""


class BaseModelSettings(Settings):
    """Where the pretrained model comes from."""

    source: Literal["tiny", "hub", "folder"] = "tiny"
    name: str = ""
    """Hub id (`source: hub`), or path, relative to the config (`source: folder`)."""
    revision: str = ""
    """Hub revision; pin a commit so that the same name stays the same model."""
    tiny: TinyModelSettings = TinyModelSettings()


class SamplingSettings(Settings):
    """How a policy is sampled, everywhere: for comparisons, in PPO and in evaluation."""

    temperature: float = Field(1.0, gt=0)
    """Logits are divided by it in sampling and in every log-probability."""
    prompt_tokens: int = Field(32, ge=1)
    """Prompts are cut on the left to this many tokens."""
    response_tokens: int = Field(24, ge=1)
    """Longest response, in tokens."""
    fixed_length: bool = True
    """Every response has exactly `response_tokens` tokens: the end-of-text token cannot be drawn (Ziegler et al. 2019).
    When false, a response ends at the end-of-text token."""
    batch_size: int = Field(256, ge=1)
    """Prompts sampled at once."""


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al. 2021) in place of training all weights."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    """The adapters' output is scaled by alpha / rank."""
    targets: list[str] | None = None
    """Names of the linear layers that get an adapter, such as `q_proj`; null: all but the output head."""
    merge: bool = Field(True, json_schema_extra=LATER)
    """Whether the checkpoint has the adapters added into its weights. When false it holds adapters alone, beside the
    base model that they belong to; policy, reference, reward model and value of PPO then share that one base."""
    base_bits: Literal[4, 8] | None = Field(None, json_schema_extra=LATER)
    """Bits of each frozen weight under the adapters (Dettmers et al. 2023; the extra `quantised`), with `merge: false`;
    null keeps the precision."""

    @model_validator(mode="after")
    def _codes_stay(self) -> Self:
        if self.base_bits is not None and self.merge:
            raise ValueError(
                f"`base_bits: {self.base_bits}` needs `merge: false`: adapters cannot be added into weights of "
                f"{self.base_bits} bits"
            )
        return self


class SftSettings(Settings):
    """Supervised fine-tuning on demonstrations."""

    epochs: float = Field(2.0, ge=0)
    """With 0 nothing is trained: the checkpoint is the base model as it is, and policies start from it (Ziegler et al.
    2019, style tasks). Demonstrations then serve to measure its loss."""
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    schedule: ScheduleSettings = Field(PLAIN, json_schema_extra=LATER)
    max_tokens: int = Field(64, ge=2)
    """Prompt and response together are cut to this many tokens."""
    weight_decay: float = Field(0.0, ge=0)
    length_buckets: bool = False
    """Batches of demonstrations of similar length: less padding, in another order than a plain shuffle."""
    accumulate: int = Field(1, ge=1)
    """Backward passes into which each batch is split, to save memory; the gradient stays that of the batch."""
    packing: bool = False
    """Put several short demonstrations of a batch into one row of at most `max_tokens`, each reading itself alone. The
    loss is the same; the more lengths differ, the more padding it saves."""
    chat: bool = False
    """Prompts become a user's turn in the tokenizer's chat template, followed by the opening of the assistant's, here
    and wherever a checkpoint made from this one reads a prompt. They are shortened so that turn and template fit."""
    special_tokens_in_text: bool = Field(False, json_schema_extra=LATER)
    """Whether special tokens that are written in a prompt, a response or a demonstration, such as `<|im_end|>`, are
    these tokens, here and wherever a checkpoint made from this one reads a text. When false they are plain text, and
    nobody who writes them ends a document or opens a turn."""
    lora: LoraSettings | None = None
    """Train adapters, merged into the checkpoint; null trains all weights."""


class RewardModelSettings(Settings):
    """Training the reward model on preference labels."""

    epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(32, ge=1)
    """Comparisons in a batch; all responses of a comparison are scored in the same forward pass."""
    learning_rate: float = Field(2e-3, gt=0)
    schedule: ScheduleSettings = Field(PLAIN, json_schema_extra=LATER)
    adam_epsilon: float = Field(1e-5, gt=0)
    max_tokens: int = Field(64, ge=2)
    """Prompt and response together are cut to this many tokens, in training and whenever the model scores. A sampled
    response must fit, with its end-of-text token."""
    normalisation: Literal["samples", "demonstrations"] = Field("samples", json_schema_extra=LATER)
    """What fixes the scale of scores. `samples`: mean 0 and deviation 1 on samples of the reference policy, before and
    after training (Ziegler et al. 2019). `demonstrations`: after training, mean 0 on responses of demonstrations; their
    deviation stays what the labels have taught (InstructGPT, section 3.5)."""
    normalisation_samples: int = Field(256, ge=8)
    """How many samples of the reference policy, or at most how many demonstrations, `normalisation` is done on."""
    ranking: Literal["plackett_luce", "pairs"] = "plackett_luce"
    """What a ranking is: the best of all, the best of the rest, and so on, or all its pairs, which share its weight
    (InstructGPT)."""
    rating: Literal["ranks", "regression", "differences"] = "ranks"
    """What is learned from ratings: the ranking that they give, the standardised numbers themselves (squared error), or
    their differences within a comparison. Numbers need labels with `ratings`."""
    ties: Literal["share", "davidson", "rao_kupper"] = "share"
    """`share`: a tie's responses share the target. `davidson`: ties are outcomes of their own, as frequent as they turn
    out to be (Davidson-Luce, for any number of responses). `rao_kupper`: the same for pairs, where one response is only
    called better if it leads by a threshold, which is learned; larger choices share the target."""
    margin: float = Field(0.0, ge=0)
    """By how much the score of a response that is much better (strength 1) must lead; less in proportion to strength.
    Labels without a strength have no margin."""
    soft_targets: bool = False
    """The target of the better response is 1/2 + strength/2 instead of 1, where a label has a strength."""
    heads: int = Field(1, ge=1)
    """Linear heads on one trunk, each trained with its own random weights of the comparisons (Bayesian bootstrap). The
    score is their mean; their deviation says how uncertain it is."""
    accumulate: int = Field(1, ge=1)
    """Backward passes into which each batch is split, to save memory; the gradient stays that of the batch."""
    lora: LoraSettings | None = None
    """Train low-rank adapters and the head in place of all weights; null trains all."""
    accept_chance: bool = Field(False, json_schema_extra=CONSENT)
    """Go on to PPO also with a reward model that is not known to be better than chance: on labels that it never saw,
    the lower end of its accuracy's 95% interval is not above chance and above picking by length."""

    @model_validator(mode="after")
    def _strength_counts_once(self) -> Self:
        if self.margin and self.soft_targets:
            raise ValueError("`margin` and `soft_targets` are two uses of the same strength; choose one")
        return self


class PpoSettings(Settings):
    """Optimising a policy against a reward by proximal policy optimisation."""

    section: ClassVar[str] = "ppo"
    """What `loop.yaml` calls these settings."""

    start: Literal["sft", "behaviour"] = Field("behaviour", json_schema_extra=OF_LOOPS)
    """Where a round's policy starts: the SFT checkpoint again, as InstructGPT's do, or the policy that the round
    sampled from, so that training goes on (Ziegler et al. 2019, online data), with its value head and the adaptive KL
    coefficient it had reached, where it has them. The KL reference is SFT either way."""
    updates: int = Field(90, ge=1)
    batch_size: int = Field(64, ge=8)
    """Episodes sampled for an update."""
    minibatches: int = Field(2, ge=1)
    epochs: int = Field(2, ge=1)
    """Passes over the episodes of an update."""
    learning_rate: float = Field(3e-4, gt=0)
    schedule: ScheduleSettings = Field(PLAIN, json_schema_extra=LATER)
    adam_epsilon: float = Field(1e-5, gt=0)
    clip_range: float = Field(0.2, gt=0)
    value_clip_range: float = Field(0.2, gt=0)
    value_coef: float = Field(0.1, ge=0)
    gamma: float = Field(1.0, gt=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    whiten_rewards: bool = True
    """Scale rewards to deviation 1, keeping their mean."""
    kl_coef: float = Field(0.1, ge=0)
    """Initial weight of the per-token KL reward against the SFT policy. With `start: behaviour` and a `kl_target`, only
    a policy whose start has none takes it from here, as in the first round; others go on from their start's."""
    kl_target: float | None = Field(7.0, gt=0)
    """Nats per sequence that the adaptive controller steers to; null keeps `kl_coef` fixed."""
    kl_horizon: int = Field(1_500, ge=1)
    """Episodes over which the controller corrects an error of 100%."""
    pretraining_coef: float = Field(0.0, ge=0)
    """Weight of the language-modelling loss on pretraining text mixed into each update (PPO-ptx, InstructGPT)."""
    pretraining_examples: int = Field(1, ge=1, json_schema_extra=LATER)
    """Windows of pretraining text for each episode (InstructGPT: 8). They are read in turns, so that more take more
    time and no more memory."""
    missing_end_penalty: float | None = None
    """Score that replaces the reward model's for a response without end-of-text; null switches the rule off."""
    max_grad_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1, json_schema_extra=LATER)
    """The checkpoint holds the exponential moving average of all trained weights (of adapters, of their two factors),
    which after each update becomes this times itself plus the rest of the new weights; validation measures it too.
    InstructGPT: 0.992. Null: the weights themselves."""
    value: Literal["shared", "separate"] = "shared"
    """`shared`: a value head on the policy's trunk (Ziegler et al. 2019). `separate`: a value model of its own, which
    begins as the reward model (InstructGPT, appendix C.4). Estimators other than `gae` have no values."""
    lora: LoraSettings | None = None
    """Train adapters, of the policy and of a separate value model, in place of all weights. A policy that starts from
    SFT is then its own KL reference, with its adapters switched off; any other start needs a copy of SFT."""
    frozen_layers: int = Field(0, ge=0)
    """The lowest layers, with the embeddings, that are not trained: policy and reference share them, and an update
    computes them once for the reference and all its passes."""
    advantages: Literal["gae", "rloo", "group"] = "gae"
    """`gae`: by values. `rloo`: reward minus the mean reward of the prompt's other responses (Ahmadian et al. 2024).
    `group`: rewards of a prompt's responses scaled to mean 0 and deviation 1 (Shao et al. 2024); whatever scales all
    rewards, such as `whiten_rewards`, then changes nothing."""
    samples_per_prompt: int = Field(1, ge=1)
    """Responses to each prompt of an update; `batch_size` counts all of them."""
    kl_penalty: Literal["reward", "k1", "k2", "k3"] = "reward"
    """Where the KL to SFT enters: `reward`, as k1 in the reward of each token, or as a term of the loss by one of
    Schulman's estimators. k1 (weighted by the probability ratio) and k2 have the gradient of KL(policy, SFT), k3 that
    of KL(SFT, policy)."""
    spread_coef: float = Field(0.0, ge=0)
    """With an ensemble as reward model, the reward is the mean of its scores minus this times their deviation."""
    truncate_token: str | None = None
    """Text of a token that ends a response, such as `.` or a line break; the rest is not scored."""
    truncate_after: int = Field(0, ge=0)
    """Tokens at the beginning of a response among which `truncate_token` is passed over."""
    truncated_rest: Literal["masked", "trained"] = "masked"
    """Tokens after `truncate_token`: `masked` takes them out of the episode (Huang et al. 2024), `trained` trains on
    them, with the score at the last (Ziegler et al. 2019)."""
    missing_end: Literal["replace", "subtract"] = "replace"
    """Whether `missing_end_penalty` takes the score's place or is subtracted from it."""
    accumulate: int = Field(1, ge=1)
    """Backward passes into which each minibatch is split, to save memory; the gradient stays that of the minibatch."""
    validate_every: int | None = Field(None, ge=1)
    """Updates between measurements of score, KL and length on held-out prompts (split `validation`); null: never."""
    validation_prompts: int = Field(256, ge=1)
    """Most held-out prompts that are answered in each."""
    kl_budget: float | None = Field(None, gt=0)
    """Keep the weights with the best held-out score among those with at most this KL to SFT, in nats per sequence;
    null keeps the last. Needs `validate_every`."""
    patience: int | None = Field(3, ge=1)
    """Training ends where the held-out score has fallen in as many measurements in a row while the training reward
    rose; null: never for that reason."""
    spread_limit: float | None = Field(None, gt=0)
    """Training ends where an ensemble's held-out deviation is above this. Needs `validate_every`."""
    importance_cap: float = Field(2.0, ge=1)
    """Largest weight of a token in the loss where another program samples (`compute.rollout_backend`): its probability
    under the policy over that with which it was sampled, cut here (truncated importance sampling, Yao et al. 2025)."""
    rollouts_ahead: int = Field(0, ge=0, le=1, json_schema_extra=LATER)
    """With 0, each update's responses are drawn from the policy as it is. With 1, those of the next update are drawn,
    from the policy as it is before an update, while that update trains, so that a sampler in another process does not
    wait for the trainer. Each update then learns from responses of the policy that was there one update before; its
    probability ratios, and their clipping, are to that policy (one-step off-policy training, Noukhovitch et al. 2024).
    A sampler in the trainer's own process draws first, in the same order and with the same numbers."""

    @model_validator(mode="after")
    def _estimator_has_what_it_needs(self) -> Self:
        if self.batch_size % self.samples_per_prompt:
            raise ValueError(
                f"{self.section}.batch_size {self.batch_size} is not a multiple of {self.section}.samples_per_prompt "
                f"{self.samples_per_prompt}; change one of the two"
            )
        if self.advantages == "gae":
            return self
        named = f"`{self.section}.advantages: {self.advantages}`"
        if self.samples_per_prompt == 1:
            raise ValueError(f"{named} compares responses; set {self.section}.samples_per_prompt to 2")
        if self.value == "separate" or self.gamma != 1:
            wrong = "value: separate" if self.value == "separate" else f"gamma: {self.gamma:g}"
            raise ValueError(f"{named} has no values and no use for `{wrong}`; remove it")
        return self

    @model_validator(mode="after")
    def _options_are_used(self) -> Self:
        needs = {
            "truncate_after": (self.truncate_after > 0, "truncate_token"),
            "truncated_rest: trained": (self.truncated_rest == "trained", "truncate_token"),
            "missing_end: subtract": (self.missing_end == "subtract", "missing_end_penalty"),
            "kl_budget": (self.kl_budget is not None, "validate_every"),
            "spread_limit": (self.spread_limit is not None, "validate_every"),
            "pretraining_examples": (self.pretraining_examples > 1, "pretraining_coef"),
        }
        for option, (is_set, needed) in needs.items():
            if is_set and getattr(self, needed) in (None, 0):
                raise ValueError(f"`{self.section}.{option}` needs {self.section}.{needed}; set it too")
        if self.lora is not None and self.frozen_layers:
            raise ValueError(
                f"{self.section}.lora and {self.section}.frozen_layers are two ways to train less; choose one"
            )
        if misfit := self.schedule.misfit(self.updates, self.section):
            raise ValueError(misfit)
        return self


class DpoSettings(Settings):
    """Optimising a policy on preference labels directly, without a reward model."""

    loss: Literal["dpo", "ipo", "kto"] = "dpo"
    """`dpo` (Rafailov et al. 2023); `ipo` (Azar et al. 2023), whose log-ratios stay finite on labels that agree; or
    `kto` (Ethayarajh et al. 2024), which learns from single responses that people liked or did not: those imported by
    `rlhf import feedback`, and the better and the worse response of every pair that labels compare, ties left out."""
    beta: float = Field(0.1, gt=0)
    """Weight of the KL to the SFT policy: the larger, the nearer the policy stays."""
    desirable_weight: float | None = Field(None, gt=0, json_schema_extra=LATER)
    """With `kto`, the weight of responses that were liked; null: so much that both kinds have the same weight in all
    (the paper: 1 to 4/3 of the other kind's)."""
    undesirable_weight: float = Field(1.0, gt=0, json_schema_extra=LATER)
    """With `kto`, the weight of responses that were not liked."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a label is wrong (conservative DPO)."""
    epochs: float = Field(3.0, gt=0)
    batch_size: int = Field(64, ge=1)
    """Comparisons in a batch, whose responses are all read in the same forward pass; with `kto`, judged responses."""
    learning_rate: float = Field(1e-3, gt=0)
    schedule: ScheduleSettings = Field(PLAIN, json_schema_extra=LATER)
    adam_epsilon: float = Field(1e-5, gt=0)
    max_grad_norm: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    """Backward passes into which each batch is split, to save memory; the gradient stays that of the batch."""
    lora: LoraSettings | None = None
    """Train adapters, merged into the checkpoint; null trains all weights."""
