"""Show what scaling methods for rotary position encodings do, before training or running a model with them.

examples:
  python -m ropewalk inspect linear:8
  python -m ropewalk inspect path/to/config.json
  python -m ropewalk inspect yarn:16,original_length=4096 --plot yarn.png
  python -m ropewalk compare linear:8 yarn:8,original_length=4096 truncated:4096 --plot compare.png
  python -m ropewalk compare linear:4 ntk:4 --config path/to/config.json
  python -m ropewalk write yarn:4 path/to/config.json
  python -m ropewalk evaluate path/to/model --policies default linear:2 yarn:2 --lengths 4096 8192

`python -m ropewalk inspect --help` lists the policies and the options.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ropewalk as rw
from ropewalk import _card, _evaluate, _inspect, _target

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYER_TYPE = "full_attention, ... for configurations with several"
IMAGES = (".png", ".svg")
SENTENCES = {
    "inspect": "show one scaling method in detail",
    "compare": "compare scaling methods in a table",
    "write": "write a scaling method into the config.json of a model",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        COMMANDS[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`; without this, Python reports a second error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        return fail(f"{problem.filename or 'standard output'}: {problem.strerror}")
    except UnicodeDecodeError as problem:
        return fail(f"the configuration is not UTF-8 text: {problem}")
    except ModuleNotFoundError as problem:
        return fail(f"--plot needs {problem.name}: pip install 'ropewalk[plot]'")
    except rw.Error as problem:  # messages begin with the name of the library
        message = str(problem).removeprefix("ropewalk: ")
        return fail(re.sub(r"( |pass )layer_type(?= must be|,)", r"\1--layer-type", message))
    return 0


def check(options: argparse.Namespace) -> None:
    """Check what encodings and configurations would report without the names of the options."""
    words = options.targets if options.command == "compare" else [options.target]
    for text in (*words, options.config or "", options.layer_type or ""):
        if not is_utf8(text):
            raise rw.Error(f"ropewalk: {text!r} is not UTF-8 text")
    if options.command == "write":
        return
    if options.layer_type is not None and not options.config and not any(map(_target.is_config, words)):
        raise rw.Error(f"ropewalk: --layer-type needs a configuration, got the expression {words[0]}")
    for name in ("head_dim", "rotary_dim", "sequence_length"):
        value = getattr(options, name)
        if value is not None and not -(2**63) <= value < 2**63:
            raise rw.Error(f"ropewalk: --{name.replace('_', '-')} must be in [1, 2^63), got {value}")


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write(options: argparse.Namespace) -> None:
    """Write the policy into the configuration, and print the options of engines that read no config.json."""
    check(options)
    own = rw.from_config(options.config, options.layer_type, policy="default")
    encoding = rw.from_config(options.config, options.layer_type, policy=options.target)
    if options.base is not None:
        encoding = _inspect.like(encoding, encoding.expression, base=options.base)
    print(f"{rw.write_hf_config(encoding, options.config, options.layer_type)}: {encoding}")
    if own.base != encoding.base:
        print(f"base: {own.base:.10g} -> {encoding.base:.10g}")
    print(f"vLLM without this file: --hf-overrides {shlex.quote(json.dumps(rw.to_vllm_overrides(encoding)))}")
    try:
        print(f"llama.cpp: {rw.to_llama_cpp_flags(encoding)}")
    except rw.Error as problem:
        print(f"llama.cpp: {str(problem).removeprefix('ropewalk: ')}")


def show(options: argparse.Namespace) -> None:
    check(options)
    comparing = options.command == "compare"
    targets = _target.load_all(options.targets if comparing else [options.target], options)
    inspections = [target.inspection() for target in targets]
    if options.plot:
        from ropewalk import _plot

        kind = options.plot.suffix[1:]
        if comparing:
            _plot.plot_comparison(targets, options.plot, kind)
        else:
            _plot.plot_one(targets[0], options.plot, kind)
    if options.json:
        numbers = [inspection.to_dict() for inspection in inspections]
        print(json.dumps(numbers if comparing else numbers[0], indent=1))
    else:
        first, notes = inspections[0], [target.notes for target in targets]
        _card.show(_card.comparison_card(inspections, notes) if comparing else _card.inspection_card(first, notes[0]))


COMMANDS = {
    "inspect": show,
    "compare": show,
    "write": write,
    "evaluate": _evaluate.run,
    "report": _evaluate.report,
}


def fail(problem: object) -> int:
    print(f"ropewalk: {problem}", file=sys.stderr)
    return 2


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ropewalk", description=__doc__, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"ropewalk {rw.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in SENTENCES.items():
        command = commands.add_parser(
            name, help=sentence, description=sentence, epilog=known_policies(), formatter_class=raw
        )
        target = "a policy expression such as linear:8, or the path of a config.json or of its folder"
        if name == "compare":
            command.add_argument("targets", nargs="+", metavar="target", help=target)
        elif name == "inspect":
            command.add_argument("target", help=target)
        if name == "write":
            command.add_argument("target", metavar="policy", help="a policy expression such as yarn:4")
            command.add_argument("config", help="the config.json to change, or its folder")
            command.add_argument("--base", type=float, metavar="X", help="rope_theta (default: that of the file)")
            command.add_argument("--layer-type", metavar="NAME", help=LAYER_TYPE)
        else:
            add_options(command)
    sentence = "measure what scaling methods do to a language model"
    epilog = f"{_evaluate.EXAMPLES}\n{known_policies()}"
    evaluate = commands.add_parser("evaluate", help=sentence, description=sentence, epilog=epilog, formatter_class=raw)
    _evaluate.add_arguments(evaluate)
    sentence = "show stored results of evaluate, without measuring"
    _evaluate.add_report_arguments(commands.add_parser("report", help=sentence, description=sentence))
    return parser


def known_policies() -> str:
    lines = ["policies (joined by |, as in 'linear:4|truncated:4096'):"]
    for name in rw.policies():
        lines.append(f"  {name:19}{getattr(rw.policy(name), 'about', '')}")
    return "\n".join(lines)


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="PATH", help="head, base and original length of a model, for expressions")
    for name, kind, text in (
        ("--head-dim", int, "elements per head, for expressions (default: 128)"),
        ("--base", float, "rope_theta, for expressions (default: 10000)"),
        ("--rotary-dim", int, "elements to rotate, for expressions (default: all)"),
        ("--original-length", int, "tokens of the original training (default: of the policy, else 4096)"),
        ("--length", int, "tokens of the extended context (default: of the configuration, else original x factor)"),
        ("--sequence-length", int, "for policies that depend on it (default: the extended length)"),
    ):
        command.add_argument(name, type=kind, metavar="N" if kind is int else "X", help=text)
    command.add_argument("--layout", choices=["half_split", "interleaved"], help="the elements of a pair")
    command.add_argument("--layer-type", metavar="NAME", help=LAYER_TYPE)
    command.add_argument("--json", action="store_true", help="print all numbers as JSON")
    command.add_argument("--plot", type=image, metavar="FILE", help="write a plot, .png or .svg")


def image(path: str) -> Path:
    if Path(path).suffix not in IMAGES:
        raise argparse.ArgumentTypeError(f"{path!r} must end in {' or '.join(IMAGES)}")
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
