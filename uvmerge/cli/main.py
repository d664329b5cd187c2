"""The command line: click around `uvmerge.api`. A command per operation, derived from its signature.

stdout carries data (one line, or one JSON object with `--json`), stderr progress and errors. Exit
codes: 0 done; 1 failed while running; 2 usage; 3 input refused; 4 a check found problems; 130/143.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..checkpoint.selection import parse_layers, parse_modules
from ..errors import (
    InputRefused,
    ProblemsFound,
    RunFailed,
    Unrelated,
    UsageError,
    UvmergeError,
    counted,
)
from ..operations import Operation, Parameter, operations
from ..operations.options import did_you_mean
from ..text import inert
from .heap import set_thresholds
from .signals import stopping_at_once

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands)
            raise click.UsageError(f"No such command {inert(args[0])!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings=CONTEXT)
@click.version_option(__version__, message="uvmerge %(version)s")
def cli() -> None:
    """Undo the damage that fine-tuning does to a model's singular vectors.

    \b
    uvmerge diff BASE FINETUNED --out report
    uvmerge restore BASE FINETUNED OUT --top 0.2
    uvmerge demo
    """


def program() -> None:
    """`main` as a process of its own, which is gone as soon as everything is written: to tear torch
    down would take it another half second."""
    try:
        main()
    except SystemExit as leave:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a reader that has gone, or closed
                stream.flush()
        os._exit(leave.code if isinstance(leave.code, int) else leave.code is not None)


def main() -> None:
    """Run the command line: one `try` for every error."""
    set_thresholds()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        with stopping_at_once():
            if _broken is not None:
                raise _broken
            code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UvmergeError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _complain(
            RunFailed(error.filename or "output", f"cannot be read or written: {error.strerror}")
        )
        sys.exit(1)


def _complain(error: UvmergeError) -> None:
    if os.environ.get("UVMERGE_DEBUG"):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            click.echo(inert(line), err=True)
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, ProblemsFound):
        lines = [
            f"{error.where}: {counted(len(error.problems), 'problem')}",
            *error.problems,
            error.do,
        ]
    click.echo(
        "\n".join([f"error: {inert(lines[0])}", *(f"  {inert(x.strip())}" for x in lines[1:])]),
        err=True,
    )


class _Text(click.ParamType):  # type: ignore[type-arg]
    """A click type around a parser of this project, so that errors read the same everywhere."""

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self.parse, self.name = parse, name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except UvmergeError as error:
            self.fail(f"{error.what}. {error.do}".strip(), param, ctx)


def _own_option(parameter: Parameter) -> click.Option:
    flag, option = f"--{parameter.key}", parameter.option
    if parameter.type is bool:
        return click.Option([flag, parameter.name], is_flag=True, default=None, help=option.help)
    about = option.help
    if parameter.range:
        about += f" ({parameter.range}{', or like 20%' if option.percent else ''})"
    if parameter.default not in (None, ()):
        about += f" [default: {parameter.default}]"
    if parameter.choices:
        return click.Option(
            [flag, parameter.name], type=click.Choice(parameter.choices), help=about
        )
    kind = _Text(parameter.parse_text, parameter.key)
    return click.Option([flag, parameter.name], type=kind, metavar=option.metavar, help=about)


def _selection_options(taken: set[str], scope: str) -> list[click.Option]:
    options = [
        click.Option(["--layers"], type=_Text(parse_layers, "layers"), metavar="LIST",
                     help="Only these decoder layers, counted from 0: 0-9,12."),
        click.Option(["--modules"], type=_Text(parse_modules, "modules"), metavar="LIST",
                     help="Only these modules: attention, mlp, router, norm, embeddings, head,"
                          f" final-norm, other, all. [default: {scope}]"),
        click.Option(["--include"], multiple=True, metavar="GLOB",
                     help="Only tensors whose name matches; may be repeated."),
        click.Option(["--exclude"], multiple=True, metavar="GLOB",
                     help="Leave out tensors whose name matches; may be repeated."),
    ]  # fmt: skip
    return [option for option in options if option.name not in taken]


def _run_options() -> list[click.Option]:
    return [
        click.Option(["--device"], default="auto", metavar="DEVICE", show_default=True,
                     help="auto, cpu, cuda or cuda:N."),
        click.Option(["--precision"], type=click.Choice(["exact", "fast"]), default="exact", show_default=True,
                     help="exact: 1e-6 of the edit or better; fast: 1e-3, in less time and memory."),
        click.Option(["--dtype"], type=click.Choice(["keep", "bfloat16", "float16", "float32"]),
                     default="keep", help="Store floating point tensors in this dtype."),
        click.Option(["--max-shard-size"], metavar="SIZE",
                     help="Reshard the output, like 5GB; by default it mirrors FINETUNED."),
        click.Option(["--workers"], type=click.IntRange(0), default=0, metavar="N",
                     help="Matrices computed at once; 0 is one per core, as memory allows."),
        click.Option(["--memory"], metavar="SIZE",
                     help="What all edits together may use, like 8GiB. [default: half of what is free]"),
        click.Option(["--factors"], metavar="DIR",
                     help="Keep decompositions in DIR, and use those that are there."),
        click.Option(["--nonfinite"], type=click.Choice(["refuse", "copy"]), default="refuse", show_default=True,
                     help="What to do with matrices that hold NaN or Inf."),
        click.Option(["--allow-pickle"], is_flag=True, help="Read .bin/.pt weights (weights_only=True)."),
        click.Option(["--overwrite"], is_flag=True, help="Replace OUT, or an unfinished run to it."),
        click.Option(["--force"], is_flag=True, help="Go on although the pair looks unrelated."),
        click.Option(["--dry-run"], is_flag=True, help="Print the plan and write nothing."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object on stdout."),
        click.Option(["-q", "--quiet"], is_flag=True, help="No progress on stderr."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Name each tensor when it is done."),
    ]  # fmt: skip


def _report_option() -> click.Option:
    return click.Option(["--report"], metavar="DIR",
                        help="Afterwards, measure FINETUNED and OUT against BASE into DIR.")  # fmt: skip


def _paths(*names: str) -> list[click.Argument]:
    return [click.Argument([name.lower()], metavar=name) for name in names]


def _called(call: Callable[..., Any], settings: dict[str, Any]) -> tuple[Any, bool, Any]:
    """What `call` returns for the command's settings, whether JSON is wanted, and who speaks."""
    from ..engine.progress import Progress
    from .signals import SignalControl

    as_json, dry_run = settings.pop("as_json"), settings["dry_run"]
    quiet, verbose = _popped_quiet(settings), settings.pop("verbose")
    stream = sys.stdout if dry_run and not as_json else sys.stderr
    progress = Progress(
        quiet=(quiet and not dry_run) or (as_json and dry_run), verbose=verbose, stream=stream
    )
    return call(progress=progress, control=SignalControl(), **settings), as_json, progress


def _popped_quiet(settings: dict[str, Any]) -> bool:
    """Whether to be quiet, downloads included: huggingface_hub reads this when it is imported."""
    if quiet := bool(settings.pop("quiet")):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet


def _perform(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run `call` with the command's settings and print its result."""
    result, as_json, progress = _called(call, settings)
    if as_json:
        click.echo(json.dumps(result.as_data()))
    elif result.out is None:
        click.echo(result.plan.as_table())
    else:
        progress.say(result.summary)
        if result.kept is not None:
            progress.say(f"note: the old folder was not all uvmerge's; it is now {result.kept}")
        click.echo(inert(result.out))


def command_for(operation: Operation) -> click.Command:
    """The command that an operation's signature describes."""

    def callback(base: str, finetuned: str, out: str, **settings: Any) -> None:
        from ..api import run as api

        def call(**options: Any) -> Any:
            return api.operate(operation, base, finetuned, out, **options)

        _perform(call, settings)

    own = [_own_option(parameter) for parameter in operation.parameters]
    taken = {parameter.name for parameter in operation.parameters}
    scope = "attention,mlp of the decoder layers" if operation.matrices_only else "all"
    example = next((p.option.example for p in operation.parameters if p.option.example), "")
    return click.Command(
        operation.command,
        callback=callback,
        params=[
            *_paths("BASE", "FINETUNED", "OUT"),
            *own,
            *_selection_options(taken, scope),
            _report_option(),
            *_run_options(),
        ],
        help=_reflow(operation.function.__doc__ or ""),
        short_help=operation.summary.rstrip("."),
        epilog=f"Example: uvmerge {operation.command} base sft out {example}".rstrip(),
    )


def _reflow(docstring: str) -> str:
    """A docstring for click: each labelled part a paragraph."""
    import inspect

    lines = inspect.cleandoc(docstring).splitlines()
    labelled = [
        f"\n{line}" if line and not line[0].isspace() and ":" in line else line.strip()
        for line in lines
    ]
    return "\n".join(labelled)


@cli.group(
    "sweep", cls=_Group, epilog="Example: uvmerge sweep restore base sft out --top 0.1,0.2,0.4"
)
def sweep_group() -> None:
    """Run an operation at several settings, with one decomposition of each matrix.

    Each checkpoint is a folder of its own in OUTDIR, and what the single command would have
    written, to the byte.
    """


def sweep_command_for(operation: Operation) -> click.Command:
    """`command_for`, with options that take several values."""

    def callback(base: str, finetuned: str, outdir: str, **settings: Any) -> None:
        from ..api.sweep import sweep

        def call(**options: Any) -> Any:
            return sweep(operation.command, base, finetuned, outdir, **options)

        _perform_sweep(call, settings)

    command = command_for(operation)
    parameters: list[click.Parameter] = []
    keys = {p.name: p for p in operation.parameters}
    for option in command.params:
        name = str(option.name)
        if name == "report":
            continue
        if isinstance(option, click.Option) and (name in keys or name == "layers"):
            option = _several(option, keys.get(name))
        parameters.append(option)
    parameters[2] = click.Argument(["outdir"], metavar="OUTDIR")
    several = next((p for p in operation.parameters if p.type is float), None)
    example = f"--{several.key} {'0.1,0.2' if several.option.high else '0.5,1'}" if several else ""
    return click.Command(
        operation.command,
        callback=callback,
        params=parameters,
        help=command.help,
        short_help=command.short_help,
        epilog=f"Example: uvmerge sweep {operation.command} base sft out {example}".rstrip(),
    )


def _several(option: click.Option, parameter: Parameter | None) -> click.Option:
    """The option with several values: repeated, or separated by commas where no value has any."""
    is_flag = parameter is not None and parameter.type is bool
    kind: Any = _Text(_flag, "flag") if is_flag else option.type
    commas = parameter is not None and parameter.type is not None
    choices = "true|false" if is_flag else "|".join(parameter.choices) if parameter else ""

    def values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Any:
        pieces = [p.strip() for g in given for p in (g.split(",") if commas else [g])]
        read = [kind.convert(piece, param, ctx) for piece in pieces]
        return (read if commas else pieces) or None  # lists in a value stay as they are written

    bare: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if is_flag else {}
    how = "separated by commas" if commas else "each with the option again"
    return click.Option(
        [*option.opts, str(option.name)], multiple=True, callback=values,
        metavar=choices or option.metavar, **bare,
        help=f"{(option.help or '').rstrip('.')}; several values {how}",
    )  # fmt: skip


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError("flag", f"{text!r} is not true or false")
    return text == "true"


def _perform_sweep(call: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Run a sweep with the command's settings and print the folders of its checkpoints."""
    done, as_json, progress = _called(call, settings)
    if as_json:
        click.echo(json.dumps(done.as_data()))
        return
    for setting in done.settings:
        result = done.results.get(setting.name)
        if result is not None and result.out is None:
            click.echo(f"{setting.name}\n{result.plan.as_table()}")
            continue
        progress.say(f"{setting.name}: {result.summary if result else 'was there already'}")
        click.echo(inert(done.folder / setting.name))


@cli.command(
    "run", epilog="Example: uvmerge run recipes/restore-top20.yaml out --base base --finetuned sft"
)
@click.argument("recipe", metavar="RECIPE")
@click.argument("out", metavar="OUT")
@click.option("--base", metavar="REF", help="The base checkpoint, instead of the recipe's.")
@click.option(
    "--finetuned", metavar="REF", help="The fine-tuned checkpoint, instead of the recipe's."
)
def run_command(
    recipe: str, out: str, base: str | None, finetuned: str | None, **settings: Any
) -> None:
    """Run a recipe: several operations, chained per tensor, as one YAML file."""
    from ..api import run as api

    def call(**options: Any) -> Any:
        return api.run(recipe, out, base=base, finetuned=finetuned, **options)

    _perform(call, settings)


@cli.command("diff", epilog="Example: uvmerge diff base sft --out report")
@click.argument("base", metavar="BASE")
@click.argument("checkpoints", metavar="FINETUNED...", nargs=-1, required=True)
def diff_command(
    base: str, checkpoints: tuple[str, ...], out: str | None, figures: str | None, **settings: Any
) -> int:
    """Measure how far fine-tuning moved the weights, beside what chance would show.

    Per matrix: principal angles of the leading left and right singular vectors, change of singular
    values, size, spectrum and place of the delta, gaps at the cut. Several checkpoints are a
    trajectory: each is compared with BASE, and each two with each other. Exit code 4 says that a pair
    is unrelated.
    """
    from ..api import diff as comparison
    from ..engine.progress import Progress
    from .signals import SignalControl

    as_json, overwrite = settings.pop("as_json"), settings.pop("overwrite")
    progress = Progress(quiet=_popped_quiet(settings), verbose=settings.pop("verbose"))
    inputs, factors = [base, *checkpoints], settings["factors"]
    if out is not None:
        comparison.refuse_folder(out, overwrite, inputs, factors)
    if figures is not None:
        from ..report.figures import require_matplotlib

        target = comparison.refuse_folder(figures, True, inputs, factors)
        if out is not None and target == Path(out).resolve():
            raise UsageError("--figures", "is the folder of --out", "Name one inside or beside it.")
        require_matplotlib()
    try:
        found = comparison.diff(*inputs, progress=progress, control=SignalControl(), **settings)
    except Unrelated as error:
        if as_json:
            click.echo(json.dumps({"verdict": "unrelated", "reason": error.what}))
        raise
    written = [] if out is None else found.save(out, overwrite=overwrite)
    written += [] if figures is None else found.save_figures(figures)
    click.echo(json.dumps(found.as_data(), allow_nan=False) if as_json else str(found))
    for path in written:
        progress.say(f"wrote {path}")
    last = found.compared[-1]
    if not as_json and found.verdict == "related" and last.measured:
        repairable = last.says_where and all(e.state != "nonfinite" for e in last.entries)
        for line in _next_after_diff(base, checkpoints, out, repairable):
            progress.say(line)
    return 4 if found.verdict == "unrelated" else 0


def _next_after_diff(
    base: str, checkpoints: tuple[str, ...], out: str | None, repairable: bool
) -> list[str]:
    """What to type next, on a line that holds nothing else; nothing where there is nothing to repair."""
    import shlex

    if out is None:
        return [f"next: uvmerge diff {shlex.join([base, *checkpoints])} --out report"]
    if not repairable:
        return []
    pair = shlex.join([base, checkpoints[-1]])
    return [
        f"next: uvmerge sweep restore {pair} candidates --top 0.05,0.1,0.2,0.4",
        "      then evaluate each of them on the tasks that matter",
    ]


def _diff_options() -> list[click.Option]:
    own = [
        _own_option(parameter)
        for parameter in operations()["restore"].parameters
        if parameter.name in ("top", "rank", "energy")
    ]
    shared = ("device", "precision", "workers", "memory", "factors", "allow_pickle", "as_json", "quiet",
              "verbose")  # fmt: skip
    return [
        *own,
        *_selection_options(set(), "attention,mlp of the decoder layers"),
        click.Option(["--out"], metavar="DIR",
                     help="Write report.html, report.json and matrices.csv into DIR."),
        click.Option(["--figures"], metavar="DIR",
                     help="Write the figures as PNG and PDF into DIR (needs matplotlib)."),
        click.Option(["--kl"], metavar="PROMPTS",
                     help="Run the models on a JSONL file of prompts and compare what they predict."),
        *(option for option in _run_options() if option.name in shared),
        click.Option(["--overwrite"], is_flag=True, help="Write into DIR although it holds other files."),
    ]  # fmt: skip


@cli.command("show", epilog="Example: uvmerge show Qwen/Qwen2.5-7B")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def show_command(checkpoint: str, as_json: bool) -> None:
    """Show what is in a checkpoint, from headers alone."""
    from ..api import show as contents

    found = contents.show(checkpoint)
    click.echo(json.dumps(found) if as_json else contents.as_table(found))


@cli.command("check", epilog="Example: uvmerge check out --load --against sft")
@click.argument("out", metavar="OUT")
@click.option(
    "--load", is_flag=True, help="Build the model in transformers and run one forward pass."
)
@click.option(
    "--against", metavar="FINETUNED", help="Compare every tensor with the fine-tuned one."
)
@click.option(
    "--sha256", is_flag=True, help="Also print the sha256 of each file, as the Hub shows it."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def check_command(out: str, load: bool, against: str | None, sha256: bool, as_json: bool) -> None:
    """Re-read an output: files, hashes, dtypes, shapes, and that only the planned tensors changed."""
    from ..api import check as checks

    if not Path(out).is_dir():
        raise InputRefused(out, "is not a folder", "Name the folder that uvmerge wrote.")
    try:
        report = checks.check(out, load=load, against=against, sha256=sha256)
    except ProblemsFound as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": error.problems}))
        raise
    if as_json:
        click.echo(json.dumps({"ok": True, **report}))
        return
    for key, value in report.items():
        if key != "sha256":
            click.echo(f"{key.replace('_', ' ')}: {inert(value)}", err=True)
    for name, digest in report.get("sha256", {}).items():
        click.echo(f"{digest}  {inert(name)}")
    click.echo("ok")


@cli.command("demo", epilog="Example: uvmerge demo demo-out")
@click.argument("out", metavar="[OUT]", required=False, default="uvmerge-demo")
@click.option(
    "--hands",
    type=click.IntRange(100),
    default=2000,
    show_default=True,
    metavar="N",
    help="Fresh hands of cards to judge each checkpoint on, per rule.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def demo_command(out: str, hands: int, overwrite: bool, as_json: bool) -> None:
    """Repair the embedded pair of small models in several ways and measure what comes back.

    The base can add up four cards under two rules; fine-tuning on the first rule alone made it forget
    the second. Every number printed is measured in this run.
    """
    from ..demo import table

    def show_row(row: table.Row) -> None:
        if row.name == table.BASE:
            click.echo(table.text_header())
        click.echo(table.text_row(row))

    report = table.run(
        Path(out), hands=hands, overwrite=overwrite, on_row=None if as_json else show_row
    )
    click.echo(json.dumps(report.as_dict()) if as_json else table.text_footer(out))


def _assemble() -> UvmergeError | None:
    """Add a command per operation; an operation that cannot be read is said once `main` runs."""
    run_command.params += [_report_option(), *_run_options()]
    try:
        diff_command.params += _diff_options()
        for operation in operations().values():
            cli.add_command(command_for(operation))
            sweep_group.add_command(sweep_command_for(operation))
    except UvmergeError as error:
        return error
    return None


_broken = _assemble()
