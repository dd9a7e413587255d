"""What a scheme does, seen before it costs anything.

python -m ropewalk inspect yarn:16,original_length=4096 --plot yarn.png
python -m ropewalk inspect path/to/config.json
python -m ropewalk compare linear:8 yarn:8,original_length=4096 truncated:4096 --plot compare.png
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ropewalk as rw
from ropewalk import _card, _target

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGES = (".png", ".svg")
SENTENCES = {"inspect": "show one scheme on a card", "compare": "show several schemes in a table, a row each"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        check(options)
        run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        return fail(f"{problem.filename or 'standard output'}: {problem.strerror}")
    except UnicodeDecodeError as problem:
        return fail(f"the configuration is no UTF-8 text: {problem}")
    except ModuleNotFoundError as problem:
        return fail(f"--plot needs {problem.name}: pip install 'ropewalk[plot]'")
    except rw.Error as problem:  # its messages name the library themselves
        message = str(problem).removeprefix("ropewalk: ")
        return fail(message.replace(" layer_type must be", " --layer-type must be"))
    return 0


def check(options: argparse.Namespace) -> None:
    """What encodings and configurations would not say in the words of the command line."""
    words = options.targets if options.command == "compare" else [options.target]
    for text in (*words, options.layer_type or ""):
        if not is_utf8(text):
            raise rw.Error(f"ropewalk: {text!r} is no UTF-8 text")
    if options.layer_type is not None and not any(map(_target.is_config, words)):
        raise rw.Error(f"ropewalk: --layer-type is for configurations, {words[0]} is an expression")
    for name in ("head_dim", "rotary_dim", "sequence_length"):
        value = getattr(options, name)
        if value is not None and not -(2**63) <= value < 2**63:
            raise rw.Error(f"ropewalk: --{name.replace('_', '-')} must lie in [1, 2^63), got {value}")


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def run(options: argparse.Namespace) -> None:
    comparing = options.command == "compare"
    targets = _target.load_all(options.targets if comparing else [options.target], options)
    inspections = [one.inspection() for one in targets]
    if options.plot:
        from ropewalk import _plot

        (_plot.plot_comparison(targets, options.plot) if comparing else _plot.plot_one(targets[0], options.plot))
    if options.json:
        numbers = [one.to_dict() for one in inspections]
        print(json.dumps(numbers if comparing else numbers[0], indent=1))
    else:
        _card.show(_card.comparison_card(inspections) if comparing else _card.inspection_card(inspections[0]))


def fail(problem: object) -> int:
    print(f"ropewalk: {problem}", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser("python -m ropewalk", description=__doc__, formatter_class=as_written)
    made.add_argument("--version", action="version", version=f"ropewalk {rw.__version__}")
    commands = made.add_subparsers(dest="command", required=True)
    for name, sentence in SENTENCES.items():
        command = commands.add_parser(
            name, help=sentence, description=sentence, epilog=known_policies(), formatter_class=as_written
        )
        target = "a policy expression, or a config.json or the folder with it"
        if name == "compare":
            command.add_argument("targets", nargs="+", metavar="target", help=target)
        else:
            command.add_argument("target", help=target)
        add_options(command)
    return made


def known_policies() -> str:
    lines = ["policies, which compose as in linear:4|truncated:4096:"]
    for name in rw.policies():
        lines.append(f"  {name:19}{getattr(rw.policy(name), 'about', '')}")
    return "\n".join(lines)


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--head-dim", type=int, help="elements a head, for expressions (128)")
    command.add_argument("--base", type=float, help="rope_theta, for expressions (10000)")
    command.add_argument("--rotary-dim", type=int, help="elements that turn, for expressions (all)")
    command.add_argument("--layout", choices=["half_split", "interleaved"], help="which elements are a pair")
    command.add_argument("--layer-type", help="full_attention, sliding_attention, ... of a configuration")
    command.add_argument(
        "--original-length",
        type=int,
        help="tokens of the training before (what the policy or configuration says, 4096)",
    )
    command.add_argument(
        "--length", type=int, help="tokens of the extended context (as the configuration has it, factor x original)"
    )
    command.add_argument("--sequence-length", type=int, help="for schemes that depend on it (the extended length)")
    command.add_argument("--json", action="store_true", help="print all numbers as JSON")
    command.add_argument("--plot", type=image, metavar="FILE", help="draw into a .png or .svg")


def image(path: str) -> Path:
    if Path(path).suffix not in IMAGES:
        raise argparse.ArgumentTypeError(f"{path!r} must end in {' or '.join(IMAGES)}")
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
