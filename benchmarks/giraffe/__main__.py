"""Command line of the Giraffe lab: `python -m benchmarks.giraffe [--seed N] [--device cuda]`, or `make giraffe`.

Trains a small model, fine-tunes it with each scaling method, evaluates retrieval and perplexity by length, and writes
the results, a plot and the tables of docs/giraffe.md. A second run continues where the first one stopped.
"""

import argparse
import json
import platform
import re
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import ropewalk as rw
import torch

from ..python.bench_common import commit
from . import report
from .experiment import SETTINGS, Experiment, NotEmerged


def arguments(words=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.giraffe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of weights, language and rows (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--settings", choices=SETTINGS, help="sizes; default: small on the CPU, large with cuda")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU (default: 2)")
    parser.add_argument("--out", type=Path, help="JSON file (default: benchmarks/results/giraffe_seed<N>.json)")
    parser.add_argument("--store", type=Path, help="folder of finished stages (default: build/giraffe/<settings>_<N>)")
    parser.add_argument("--machine", help="name of the machine in the results (default: that of its processor or GPU)")
    parser.add_argument("--report", action="store_true", help="only write plot and page from the recorded results")
    options = parser.parse_args(words)
    if options.seed < 0:
        parser.error(f"--seed must not be negative, got {options.seed}")
    if options.threads < 1:
        parser.error(f"--threads must be positive, got {options.threads}")
    if options.device == "cuda" and not options.report and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device; leave it out to run the small model on the CPU")
    options.settings = options.settings or {"cpu": "small", "cuda": "large"}[options.device]
    # The page shows the small model. Files of other sizes have another name.
    size = "" if options.settings == "small" else f"{options.settings}_"
    options.out = options.out or report.RESULTS / f"giraffe_{size}seed{options.seed}.json"
    options.store = options.store or report.ROOT / "build" / "giraffe" / f"{options.settings}_{options.seed}"
    if not options.report:
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.open("a").close()
        except OSError as error:
            parser.error(f"cannot write {options.out}: {error.strerror}")
        if not options.out.stat().st_size:
            options.out.unlink()
    return options


def run(options):
    """Run all stages and return the results."""
    torch.set_num_threads(options.threads)
    settings = SETTINGS[options.settings]
    measured_commit = commit()  # before the run, during which files may change
    experiment = Experiment(settings, options.seed, options.device, options.store)
    found = experiment.run()
    seconds = found["pretraining"]["seconds"] + sum(method["seconds"] for method in found["methods"])
    context = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": options.machine or machine(options.device),
        "device": options.device,
        "threads": options.threads,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "commit": measured_commit,
        "versions": {"ropewalk": rw.__version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    return {"context": context, "settings": asdict(settings), **found}


def machine(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def write(result, path):
    """Write one row of a table per line."""
    text = json.dumps(result, indent=1)
    path.write_text(re.sub(r"\{\n\s+\"policy\".*?\}", one_line, text, flags=re.DOTALL) + "\n", encoding="utf-8")


def one_line(match):
    return json.dumps(json.loads(match[0]))


def main(words=None):
    options = arguments(words)
    try:
        if not options.report:
            result = run(options)
            write(result, options.out)
            print(report.summary([report.Figures(json.loads(json.dumps(result)))]))
            print(f"giraffe: {result['context']['seconds']:.0f} s, {options.out}", file=sys.stderr)
        if options.report or options.out == report.RESULTS / f"giraffe_seed{options.seed}.json":
            report.report(report.RESULTS.glob("giraffe_seed*.json"))
            print(f"giraffe: {report.PAGE}", file=sys.stderr)
    except (NotEmerged, ValueError) as error:
        sys.exit(f"giraffe: {error}")
    except KeyboardInterrupt:
        sys.exit(f"giraffe: stopped; finished stages are in {options.store}")


if __name__ == "__main__":
    main()
