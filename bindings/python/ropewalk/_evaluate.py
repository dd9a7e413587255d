"""The commands evaluate and report of `python -m ropewalk`. The packages that they need are imported when they run."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import ropewalk as rw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ropewalk.evaluation._results import Cell

PACKAGES = ("torch", "transformers", "gguf", "accelerate", "matplotlib")

LENGTHS = (2048, 4096)
EXAMPLES = """examples:
  python -m ropewalk evaluate path/to/model --policies default linear:2 yarn:2 --lengths 4096 8192 --json out.json
  python -m ropewalk evaluate model.gguf --tasks lines --samples 50 --chat --plot lines.png
  torchrun --nproc-per-node 8 -m ropewalk evaluate path/to/model --policies ntk:4 yarn:4 --json out.json

The table goes to standard output, the progress to standard error. With --json, a run that was stopped goes on where it
was stopped.
"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="the folder of a causal language model of Hugging Face, or a GGUF file")
    add = command.add_argument
    policies = "expressions; from-config: the scaling of the model's configuration (default)"
    add("--policies", nargs="+", default=["from-config"], metavar="POLICY", help=policies)
    tasks = "perplexity, sliding (perplexity of a sliding window), lines, qa (default: perplexity lines)"
    add("--tasks", nargs="+", default=["perplexity", "lines"], metavar="TASK", help=tasks)
    add("--lengths", nargs="+", type=int, metavar="N", help="tokens (default: 2048 4096)")
    add("--samples", type=int, default=20, metavar="N", help="rows of lines and qa, windows of sliding (default: 20)")
    add("--texts", type=int, default=4, metavar="N", help="texts per length of perplexity at most (default: 4)")
    add("--stride", type=int, metavar="N", help="tokens that a sliding window scores (default: 256)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the generated rows (default: 0)")
    add(
        "--text",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text for perplexity and sliding (default: Python's reference)",
    )
    add("--lines", nargs="+", default=[], metavar="FILE", help="published rows for lines, .jsonl or .parquet")
    add("--qa", nargs="+", default=[], metavar="FILE", help="published rows for qa, .jsonl or .parquet")
    add(
        "--documents", nargs="+", default=[], metavar="FILE", help="document, question, answer per line, .jsonl, for qa"
    )
    add("--altered", action="store_true", help="change the numbers of --documents, as AlteredNumericQA does")
    add("--chat", action="store_true", help="put prompts of lines and qa into the model's chat template")
    add(
        "--answer-start",
        action=argparse.BooleanOptionalAction,
        help="give the beginning of the answer in lines (default: without --chat)",
    )
    add(
        "--new-tokens",
        type=int,
        metavar="N",
        help="tokens of an answer at most (default: lines 16 after a given beginning, else 48; qa 50)",
    )
    add(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="type of the weights (default: that of the folder)",
    )
    add("--device", metavar="NAME", help="cpu, cuda or cuda:1 (default: a GPU if there is one)")
    add("--attention", metavar="NAME", help="attention of Transformers: sdpa, eager, flash_attention_2, ...")
    add("--json", type=Path, metavar="FILE", help="store every finished cell, and skip those that are stored")
    add("--plot", type=Path, metavar="FILE", help="write plots, .png or .svg")


def add_report_arguments(command: argparse.ArgumentParser) -> None:
    results = "files that evaluate --json wrote, also of several models"
    command.add_argument("results", nargs="+", type=Path, metavar="FILE", help=results)
    command.add_argument("--trained-length", type=int, metavar="N", help="tokens, a line in the plot of losses")
    command.add_argument("--plot", type=Path, metavar="FILE", help="write plots, .png or .svg")


def check(options: argparse.Namespace) -> None:
    """Check what would otherwise be found after the model is loaded, or after hours."""
    for text in (*options.policies, *options.tasks):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise rw.Error(f"ropewalk: {text!r} is not UTF-8 text") from None
    for name in ("samples", "texts", "stride", "new_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise rw.Error(f"ropewalk: --{name.replace('_', '-')} must be positive, got {value}")
    check_writable(options.json)
    check_plot(options.plot)
    rows = {name for name in ("lines", "qa") if getattr(options, name)}
    used = {
        "lengths": {"perplexity", "sliding", "lines", "qa"} - rows,
        "stride": {"sliding"},
        "text": {"perplexity", "sliding"},
        "lines": {"lines"},
        "qa": {"qa"},
        "documents": {"qa"},
        "chat": {"lines", "qa"},
        "answer_start": {"lines"},
    }
    for name, tasks in used.items():
        if getattr(options, name) and not tasks & set(options.tasks):
            of = " of files" if name == "lengths" else ""
            raise rw.Error(
                f"ropewalk: --{name.replace('_', '-')} has no effect on the tasks {' '.join(options.tasks)}{of}"
            )
    if options.altered and not options.documents:
        raise rw.Error("ropewalk: --altered needs --documents")
    if options.documents and options.qa:
        raise rw.Error("ropewalk: pass either --qa or --documents")


def check_writable(path: Path | None) -> None:
    if path is not None and (path.exists() > path.is_file() or not os.access(path.resolve().parent, os.W_OK)):
        raise rw.Error(f"ropewalk: cannot write {str(path)!r}: it is no file, or its folder is missing or read-only")


def check_plot(path: Path | None) -> None:
    check_writable(path)
    if path is not None and path.suffix not in (".png", ".svg"):
        raise rw.Error(f"ropewalk: --plot must end in .png or .svg, got {str(path)!r}")


def run(options: argparse.Namespace) -> None:
    check(options)
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at import: bars of Transformers when it reads GGUF
    with packages():
        from ropewalk import evaluation
        from ropewalk.evaluation import _run

        if options.plot:
            from ropewalk.evaluation import _plots  # noqa: F401 - fails before the first cell
    _quiet()
    settings = evaluation.Settings(
        samples=options.samples,
        texts=options.texts,
        stride=options.stride or evaluation.Settings.stride,
        seed=options.seed,
        chat=options.chat,
        answer_start=options.answer_start,
        new_tokens=options.new_tokens,
        altered=options.altered,
        text=tuple(options.text),
        lines=tuple(options.lines),
        qa=tuple(options.qa),
        documents=tuple(options.documents),
    )
    with _warnings_of_documents():
        cells, trained = _run.evaluate(
            options.model,
            options.policies,
            options.tasks,
            options.lengths or LENGTHS,
            settings,
            options.json,
            options.dtype,
            options.device,
            options.attention,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    if int(os.environ.get("RANK", 0)) > 0:
        return
    show(cells, options.plot, trained)


def report(options: argparse.Namespace) -> None:
    """Show stored results without measuring anything."""
    check_plot(options.plot)
    with packages():
        from ropewalk import evaluation
    show(evaluation.read_cells(*options.results), options.plot, options.trained_length)


def show(cells: Sequence[Cell], plot: Path | None, trained_length: int | None) -> None:
    """Print the table and the sentences, and write the plots."""
    from ropewalk.evaluation import _report

    print(_report.table(cells, shutil.get_terminal_size((100, 24)).columns))
    for sentence in _report.sentences(cells):
        print(sentence)
    if plot:
        from ropewalk.evaluation import _plots

        _plots.plot(cells, plot, trained_length)


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Report a missing package by the name of the extra that installs it."""
    try:
        yield
    except ModuleNotFoundError as problem:
        if problem.name not in PACKAGES:
            raise
        raise rw.Error(f"ropewalk: this needs {problem.name}: pip install 'ropewalk[evaluate]'") from None


@contextlib.contextmanager
def _warnings_of_documents() -> Iterator[None]:
    """Show warnings of make_qa() as one line each, and none of other packages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("once", r"\d+ of \d+ documents are left out")
        warnings.showwarning = lambda message, *_, **__: print(f"ropewalk: {message}", file=sys.stderr)
        yield


def _quiet() -> None:
    """Switch off progress bars and advice of Transformers. Its warnings about lengths are what is measured here."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
