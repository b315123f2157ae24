"""Commands of `rlhf`, each a thin call of a plain function."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_dagster.cli import loops
from rlhf_dagster.cli.which_loop import FolderArgument, LoopOption, LoopTyper
from rlhf_dagster.common.processes import user_name
from rlhf_dagster.errors import UserError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

app = LoopTyper(
    help="Reinforcement learning from human feedback as a Dagster asset graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
round_app = LoopTyper(help="Open a labelling round, or see where the rounds stand.", no_args_is_help=True)
app.add_typer(round_app, name="round")
label_studio_app = LoopTyper(help="A Label Studio server for a loop, on this machine.", no_args_is_help=True)
app.add_typer(label_studio_app, name="label-studio")
ledger_app = typer.Typer(help="Where a loop keeps its comparisons and annotations.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    rounds: Annotated[int, typer.Option(help="Labelling rounds to run.")] = 2,
    seed: Annotated[int, typer.Option(help="Everything random derives from it.")] = 0,
    task: Annotated[
        str,
        typer.Option(
            help="sentiment (where nothing else is said), descriptive, summaries, summaries_articles, helpful, one of "
            "an installed package, or one of your own as file.py:NAME."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on an embedded task, through Dagster. Stopped and run again, it goes on where it was."""
    from rlhf_dagster.cli.demo import run_demo

    summary = run_demo(out, rounds, seed, quiet=as_json, task=task)
    if as_json:
        print(json.dumps(summary, indent=1))


@app.command()
def replicate(
    claims: Annotated[
        list[str] | None, typer.Argument(help="Such as C1 C6; all of them by default (see --list).")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="Hours and several seeds, or about an hour on two cores.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(help="How many seeds; default: 1, with --full 5.")] = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Seeds from 100 on, on which settings may be chosen; the page says so.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("replication"),
    jobs: Annotated[int | None, typer.Option(help="Processes side by side; default: one for each core.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the claims.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run and what it costs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the papers' claims as experiments and say which of them hold here. Stopped and run again, it goes on."""
    from rlhf_dagster.cli.replication import command
    from rlhf_dagster.replication.base import Size

    found: list[dict[str, Any]] | dict[str, Any] | None
    if list_only:
        found = command.list_claims(quiet=as_json)
    else:
        size: Size = "full" if full else "quick"
        how = command.HowToRun(jobs, dry_run, quiet=as_json)
        found = command.run_replication(claims or [], size, command.seeds_of(size, seeds, pilot), out, how)
    if as_json and found is not None:
        print(json.dumps(found, indent=1))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A file or folder of prompts, demonstrations, judgments or feedback, as its rows show, or gold=FILE; "
            "may be repeated."
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(help="`task` (the embedded task) or `imports` (your own files, which a --model has by default)."),
    ] = "",
    model: Annotated[
        str, typer.Option(help="A pretrained model, a Hub id or a folder: settings that fit it and this machine.")
    ] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Read prompts in the model's chat template.")] = False,
    task: Annotated[
        str, typer.Option(help="The task to learn, with its settings for a tiny model (see `rlhf demo --task`).")
    ] = "",
    annotators: Annotated[
        str,
        typer.Option(help="Who labels: simulated, page (you, by `rlhf label`), label_studio, or a server's address."),
    ] = "",
    all_settings: Annotated[
        bool, typer.Option("--all-settings", help="Write every setting down, those that are as usual as comments.")
    ] = False,
) -> None:
    """Make a loop: its loop.yaml and its data, looked at before anything is trained. Asks where no option is given."""
    from rlhf_dagster.cli.start import new_loop
    from rlhf_dagster.cli.start.init import init_loop

    if not any((data, source, model, chat, task, annotators)) and new_loop.can_ask():
        asked = new_loop.ask(lambda question, usual: str(typer.prompt(question, usual)), print)
    else:
        asked = new_loop.of_options(data or [], source, model, chat, task, annotators)
    init_loop(folder, asked, all_settings)


@app.command()
def ui(
    loop: LoopOption,
    port: Annotated[int, typer.Option(help="Port of the web server on this machine.")] = 3000,
) -> None:
    """Open the Dagster UI on a loop (web server and daemon, until Ctrl-C)."""
    from rlhf_dagster.cli.ui import serve

    serve(loop, port)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="prompts, demonstrations, judgments, feedback or gold")],
    loop: LoopOption,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines, JSON, CSV, TSV, Parquet or Arrow, packed or not, or a folder of these; for judgments, "
            "none takes `data.judgments_dataset`."
        ),
    ] = None,
    as_json: JsonOption = False,
    form: Annotated[str, typer.Option(help="The form of judgments, where the first rows do not show it.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Our name of a column, and the file's or a template: response_a=answer1, prompt='{a}: {b}'."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse rows with columns that are not known.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read everything, and import nothing.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Import the rest although more than half is refused.")
    ] = False,
    licence: Annotated[
        str, typer.Option("--license", help="Of the file, as the Hub names it; kept, and said of what is exported.")
    ] = "",
) -> None:
    """Bring existing data into a loop.

    A bad row is refused with its number and the reason, and the rest is kept, unless more than half is refused. The
    exit code is 2 if nothing can be imported.
    """
    from rlhf_dagster.cli.data import imports

    options = imports.options_of(form, column or (), strict, dry_run, partial, licence)
    imports.import_data(kind, file, loop, as_json, options)


@app.command("export")
def export(
    kind: Annotated[str, typer.Argument(help="preferences, labels, demonstrations, prompts or completions")],
    out: Annotated[
        Path,
        typer.Argument(help="A file (.jsonl, .jsonl.gz, .json, .csv, .tsv, .parquet), or a folder: with a card."),
    ],
    loop: LoopOption,
    round_key: Annotated[str, typer.Option("--round", help="The round; default: the newest that has them.")] = "",
    form: Annotated[
        str, typer.Option(help="own, pair, trl, trl_messages, trl_implicit, openai, openai_preference, label_studio.")
    ] = "",
    licence: Annotated[
        str, typer.Option("--license", help="Of the data set, as the Hub names it; default: that of its sources.")
    ] = "",
    push_to: Annotated[
        str, typer.Option(help="ORG/NAME of a data set on the Hub (a new one is private), or a folder such as ./NAME.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Write what a loop holds in a form that others read; what is left out is counted. People are pseudonyms."""
    from rlhf_dagster.cli.data.export import export_data

    export_data(kind, out, loop, round_key, form, licence, push_to, as_json)


@app.command()
def run(
    job: Annotated[str, typer.Argument(help="prepare, collect_round, train_round or release_round")],
    loop: LoopOption,
    round_key: Annotated[
        str | None, typer.Option("--round", help="The round, such as round-0001; default: the newest.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this asset.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Make again what is already there.")] = False,
) -> None:
    """Run a job of a loop here, as the UI would. What is already there is not made again."""
    loops.run_job(job, loop, round_key, until, again)


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="tiny_model, sft, reward_model, ppo or dpo")],
    spec: Annotated[Path | None, typer.Argument(help="YAML or JSON file; its paths are relative to it.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a commented spec.")] = False,
) -> None:
    """Train one stage from a spec file, without a loop. Stopped and run again, it goes on where it was."""
    from rlhf_dagster.cli import train as command

    if example:
        command.example(stage)
    elif spec is None:
        raise UserError(f"`rlhf train {stage}` needs a spec file; --example prints one.")
    else:
        command.train_stage(stage, spec)


@app.command()
def annotate(
    loop: LoopOption,
    round_key: Annotated[
        str | None, typer.Option("--round", help="The round; default: the newest, with --follow all open ones.")
    ] = None,
    annotators: Annotated[int | None, typer.Option(min=1, help="How many people; default: all the task has.")] = None,
    purpose: Annotated[
        str | None, typer.Option(help="train or evaluation; default: train, with --follow both.")
    ] = None,
    per_minute: Annotated[float | None, typer.Option(help="Labels a minute; default: as fast as it goes.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
) -> None:
    """Let the task's simulated annotators answer what is not labelled yet."""
    from rlhf_dagster.cli.labels.annotate import give_labels as answer

    answer(loop, round_key, annotators, purpose, per_minute, follow)


@app.command()
def label(
    loop: LoopOption,
    round_key: Annotated[str | None, typer.Option("--round", help="The round; default: all open ones.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Your name, kept as a pseudonym; default: your login.")] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Ask in the terminal instead of the browser.")] = False,
    port: Annotated[int, typer.Option(help="Port of the page on this machine; default: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Judge comparisons yourself, on a page in the browser or in the terminal."""
    from rlhf_dagster.cli.labels.judge import ask_person

    ask_person(loop, round_key, by or user_name(), terminal, port, browser)


PolicyOption = Annotated[
    str, typer.Option("--policy", help="champion, sft, base, a round such as round-0002, or a policy's id.")
]
GreedyOption = Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Of what is drawn; default: another one each time.")]


@app.command("generate")
def generate_(
    prompt: Annotated[str, typer.Argument(help="A text, a JSON list of messages, or - for standard input.")],
    loop: LoopOption,
    policy: PolicyOption = "champion",
    beside: Annotated[
        list[str] | None, typer.Option("--beside", help="Another policy that answers the same; may be repeated.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Answers of each policy.")] = 1,
    greedy: GreedyOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let policies of a loop answer a prompt, with the loop's sampling settings."""
    from rlhf_dagster.cli.policies.generate import HowToDraw, generate_answers

    generate_answers(loop, prompt, [policy, *(beside or [])], HowToDraw(n, greedy, seed), as_json)


@app.command()
def chat(
    loop: LoopOption, policy: PolicyOption = "champion", greedy: GreedyOption = False, seed: SeedOption = None
) -> None:
    """Talk with a policy that reads chats. /reset begins anew, Ctrl-D ends."""
    from rlhf_dagster.cli.policies.chat import chat_with

    chat_with(loop, policy, greedy, seed)


ByOption = Annotated[str | None, typer.Option("--by", help="Your name, kept on record; default: your login.")]
ReasonOption = Annotated[str, typer.Option(help="Why, kept on record.")]


@app.command("publish")
def publish_(
    loop: LoopOption,
    to: Annotated[str, typer.Option("--to", help="ORG/NAME on the Hugging Face Hub, or a folder.")],
    policy: Annotated[
        str | None, typer.Option("--policy", help="Which, as for `generate`; default: champion, or the newest there.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", help="Such as apache-2.0, where that of base model or data is not known.")
    ] = "",
    adapters: Annotated[bool, typer.Option("--adapters", help="Adapters alone, for a base model of the Hub.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also a policy that is not the champion.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Mark what was published as withdrawn.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is withdrawn; the card says it.")] = "",
    by: ByOption = None,
) -> None:
    """Give a policy away: weights or adapters, tokenizer, and a card with its lineage. Nothing private goes along."""
    from rlhf_dagster.cli.policies.publish import HowToPublish, publish_policy, withdraw_policy

    how, who = HowToPublish(licence, adapters, public, anyway), by or user_name()
    if withdraw:
        withdraw_policy(loop, to, policy, how, who, reason)
    elif reason:
        raise UserError("--reason says why something is withdrawn; it needs --withdraw.")
    else:
        publish_policy(loop, to, policy, how, who)


@app.command("serve")
def serve_(
    loop: LoopOption,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    backend: Annotated[str, typer.Option(help="Whose server holds the model: transformers or vllm.")] = "transformers",
    options: Annotated[
        list[str] | None, typer.Option("--option", help="Passed on to that server, as --option=--dtype=bfloat16.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Log conversations in a file (.jsonl) or, by day, in a folder; default: nowhere."),
    ] = None,
) -> None:
    """Serve the champion by an OpenAI-compatible interface, and change over when another one becomes it."""
    from rlhf_dagster.cli.policies.serve import serve_champion

    serve_champion(loop, port, backend, options or [], log)


@app.command("feedback")
def feedback_(
    loop: LoopOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become prompts, and keep nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the prompts anew, with what the logs of `data.feedback` hold, and keep their thumbs; says what is left out.

    The sensor `logged_conversations` does the same.
    """
    from rlhf_dagster.cli.data.feedback import take_feedback

    take_feedback(loop, dry_run, as_json)


@app.command()
def stop(reason: Annotated[str, typer.Argument(help="Why.")], loop: LoopOption, by: ByOption = None) -> None:
    """Pull the stop cord: trainings end at their next checkpoint, and nothing new starts."""
    from rlhf_dagster.cli import control

    control.stop_loop(loop, reason, by)


@app.command()
def resume(loop: LoopOption, by: ByOption = None) -> None:
    """Let a stopped loop go on."""
    from rlhf_dagster.cli import control

    control.resume_loop(loop, by)


@app.command()
def promote(
    loop: LoopOption,
    reason: ReasonOption,
    round_key: Annotated[str | None, typer.Option("--round", help="The round; default: the newest.")] = None,
    by: ByOption = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also against the gate; that is kept on record.")] = False,
) -> None:
    """Approve a round's policy, which makes it the champion."""
    from rlhf_dagster.cli import promotion
    from rlhf_dagster.common.processes import user_name

    promotion.promote_policy(loop, round_key, by or user_name(), reason, anyway)


@app.command("refuse")
def refuse_(
    loop: LoopOption,
    reason: ReasonOption,
    round_key: Annotated[str | None, typer.Option("--round", help="The round; default: the newest.")] = None,
    by: ByOption = None,
) -> None:
    """Refuse a round's policy whatever the gate says: the champion stays."""
    from rlhf_dagster.cli import promotion

    promotion.refuse_policy(loop, round_key, by or user_name(), reason)


@app.command()
def rollback(
    loop: LoopOption,
    reason: ReasonOption,
    to: Annotated[str | None, typer.Option(help="Id of an earlier champion; default: the one before.")] = None,
    by: ByOption = None,
) -> None:
    """Make an earlier champion the champion again."""
    from rlhf_dagster.cli import promotion
    from rlhf_dagster.common.processes import user_name

    promotion.roll_back(loop, to, by or user_name(), reason)


@app.command()
def check(
    loop: FolderArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Do what is safe; the rest is for a person.")] = False,
) -> None:
    """Look whether everything that a loop keeps is whole, and say what mends what is not. Exit code 1: something is."""
    from rlhf_dagster.cli.upkeep.whole import print_findings

    raise typer.Exit(print_findings(loop, repair))


@app.command()
def doctor(loop: FolderArgument) -> None:
    """Look whether a loop has what it needs to go on, and say what mends it where not. Exit code 1: something lacks."""
    from rlhf_dagster.cli.upkeep.doctor import print_diagnoses

    raise typer.Exit(print_diagnoses(loop))


@app.command()
def metrics(
    loop: FolderArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A file (.prom) in the folder of node_exporter's textfile collector."),
    ] = None,
) -> None:
    """A loop's numbers for Prometheus: rounds, labels, the queue, last successes, champion, disk.

    Exit code 1: a part of them cannot be read, and is left out.
    """
    from rlhf_dagster.cli.upkeep.metrics import write_metrics

    raise typer.Exit(write_metrics(loop, out))


@app.command()
def adopt(
    loop: FolderArgument,
    new: Annotated[bool, typer.Option("--new", help="Make it a loop of its own, beside its original.")] = False,
) -> None:
    """Go on in a copy of a loop's folder, which is read only before; its original writes nothing any more."""
    from rlhf_dagster.cli.upkeep.adopt import adopt_folder

    adopt_folder(loop, new)


@app.command()
def models(
    loop: FolderArgument,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove now what nothing needs, by `models.keep` in loop.yaml.")
    ] = False,
    retire: Annotated[
        str, typer.Option("--retire", help="Remove this model, by its id, unless something else than that keeps it.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why it is retired, kept on record.")] = "",
    by: ByOption = None,
) -> None:
    """List a loop's trained models with their size and why each stays; what goes stays on record."""
    from rlhf_dagster.cli.upkeep.models import list_models, remove_models, retire_one

    if retire and remove:
        raise UserError("--remove removes what nothing needs, --retire one model; give one of the two.")
    if retire:
        retire_one(loop, retire, by or user_name(), reason)
    elif reason:
        raise UserError("--reason says why a model is retired; it needs --retire.")
    else:
        (remove_models if remove else list_models)(loop)


@app.command("check-model")
def check_model(
    model: Annotated[str, typer.Argument(help="A folder with a model, or its name on the Hugging Face Hub.")],
    revision: Annotated[str, typer.Option(help="Of a model on the Hub.")] = "",
    loop: Annotated[
        Path | None, typer.Option("--loop", help="A loop's folder, whose settings the memory is estimated for.")
    ] = None,
) -> None:
    """Try what each stage does with a model, and estimate its memory. Exit code 2: no loop can be run on it."""
    from rlhf_dagster.cli import models

    raise typer.Exit(models.print_examination(model, revision, loop))


@app.command("check-memory")
def check_memory(
    what: Annotated[str, typer.Argument(help="A loop's folder, a folder with a model, or a name on the Hub.")],
    revision: Annotated[str, typer.Option(help="Of a model on the Hub, of which only the config is fetched.")] = "",
    loop: Annotated[Path | None, typer.Option("--loop", help="A loop's folder, with the settings for a model.")] = None,
    preset: Annotated[str, typer.Option(help="Settings for a model; default: those of a new loop.")] = "",
    free: Annotated[float | None, typer.Option(min=0, help="GB free on a GPU; default: what is free here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the memory of each stage, and find settings with which it fits. Exit code 1: a stage does not fit."""
    from rlhf_dagster.cli.sizing import memory

    raise typer.Exit(memory.print_memory(memory.Asked(what, revision, loop, preset, free), as_json))


@app.command("plan")
def plan_(
    model: Annotated[
        str,
        typer.Option(help="A size such as 8B or 70B, a model's folder, or ORG/NAME on the Hub (config alone)."),
    ],
    labels_per_day: Annotated[float, typer.Option(help="Labels that people give a day.")],
    prompts_per_second: Annotated[float, typer.Option(help="Prompts that the champion answers for its users.")],
    gpu: Annotated[str, typer.Option(help="A100, H100 or H200: their peak rates and memory.")] = "H100",
    gpu_gib: Annotated[float | None, typer.Option(help="GiB of a GPU; default: what that kind has.")] = None,
    train: Annotated[str, typer.Option(help="all (weights) or adapters: the presets `small` and `lora`.")] = "all",
    loop: Annotated[
        Path | None, typer.Option("--loop", help="A loop's folder, whose settings are taken in place of a preset's.")
    ] = None,
    prompt_tokens: Annotated[float, typer.Option(help="Mean length of a prompt.")] = 512,
    response_tokens: Annotated[float, typer.Option(help="Mean length of a response.")] = 256,
    seconds_per_label: Annotated[float, typer.Option(help="That a person takes for a label.")] = 60,
    round_days: Annotated[float, typer.Option(help="Days from one training to the next.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Plan a loop on paper: people, label store, GPUs, hours and storage, with the arithmetic and every source shown.

    Nothing is measured here; what runs where, and what moves first, is in docs/scale.md.
    """
    from rlhf_dagster.cli.sizing.plan import print_plan
    from rlhf_dagster.planning.devices import find_gpu
    from rlhf_dagster.planning.question import PlanQuestion

    device = find_gpu(gpu, gpu_gib)
    lengths = (prompt_tokens, response_tokens, seconds_per_label, round_days)
    print_plan(PlanQuestion(model, labels_per_day, prompts_per_second, device, *lengths), train, loop, as_json)


@app.command()
def merge(
    model: Annotated[Path, typer.Argument(help="A model's folder that holds adapters (`lora.merge: false`).")],
    out: Annotated[Path, typer.Argument(help="A folder to make.")],
) -> None:
    """Write adapters and the model under them as one plain model, which transformers opens by itself."""
    from rlhf_dagster.cli import models

    models.merge_model(model, out)


@app.command()
def backup(
    loop: FolderArgument,
    to: Annotated[str, typer.Argument(help="An empty folder, or an address such as s3://bucket/backups/monday.")],
) -> None:
    """Copy a loop as it is at one moment; it may go on meanwhile. Stopped and run again, it goes on where it was."""
    from rlhf_dagster.cli.upkeep.whole import back_up_loop

    back_up_loop(loop, to)


@app.command()
def restore(
    backup: Annotated[str, typer.Argument(help="Folder or address of a backup.")],
    loop: Annotated[Path, typer.Argument(help="A folder without a loop.")],
) -> None:
    """Bring a loop back from a backup; it stays stopped until `rlhf resume`."""
    from rlhf_dagster.cli.upkeep.whole import restore_loop

    restore_loop(backup, loop)


@round_app.command("open")
def round_open(loop: LoopOption) -> None:
    """Open the next labelling round."""
    loops.add_round(loop)


@round_app.command("status")
def round_status(loop: LoopOption, as_json: JsonOption = False) -> None:
    """What each round sampled, how much of it is labelled, and what became of it."""
    loops.status(loop, as_json)


RoundArgument = Annotated[str, typer.Argument(help="The round, such as round-0001.")]


@round_app.command("delete")
def round_delete(round_key: RoundArgument, loop: LoopOption, reason: ReasonOption, by: ByOption = None) -> None:
    """Delete a round: its labels train nothing from now on, and its number is not used again."""
    from rlhf_dagster.cli.upkeep.deletions import delete_round

    delete_round(loop, round_key, by or user_name(), reason)


@round_app.command("restore")
def round_restore(round_key: RoundArgument, loop: LoopOption, reason: ReasonOption, by: ByOption = None) -> None:
    """Bring back a deleted round, or one whose partition was deleted in the UI."""
    from rlhf_dagster.cli.upkeep.deletions import restore_round

    restore_round(loop, round_key, by or user_name(), reason)


@label_studio_app.command("up")
def label_studio_up(
    loop: LoopOption,
    port: Annotated[int | None, typer.Option(help="Port on this machine; default: that of label_store.url.")] = None,
) -> None:
    """Start Label Studio on loopback, with its data in the loop's folder, until Ctrl-C."""
    from rlhf_dagster.cli.label_studio import up

    up(loop, port)


@label_studio_app.command("accept-deletions")
def label_studio_accept_deletions(
    loop: LoopOption,
    round_key: Annotated[str | None, typer.Option("--round", help="The round; default: the newest.")] = None,
    by: ByOption = None,
) -> None:
    """Say that people have deleted the labels that are not in Label Studio any more; until then they count."""
    from rlhf_dagster.cli.label_studio import accept_deletions
    from rlhf_dagster.common.processes import user_name

    accept_deletions(loop, round_key, by or user_name())


@label_studio_app.command("rejoin")
def label_studio_rejoin(loop: LoopOption, by: ByOption = None) -> None:
    """Go on with the Label Studio that is there: a backup, an empty database, or one without a project that it had.

    Labels that it has lost stay on record and count. Comparisons that want labels and have no task there are sent
    again.
    """
    from rlhf_dagster.cli.label_studio import rejoin_server
    from rlhf_dagster.common.processes import user_name

    rejoin_server(loop, by or user_name())


@label_studio_app.command("install")
def label_studio_install() -> None:
    """Install Label Studio into an environment of its own, once for all loops; `up` does it where it is missing."""
    from rlhf_dagster.cli.label_studio import install_label_studio

    install_label_studio()


@ledger_app.command("copy")
def ledger_copy(
    source: Annotated[str, typer.Argument(help="Address, file, or a loop's folder.")],
    target: Annotated[str, typer.Argument(help="The same; nothing else may be there.")],
) -> None:
    """Copy a ledger with its positions, and check the copy. Stopped and run again, it goes on where it was."""
    from rlhf_dagster.cli.upkeep import ledger

    ledger.copy(source, target)


@ledger_app.command("continue")
def ledger_continue(loop: FolderArgument) -> None:
    """Go on with the ledger that is there, also where labels that were read from it are gone."""
    from rlhf_dagster.cli.upkeep import ledger

    ledger.go_on(loop)
