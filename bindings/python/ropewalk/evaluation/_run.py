"""A run of an evaluation: policies, tasks and lengths, shared among ranks and stored after every cell."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

import ropewalk as rw
from ropewalk import _ropewalk
from ropewalk.evaluation import _lines, _model, _qa, _report, _tasks, _text
from ropewalk.evaluation._results import Cell, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TASKS = ("perplexity", "sliding", "lines", "qa")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the result of a cell depends on, except the model, the policy, the task and the length."""

    samples: int = _tasks.SAMPLES
    texts: int = _tasks.TEXTS
    stride: int = _tasks.STRIDE
    seed: int = 0
    chat: bool = False
    answer_start: bool | None = None
    new_tokens: int | None = None
    altered: bool = False
    text: tuple[str, ...] = ()  # files
    lines: tuple[str, ...] = ()
    qa: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON: of a file, its name and a digest of its contents."""
        values = dataclasses.asdict(self)
        for name in ("text", "lines", "qa", "documents"):
            values[name] = [f"{Path(file).name} {_digest(Path(file).read_bytes())}" for file in values[name]]
        if not self.text:
            values["text"] = [f"pydoc_data.topics {_digest(_text.default_text().encode())}"]
        return values


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell to measure."""

    policy: str
    task: str
    length: int  # 0 for the rows of a file
    file: str | None = None

    def key(self) -> tuple[Any, ...]:
        return (self.policy, self.task, self.length, self.file and Path(self.file).name)


class Ranks:
    """The processes of a torchrun, or this process alone."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1:
            torch.distributed.init_process_group("gloo")

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, on every rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def close(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


class Store:
    """The finished cells of a run, in a JSON file that is replaced after every cell.

    The file is a list with one cell per line. Each row repeats the model, the settings and the versions. A rank after
    the first has a file of its own until the end.

    Raises:
        Error: The file is no such list, or its rows are of another model or of other settings.
    """

    def __init__(self, path: Path | None, header: dict[str, Any], ranks: Ranks) -> None:
        self.path, self.header, self.ranks = path, header, ranks
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.own = None
        if path is not None:
            self.own = path if ranks.rank == 0 else path.with_name(f"{path.name}.rank{ranks.rank}")
            self._read(self.own)
        self.share()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        rows = read_rows(path)
        for row in rows:
            for name in ("model", "fingerprint", "dtype", "settings"):
                _check_same(path, name, row.get(name), self.header[name])
            self.rows[_key(row)] = row

    def share(self) -> None:
        """Give every rank the rows of all."""
        for rows in self.ranks.gather(self.rows):
            self.rows.update(rows)

    def cell(self, job: Job) -> Cell | None:
        row = self.rows.get(job.key())
        return None if row is None else Cell.from_dict(row)

    def add(self, job: Job, cell: Cell) -> None:
        file = None if job.file is None else Path(job.file).name
        self.rows[job.key()] = {**cell.to_dict(), "file": file, "asked_length": job.length, **self.header}
        self.write()

    def write(self) -> None:
        if self.own is None:
            return
        text = "[\n" + ",\n".join(json.dumps(row) for row in self.rows.values()) + "\n]\n"
        part = self.own.with_name(self.own.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(self.own)

    def close(self) -> None:
        """Bring the rows of all ranks into one file."""
        self.share()
        if self.ranks.rank == 0:
            self.write()
        self.ranks.gather(None)  # the first file is complete before the others are removed
        if self.ranks.rank > 0 and self.own is not None:
            self.own.unlink(missing_ok=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["policy"], row["task"], row.get("asked_length"), row.get("file"))


def _check_same(path: Path, name: str, found: Any, wanted: Any) -> None:
    wanted = json.loads(json.dumps(wanted))  # tuples become lists
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in wanted:
            _check_same(path, f"{name}.{key}", found.get(key), wanted[key])
    raise _ropewalk.Error(
        f"ropewalk: {path} has results of another run: its {name} is {found!r}, here it is {wanted!r}; "
        "pass another file, or remove it"
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def header(model: Any, path: str | Path, settings: Settings) -> dict[str, Any]:
    """Return what every row of a result file repeats."""
    return {
        "model": Path(path).resolve().name,
        "fingerprint": _model.fingerprint(path),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine(),
        "attention": getattr(model.config, "_attn_implementation", None),
        "seed": settings.seed,
        "settings": settings.to_dict(),
        "versions": {"ropewalk": rw.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def jobs_of(policies: Sequence[str], tasks: Sequence[str], lengths: Sequence[int], settings: Settings) -> list[Job]:
    """Return the cells of a run, the shortest first.

    Raises:
        Error: A task is unknown or has no rows, a length is not positive, or a name occurs twice.
    """
    for name, values in (("policy", policies), ("task", tasks), ("length", lengths)):
        for value in values:
            if list(values).count(value) > 1:
                raise _ropewalk.Error(f"ropewalk: {name} {value} is given twice")
    jobs = []
    for task in tasks:
        if task not in TASKS:
            raise _ropewalk.Error(f"ropewalk: unknown task {task!r}; tasks are {', '.join(TASKS)}")
        files = {"lines": settings.lines, "qa": settings.qa}.get(task, ())
        if task == "qa" and not files and not settings.documents:
            raise _ropewalk.Error("ropewalk: task qa needs rows (--qa) or documents (--documents)")
        if files:
            jobs += [Job(policy, task, 0, file) for file in files for policy in policies]
        else:
            jobs += [Job(policy, task, length) for length in sorted(lengths) for policy in policies]
    for length in lengths:
        if length < 1:
            raise _ropewalk.Error(f"ropewalk: length must be positive, got {length}")
    return sorted(jobs, key=lambda job: job.length)  # stable: policies stay together


class Runner:
    """Measures the cells of a run that are not stored yet."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        jobs: Sequence[Job],
        settings: Settings,
        store: Store,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.tokenizer, self.settings, self.store, self.say = model, tokenizer, settings, store, say
        self.jobs = jobs
        self.text: list[int] = []  # tokens
        if any(job.task in ("perplexity", "sliding") for job in jobs):
            text = _text.read_texts(settings.text) if settings.text else _text.default_text()
            self.text = _text.tokens_of(tokenizer, text)
        self.documents = [one for file in settings.documents for one in _qa.read_documents(file)]
        self.rows: dict[tuple[str, int, str | None], Any] = {}  # equal for all policies

    def check(self) -> None:
        """Fail before the first cell instead of hours later: texts that are too short, memory, rows, policies.

        Raises:
            Error: The text is too short, the memory is not enough, or as make_lines(), make_qa() and patch().
        """
        jobs = [job for job in self.jobs if self.store.cell(job) is None]
        for length in sorted({job.length for job in jobs if job.task in ("perplexity", "sliding")}):
            stride = min(self.settings.stride, length) if any(job.task == "sliding" for job in jobs) else None
            _tasks.text_windows(self.tokenizer, self.text, length, 1, stride)
        free = _model.free_bytes(self.model.device)
        for length in sorted({job.length for job in jobs}):
            needed = _model.needed_bytes(self.model, length)
            if free is not None and needed > free:
                raise _ropewalk.Error(
                    f"ropewalk: length {length} needs about {needed / 1e9:.1f} GB of memory, "
                    f"{free / 1e9:.1f} GB are free"
                )
        for job in jobs:
            if job.task in ("lines", "qa"):
                self.rows_of(job)
        for policy in dict.fromkeys(job.policy for job in jobs):
            with _model.applied(self.model, policy):
                pass

    def run(self) -> None:
        jobs, ranks = self.jobs, self.store.ranks
        left = [job for job in jobs if self.store.cell(job) is None]
        mine = _share(left, [self.cost(job) for job in left], ranks.count)[ranks.rank]
        if len(left) < len(jobs):
            self.say(f"{len(jobs) - len(left)} of {len(jobs)} cells are stored already")
        total, done, begin = sum(map(self.cost, mine)), 0.0, time.perf_counter()
        for number, job in enumerate(mine):
            name = f"[{number + 1}/{len(mine)}] {job.task} {job.policy} {job.length or Path(str(job.file)).name}"
            with _progress(name) as progress:
                cell = self.measure(job, progress)
            self.store.add(job, cell)
            done += self.cost(job)
            rest = (total - done) * (time.perf_counter() - begin) / done
            left_over = f", about {_duration(rest)} left" if number + 1 < len(mine) else ""
            self.say(f"{name}: {_report.with_interval(cell)} in {_duration(cell.seconds)}{left_over}")

    def cost(self, job: Job) -> float:
        """Return the relative time of a cell."""
        length: float = job.length or max(len(row.prompt) / 3 for row in self.rows_of(job))
        config = self.model.config.get_text_config()
        weights = sum(p.numel() for p in self.model.parameters())
        units = self.settings.texts if job.task == "perplexity" else self.settings.samples
        return float(units * (2 * weights * length + 2 * config.num_hidden_layers * config.hidden_size * length**2))

    def measure(self, job: Job, progress: Any = None) -> Cell:
        s, both = self.settings, (self.model, self.tokenizer)
        common: dict[str, Any] = {"policy": job.policy, "progress": progress}
        if job.task == "perplexity":
            return _tasks.perplexity(*both, length=job.length, text=self.text, texts=s.texts, **common)
        if job.task == "sliding":
            stride = min(s.stride, job.length)
            return _tasks.sliding(*both, length=job.length, text=self.text, samples=s.samples, stride=stride, **common)
        options = {"rows": self.rows_of(job), "length": job.length or None, "chat": s.chat, **common}
        if job.task == "lines":
            return _tasks.lines(*both, answer_start=s.answer_start, new_tokens=s.new_tokens, **options)
        return _tasks.qa(*both, new_tokens=s.new_tokens or 50, **options)

    def rows_of(self, job: Job) -> Any:
        """Return the rows of a cell of lines or qa."""
        key, s = (job.task, job.length, job.file), self.settings
        if key not in self.rows:
            if job.file is not None:
                read = _lines.read_lines if job.task == "lines" else _qa.read_qa
                self.rows[key] = read(job.file)[: s.samples]
            elif job.task == "lines":
                self.rows[key] = _tasks.rows_of_length(
                    self.tokenizer, job.length, s.samples, s.seed, s.chat, s.answer_start
                )
            else:
                length = job.length - _tasks.tokens_outside(self.tokenizer, "a", s.chat)
                self.rows[key] = _qa.make_qa(self.documents, self.tokenizer, length, s.samples, s.seed, s.altered)
        return self.rows[key]


def _share(jobs: Sequence[Job], costs: Sequence[float], count: int) -> list[list[Job]]:
    """Return the jobs of each rank, so that the most expensive rank costs little more than the others."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for number in sorted(range(len(jobs)), key=lambda n: -costs[n]):
        rank = sums.index(min(sums))
        shares[rank].append(number)
        sums[rank] += costs[number]
    return [[jobs[number] for number in sorted(share)] for share in shares]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show the finished rows of a cell on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    yield lambda done, count: print(f"\r{name}: {done}/{count}\033[K", end="", file=sys.stderr, flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)


def evaluate(
    path: str | Path,
    policies: Sequence[str] = ("from-config",),
    tasks: Sequence[str] = ("perplexity", "lines"),
    lengths: Sequence[int] = (2048, 4096),
    settings: Settings | None = None,
    json_path: Path | None = None,
    dtype: str = "auto",
    device: str | None = None,
    attention: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Cell], int | None]:
    """Evaluate a model with several policies, as `python -m ropewalk evaluate` does.

    Args:
        path: A Hugging Face folder or a GGUF file.
        policies: Expressions, or "from-config" for the scaling of the model's configuration.
        tasks: Of TASKS.
        lengths: Tokens.
        json_path: Stores every cell when it is finished. Cells that it holds are not measured again.
        dtype, device, attention: As load().
        say: Called with lines about the progress.

    Returns:
        The cells in the order of tasks, lengths and policies; under torchrun, of all ranks. And the length for which
        the model was trained, None if its configuration does not have it.

    Raises:
        Error: Bad input; nothing is measured then. Or the file holds results of another run.
    """
    settings = settings or Settings()
    jobs = jobs_of(policies, tasks, lengths, settings)
    ranks = Ranks()
    try:
        if device is None and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        model, tokenizer = _model.load(path, dtype, device, attention)
        store = Store(json_path, header(model, path, settings), ranks)
        runner = Runner(model, tokenizer, jobs, settings, store, say if ranks.rank == 0 else lambda line: None)
        runner.check()
        runner.run()
        store.close()
    finally:
        ranks.close()
    cells = [cell for job in jobs if (cell := store.cell(job)) is not None]
    return cells, getattr(model.config.get_text_config(), "max_position_embeddings", None)
