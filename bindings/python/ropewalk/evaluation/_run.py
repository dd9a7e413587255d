"""A run of an evaluation: policies, tasks and lengths, shared among ranks and stored after every cell."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import glob
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

import ropewalk as rw
from ropewalk import _files, _ropewalk
from ropewalk.evaluation import _lines, _model, _qa, _report, _tasks, _text
from ropewalk.evaluation._results import Cell, read_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Settings on which the results of a task depend. Rows of a file replace those of ROWS.
TASKS = {
    "perplexity": ("texts", "text"),
    "sliding": ("samples", "stride", "text"),
    "lines": ("samples", "chat", "answer_start", "new_tokens", "seed"),
    "qa": ("samples", "chat", "new_tokens", "seed", "altered", "documents"),
}
ROWS = ("seed", "altered", "documents")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run. A result also depends on the model, the policy, the task and the length."""

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


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell to measure."""

    policy: str
    task: str
    length: int  # 0 for the rows of a file
    file: str | None = None

    def key(self) -> tuple[Any, ...]:
        return (self.policy, self.task, self.length, self.file and Path(self.file).name)

    def __str__(self) -> str:
        return f"{self.task} {self.policy} {self.length or Path(str(self.file)).name}"


def settings_of(jobs: Sequence[Job], settings: Settings) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return by the key of a job the settings on which it depends, for JSON: of a file, its name and a digest."""

    @functools.cache
    def named(file: str) -> str:
        path = _files.as_path(file, "files")
        return f"{path.name} {_digest(_files.read_bytes(path))}"

    @functools.cache
    def value(name: str) -> Any:
        if name == "text" and not settings.text:
            return [f"pydoc_data.topics {_digest(_text.default_text().encode())}"]
        found = getattr(settings, name)
        return [named(file) for file in found] if name in ("text", "documents") else found

    return {
        job.key(): {name: value(name) for name in TASKS[job.task] if job.file is None or name not in ROWS}
        | ({} if job.file is None else {"rows": named(job.file)})
        for job in jobs
    }


class Ranks:
    """The processes of a torchrun, or this process alone."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1:
            try:  # the first rank that finishes waits for the last one
                torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=365))
            except (ValueError, RuntimeError) as problem:
                raise _ropewalk.Error(
                    f"ropewalk: WORLD_SIZE is {self.count}, but the ranks cannot connect: {_model.reason(problem)}; "
                    "start them by torchrun, or unset WORLD_SIZE"
                ) from None

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

    The file is a list with one cell per line. Each row repeats the model, the versions and the settings of its task.
    Rows of other cells stay. A rank after the first has a file of its own until the end.

    Raises:
        Error: The file is no such list, its rows are of another model, or a cell of this run has other settings there.
    """

    def __init__(
        self, path: Path | None, header: dict[str, Any], settings: dict[tuple[Any, ...], dict[str, Any]], ranks: Ranks
    ) -> None:
        self.path, self.header, self.settings, self.ranks = path, header, settings, ranks
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.own = None
        if path is not None:
            self.own = path if ranks.rank == 0 else path.with_name(f"{path.name}.rank{ranks.rank}")
            for file in (path, *self._files_of_ranks()):  # also of ranks that an earlier run had
                self.rows.update(self._read(file))
        self.share()

    def _files_of_ranks(self) -> list[Path]:
        return [] if self.path is None else [*self.path.parent.glob(f"{glob.escape(self.path.name)}.rank*")]

    def _read(self, path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
        if not path.exists():
            return {}
        found = {_key(row): row for row in read_results(path)}
        for key, row in found.items():
            for name in ("model", "fingerprint", "dtype"):
                _check_same(path, name, row.get(name), self.header[name])
            if key in self.settings:
                _check_same(path, "settings", row.get("settings"), self.settings[key])
        return found

    def share(self) -> None:
        """Give every rank the rows of all."""
        for rows in self.ranks.gather(self.rows):
            self.rows.update(rows)

    def cell(self, job: Job) -> Cell | None:
        row = self.rows.get(job.key())
        return None if row is None else Cell.from_dict(row)

    def add(self, job: Job, cell: Cell) -> None:
        own = {"file": job.key()[-1], "asked_length": job.length, "settings": self.settings[job.key()]}
        own["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.rows[job.key()] = {**cell.to_dict(), **self.header, **own}
        self.write()

    def write(self) -> None:
        if self.own is None:
            return
        self.rows = {**self._read(self.own), **self.rows}  # another process may have added some
        text = "[\n" + ",\n".join(json.dumps(row) for row in self.rows.values()) + "\n]\n"
        target = self.own.resolve()  # of a link, which stays
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        except OSError as problem:
            part.unlink(missing_ok=True)
            raise OSError(problem.errno, problem.strerror, str(self.own)) from None

    def close(self) -> None:
        """Bring the rows of all ranks into one file."""
        self.share()
        if self.ranks.rank == 0:
            self.write()
        self.ranks.gather(None)  # the first file is complete before the others are removed
        for file in self._files_of_ranks():
            file.unlink(missing_ok=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["policy"], row["task"], row.get("asked_length"), row.get("file"))


def _check_same(path: Path, name: str, found: Any, wanted: Any) -> None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in wanted:
            _check_same(path, f"{name}.{key}", found.get(key), wanted[key])
    elif found != wanted:
        raise _ropewalk.Error(
            f"ropewalk: {path} has results of another run: its {name} is {found!r}, here it is {wanted!r}; "
            "pass another file, or remove it"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _processor() -> str:
    """Return the name of the processor, or of its architecture where /proc does not have it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def header(model: Any, path: str | Path, settings: Settings) -> dict[str, Any]:
    """Return what every row of a result file repeats."""
    return {
        "model": Path(path).resolve().name,
        "fingerprint": _model.fingerprint(path),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else _processor(),
        "attention": getattr(model.config, "_attn_implementation", None),
        "seed": settings.seed,
        "versions": {"ropewalk": rw.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def jobs_of(policies: Sequence[str], tasks: Sequence[str], lengths: Sequence[int], settings: Settings) -> list[Job]:
    """Return the cells of a run, the shortest first.

    Raises:
        Error: A task is unknown or has no rows, a length is not positive, or a name occurs twice.
    """
    rows = {"lines": settings.lines, "qa": settings.qa}
    names = {f"file of {task}": [Path(file).name for file in files] for task, files in rows.items()}
    for name, values in {"policy": policies, "task": tasks, "length": lengths, **names}.items():
        for value in values:
            if list(values).count(value) > 1:
                raise _ropewalk.Error(f"ropewalk: {name} {value} is given twice")
    jobs = []
    for task in tasks:
        if task not in TASKS:
            raise _ropewalk.Error(f"ropewalk: unknown task {task!r}; tasks are {', '.join(TASKS)}")
        files = rows.get(task, ())
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
        self.lengths: dict[tuple[str, str | None], int] = {}  # of files: tokens of the longest prompt

    def check(self) -> None:
        """Fail before the first cell instead of hours later: texts that are too short, memory, rows, policies.

        Raises:
            Error: The text is too short, the memory is not enough, or as make_lines(), make_qa() and patch().
        """
        jobs = [job for job in self.jobs if self.store.cell(job) is None]
        for task, length in sorted({(job.task, job.length) for job in jobs}):
            if task in ("perplexity", "sliding"):
                stride = self.settings.stride if task == "sliding" else None
                _tasks.text_windows(self.tokenizer, self.text, length, 1, stride)
        free = _model.free_bytes(self.model.device)
        for length in sorted({self.length_of(job) for job in jobs}):
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
        costs = {job: self.cost(job) for job in left}
        mine = _share(left, [*costs.values()], ranks.count)[ranks.rank]
        if len(left) < len(jobs):
            self.say(f"{len(jobs) - len(left)} of {len(jobs)} cells are stored already")
        total, done, begin = sum(costs[job] for job in mine), 0.0, time.perf_counter()
        for number, job in enumerate(mine):
            name = f"[{number + 1}/{len(mine)}] {job}"
            with _progress(name) as progress:
                try:
                    cell = self.measure(job, progress)
                except (_ropewalk.Error, RuntimeError) as problem:  # RuntimeError: memory of the GPU
                    text = str(problem) if isinstance(problem, _ropewalk.Error) else _model.reason(problem)
                    raise _ropewalk.Error(f"ropewalk: {job}: {text.removeprefix('ropewalk: ')}") from problem
            self.store.add(job, cell)
            done += costs[job]
            rest = (total - done) * (time.perf_counter() - begin) / done
            left_over = f", about {_duration(rest)} left" if number + 1 < len(mine) else ""
            self.say(f"{name}: {_report.with_interval(cell)} in {_duration(cell.seconds)}{left_over}")

    def cost(self, job: Job) -> float:
        """Return the relative time of a cell."""
        length = float(self.length_of(job))
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
            options = {"samples": s.samples, "stride": s.stride, **common}
            return _tasks.sliding(*both, length=job.length, text=self.text, **options)
        options = {"rows": self.rows_of(job), "length": job.length or None, "chat": s.chat, **common}
        if job.task == "lines":
            return _tasks.lines(*both, answer_start=s.answer_start, new_tokens=s.new_tokens, **options)
        return _tasks.qa(*both, new_tokens=s.new_tokens or 50, **options)

    def length_of(self, job: Job) -> int:
        """Return the length of a cell, for rows of a file that of the longest prompt."""
        if job.file is None:
            return job.length
        key = (job.task, job.file)
        if key not in self.lengths:
            starts = self.settings.answer_start if job.task == "lines" else False
            tokens = _tasks.whole_prompts(self.tokenizer, self.settings.chat, starts)
            self.lengths[key] = max(len(tokens(row.prompt)["input_ids"]) for row in self.rows_of(job))
            same = [one for one in self.lengths if one[0] == job.task and self.lengths[one] == self.lengths[key]]
            if len(same) > 1:
                files = " and ".join(str(file) for _, file in same)
                raise _ropewalk.Error(
                    f"ropewalk: the longest prompts of {files} have {self.lengths[key]} tokens each, and a table has "
                    "one column per length; evaluate the files one by one, or join them"
                )
        return self.lengths[key]

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
                tokens = _tasks.whole_prompts(self.tokenizer, s.chat)
                self.rows[key] = _qa.make_qa(self.documents, tokens, job.length, s.samples, s.seed, s.altered)
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
    width = shutil.get_terminal_size((100, 24)).columns - 1  # a line that wraps would not be erased

    def show(done: int, count: int) -> None:
        print(f"\r{f'{name}: {done}/{count}'[-width:]}\033[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
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
    wanted = settings_of(jobs, settings)
    ranks = Ranks()
    try:
        if device is None and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        model, tokenizer = _model.load(path, dtype, device, attention)
        store = Store(json_path, header(model, path, settings), wanted, ranks)
        runner = Runner(model, tokenizer, jobs, settings, store, say if ranks.rank == 0 else lambda line: None)
        runner.check()
        runner.run()
        store.close()
    finally:
        ranks.close()
    cells = [cell for job in jobs if (cell := store.cell(job)) is not None]
    return cells, getattr(model.config.get_text_config(), "max_position_embeddings", None)
