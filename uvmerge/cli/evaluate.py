"""The commands `eval cards`, `eval ccci` and `tasks-path`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from .. import tasks
from ..api.asking_settings import AskSettings, CcciSettings, EvalSettings
from ..operations.options import OUTPUT, WHERE
from .completion import folders
from .help import REFERENCE, Command, Group, Option, Text
from .options import json_option, reference, setting_options
from .talk import popped_quiet


@click.group("eval", cls=Group, epilog="Example: uvmerge eval cards sft --out results")
def eval_group() -> None:
    """Ask a model questions that have an exact judge."""


@eval_group.command(
    "cards",
    epilog="Example: uvmerge eval cards http://localhost:8000/v1 --rule ood --out results",
)
def cards_command(model: str, out: str | None, as_json: bool, **settings: Any) -> None:
    """Ask a model to make 24 from four cards, and tell it what is wrong until it is right.

    MODEL is a folder or a Hub id and runs in this process; URL is the base URL of an
    OpenAI-compatible endpoint, such as that of `vllm serve`. The environment variable UVMERGE_API_KEY
    holds the key of an endpoint that wants one. success@1 counts the first answers that are right,
    success@5 the hands with a right answer among five.
    """
    quiet = popped_quiet(settings)
    from ..api.evaluate import evaluate_cards

    done = evaluate_cards(model, out=out, quiet=quiet, **settings)
    click.echo(json.dumps(done.as_data(), allow_nan=False) if as_json else str(done))


def _common(settings: type[AskSettings]) -> list[Option]:
    """The options of every evaluation."""
    return [
        Option(["-o", "--out"], metavar="DIR", group=OUTPUT, type=Text(str, "folder", folders),
               help="Write every answer into DIR, from which a run is resumed."),
        *setting_options(settings),
        json_option(),
        Option(["-q", "--quiet"], is_flag=True, help="No progress on stderr."),
    ]  # fmt: skip


cards_command.params += [
    reference("model", f"{REFERENCE}; or the address of an endpoint.", "MODEL|URL"),
    *_common(EvalSettings),
]


@eval_group.command(
    "ccci", epilog="Example: uvmerge eval ccci --completer rules --without tables --json"
)
def ccci_command(completer: str, out: str | None, as_json: bool, **settings: Any) -> None:
    """Complete Java transfer code from typed context; compile it, run its tests, compare it.

    The completer is `gold` (the code that was there), `empty`, `rules` (fixed rules, without a model), a
    folder or a Hub id, which run in this process, or the base URL of an OpenAI-compatible endpoint.
    build_pass is the share of holes whose code compiles and passes its tests, which run in a sandbox;
    without a JDK or a sandbox they are skipped. The environment variable UVMERGE_API_KEY holds the key of
    an endpoint that wants one.
    """
    quiet = popped_quiet(settings)
    from ..api.evaluate_ccci import evaluate_ccci

    done = evaluate_ccci(completer, out=out, quiet=quiet, **settings)
    click.echo(json.dumps(done.as_data(), allow_nan=False) if as_json else str(done))


ccci_command.params += [
    Option(["--completer"], metavar="COMPLETER", required=True,
           help=f"gold, empty, rules, {REFERENCE[0].lower()}{REFERENCE[1:]}, or the address of an endpoint."),
    Option(["--without"], metavar="KIND", multiple=True, group=WHERE,
           help="A kind of context to leave out, repeatable: scope, tables, objects, relations, libraries"
                " or comments."),
    *_common(CcciSettings),
]  # fmt: skip


@click.command(
    "tasks-path",
    cls=Command,
    epilog='Example: uvmerge tasks-path; in use: lm_eval run --include_path "$(uvmerge tasks-path)"'
    " --tasks uvmerge_cards …",
)
def tasks_path_command() -> None:
    """Print the folder of uvmerge's tasks for lm-evaluation-harness.

    The group `uvmerge_cards` is the card game under both rules, 234 hands each; `uvmerge_cards_large`
    has 2,000 each. `uvmerge_ccci` is Java transfer code, which the harness runs only with
    `--confirm_run_unsafe_code`.
    """
    if find_spec("lm_eval") is None:
        click.echo(
            "note: lm-eval is not here; install it with: pip install 'uvmerge[eval]'", err=True
        )
    click.echo(Path(tasks.__file__).resolve().parent / "harness")
