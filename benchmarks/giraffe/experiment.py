"""Pretraining, fine-tuning with each method, and evaluation of the fine-tuned models.

Finished stages are stored, so that a second run continues: the pretrained weights, and the results of each method.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import ropewalk as rw
import torch
from torch.nn import functional

from .data import Generator, Vocabulary, answer_places, context_tokens
from .methods import methods
from .model import TinyLlama

# Streams of random numbers, one per purpose, so that every method is trained on the same rows and tested on the same.
PRETRAINING, FINETUNING, LINES, TEXT = range(4)


@dataclass(frozen=True)
class Settings:
    """Sizes of the model and of the experiment. Lengths are in tokens, `shares` are of (lines, text, repeats).

    Args:
        length: The context length of pretraining, L0. Fine-tuning has 2 * length.
        curriculum: Stages of pretraining, (length, steps). A long context from the start delays retrieval.
        batch, finetune_batch: Tokens per step.
        multiples: Lengths of the evaluation as multiples of `length`.
        ratios: Scales of the evaluation as multiples of that of fine-tuning.
        lines, questions: Lines and questions per row of the evaluation. Their number does not grow with the length:
            only the distance does.
        queries, text: Questions, and tokens of text, per cell of the evaluation.
        most_lines: Limit of the lines per row in training.
        emerged: The accuracy at `length` that pretraining must reach.
        autocast: Whether to compute in bfloat16.
    """

    name: str
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    layers: int = 2
    width: int = 64
    heads: int = 2
    hidden: int = 128
    base: float = 625.0
    length: int = 128
    curriculum: tuple[tuple[int, int], ...] = ((32, 600), (64, 300), (128, 700))
    batch: int = 2048
    learning_rate: float = 3e-3
    shares: tuple[float, float, float] = (0.45, 0.15, 0.4)
    finetune_steps: int = 200
    finetune_batch: int = 6144
    finetune_rate: float = 1e-3
    finetune_shares: tuple[float, float, float] = (0.6, 0.25, 0.15)
    most_lines: int = 24
    multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    ratios: tuple[int, ...] = (1, 2, 3, 4)
    lines: int = 20
    questions: int = 8
    queries: int = 768
    text: int = 32768
    evaluation_batch: int = 8192
    emerged: float = 0.9
    autocast: bool = False

    @property
    def parameters(self):
        per_layer = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        return self.vocabulary.size * self.width + self.layers * per_layer + self.width

    def flops(self, tokens, length):
        """Forward operations of a batch of rows of `length` tokens: projections and causal attention."""
        return tokens * (2 * self.parameters + 2 * self.layers * length * self.width)


SMALL = Settings("small")
LARGE = Settings(
    "large",
    vocabulary=Vocabulary(keys=2048, values=256, symbols=256),
    layers=8,
    width=512,
    heads=8,
    hidden=1408,
    base=2500.0,
    length=512,
    curriculum=((128, 400), (256, 300), (512, 500)),
    batch=65536,
    learning_rate=1e-3,
    finetune_steps=120,
    finetune_batch=65536,
    finetune_rate=3e-4,
    text=262144,
    evaluation_batch=262144,
    autocast=True,
)
# A few seconds: all stages run, and nothing is learned.
TINY = Settings(
    "tiny",
    vocabulary=Vocabulary(keys=16, values=8, symbols=16),
    layers=2,
    width=16,
    heads=2,
    hidden=16,
    length=64,
    curriculum=((32, 2), (64, 2)),
    batch=512,
    finetune_steps=2,
    finetune_batch=512,
    multiples=(1, 2, 4, 8),
    most_lines=12,
    lines=6,
    questions=4,
    queries=16,
    text=256,
    evaluation_batch=1024,
    emerged=0.0,
)
SETTINGS = {settings.name: settings for settings in (SMALL, LARGE, TINY)}


class NotEmerged(Exception):
    """Pretraining did not lead to retrieval, so that nothing can be compared."""


class Progress:
    """Prints the share of finished work and the time left, at most every few seconds."""

    def __init__(self, total, quiet=False):
        self.total, self.done, self.quiet = total, 0.0, quiet
        self.start = time.perf_counter()
        self.printed = -math.inf

    def skip(self, work, text):
        """Remove work that an earlier run has done."""
        self.total -= work
        self.say(text)

    def advance(self, work, text):
        self.done += work
        now = time.perf_counter()
        if now - self.printed >= 5:
            self.printed = now
            left = (now - self.start) * (self.total - self.done) / self.done
            self.say(f"{self.done / self.total:4.0%}, {left / 60:4.1f} min left: {text}")

    def say(self, text):
        if not self.quiet:
            print(f"giraffe: {text}", file=sys.stderr, flush=True)


class Experiment:
    """All stages of one seed. `store` is the folder of the finished stages."""

    def __init__(self, settings, seed, device, store, quiet=False):
        self.settings, self.seed, self.device, self.store = settings, seed, device, Path(store)
        self.methods = methods(settings.length)
        self.store.mkdir(parents=True, exist_ok=True)
        total = self.pretraining_work() + sum(self.method_work(method) for method in self.methods)
        self.progress = Progress(total, quiet)
        self.tests = {}

    def run(self):
        """Return the results of all stages as dictionaries for JSON."""
        weights, pretraining = self.pretrained()
        floor = math.exp(Generator(self.settings.vocabulary, self.seed, self.seed).entropy())
        found = [self.measured(method, weights) for method in self.methods]
        return {"pretraining": pretraining, "perplexity_floor": round(floor, 4), "methods": found}

    # Stages

    def pretrained(self):
        """The pretrained weights and their record, from the store if it has them.

        Raises:
            NotEmerged: Accuracy at the pretrained length is too low.
        """
        settings, path = self.settings, self.store / "pretrained.pt"
        key = self.key("pretraining")
        stored = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else {}
        if stored.get("key") != key:
            start = time.perf_counter()
            torch.manual_seed(self.seed)
            model = self.new_model()
            record = self.train(
                model, "pretraining", PRETRAINING, settings.curriculum, settings.batch, settings.learning_rate
            )
            self.require_finite(model, "pretraining")
            accuracy = self.retrieval(model, 1)["accuracy"]
            record |= {"accuracy": accuracy, "seconds": time.perf_counter() - start}
            stored = {"key": key, "weights": model.state_dict(), "record": record}
            replace(path, lambda part: torch.save(stored, part))
        else:
            self.progress.skip(self.pretraining_work(), f"pretrained weights from {path}")
        accuracy = stored["record"]["accuracy"]
        if accuracy < settings.emerged:
            raise NotEmerged(
                f"retrieval did not emerge: accuracy {accuracy:.2f} at {settings.length} tokens after pretraining, "
                f"expected at least {settings.emerged}; try another --seed, or more steps in the curriculum"
            )
        self.progress.say(f"retrieval emerged: accuracy {accuracy:.2f} at {settings.length} tokens")
        return stored["weights"], stored["record"]

    def measured(self, method, weights):
        """The results of one method, from the store if it has them."""
        path = self.store / (method.name.replace(",", "").replace(" ", "_") + ".json")
        key = self.key(asdict(method))
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if stored.get("key") == key:
            self.progress.skip(self.method_work(method), f"{method.name} from {path}")
            return stored["result"]
        start = time.perf_counter()
        model = self.new_model()
        model.load_state_dict(weights)
        record = self.finetune(model, method) if method.steps else {}
        self.require_finite(model, method.name)
        trained = time.perf_counter() - start
        rows = [row for ratio in self.settings.ratios for row in self.evaluate(model, method, ratio)]
        result = {
            "method": method.name,
            "paper": method.paper,
            "layout": method.layout,
            "ratio": method.ratio,
            "training_policy": method.training or method.expression(),
            "training": record,
            "rows": rows,
            "training_seconds": trained,
            "seconds": time.perf_counter() - start,
        }
        replace(path, lambda part: part.write_text(json.dumps({"key": key, "result": result}), encoding="utf-8"))
        return result

    def finetune(self, model, method):
        settings = self.settings
        model.set_encoding(method.training or method.expression(), method.layout)
        stages = [(2 * settings.length, method.steps * settings.finetune_steps)]
        rate, batch = settings.finetune_rate, settings.finetune_batch
        return self.train(
            model, method.name, FINETUNING, stages, batch, rate, settings.finetune_shares, method.training
        )

    def train(self, model, name, stream, stages, batch, peak, shares=None, drawn=None):
        """Train on stages of (length, steps), and return the record: tokens, last loss, and when retrieval emerged.

        A policy that draws positions gets new ones in every step.
        """
        settings = self.settings
        generator = Generator(settings.vocabulary, [self.seed, stream], language=self.seed)
        optimizer = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
        total, step, tokens_seen, emerged = sum(steps for _, steps in stages), 0, 0, None
        loss_mean, answer_mean = None, 0.0
        for length, steps in stages:
            for _ in range(steps):
                if drawn:
                    model.set_encoding(f"{drawn}:seed={self.seed},draw={step}")
                for group in optimizer.param_groups:
                    group["lr"] = peak * schedule(step, total)
                rows = batch // length
                batch_of_rows = generator.mixture(rows, length, shares or settings.shares, settings.most_lines)
                loss, answered = self.step(model, optimizer, *batch_of_rows)
                loss_mean = loss if loss_mean is None else 0.95 * loss_mean + 0.05 * loss
                answer_mean = 0.95 * answer_mean + 0.05 * answered
                step, tokens_seen = step + 1, tokens_seen + rows * length
                if emerged is None and answer_mean >= 0.9:
                    emerged = tokens_seen
                work = 3 * settings.flops(rows * length, length)
                self.progress.advance(work, f"{name}, step {step} of {total}, answers {answer_mean:.2f}")
        return {"steps": total, "tokens": tokens_seen, "loss": loss_mean, "emerged_after_tokens": emerged}

    def step(self, model, optimizer, tokens, weight, answers):
        """One step of the optimizer: (loss, share of right answers in the rows of lines)."""
        tokens = torch.from_numpy(tokens).to(self.device, non_blocking=True)
        weight = torch.from_numpy(weight[:, 1:]).to(self.device, non_blocking=True)
        counted = weight > 0
        with self.precision():
            states = model(tokens[:, :-1])
        logits = model.logits(states[counted])
        losses = functional.cross_entropy(logits, tokens[:, 1:][counted], reduction="none")
        loss = (losses * weight[counted]).sum() / len(tokens)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rows, places = answers
        with torch.no_grad():
            found = model.logits(states[:rows, places - 1]).argmax(-1)
        return loss.item(), (found == tokens[:rows, places]).float().mean().item()

    # Evaluation

    def evaluate(self, model, method, ratio):
        """Accuracy and perplexity at every length, one row per length."""
        model.set_encoding(method.expression(ratio), method.layout)
        for multiple in self.settings.multiples:
            start = time.perf_counter()
            row = {"policy": method.expression(ratio), "ratio": ratio, "multiple": multiple}
            row |= self.retrieval(model, multiple) | {"perplexity": self.perplexity(model, multiple)}
            self.progress.advance(self.cell_work(multiple), f"{method.name}, {row['policy']} at {multiple}x")
            yield row | {"seconds": round(time.perf_counter() - start, 3)}

    def retrieval(self, model, multiple):
        """The share of right answers, with a Wilson interval of 95 %, and by quarter of the context, nearest first.

        The answer is the most probable value. LongChat-Lines likewise takes the first number of an answer.
        """
        settings = self.settings
        values = range(settings.vocabulary.first_value, settings.vocabulary.first_symbol)
        length = settings.length * multiple
        rows = -(-settings.queries // settings.questions)
        tokens, _, distance = self.test(
            (LINES, length), lambda g: g.lines(rows, length, settings.lines, settings.questions)
        )
        # The last layer computes the questions only.
        tail = length - context_tokens(length, settings.questions)
        places = answer_places(length, settings.questions)
        right = []
        for batch in self.batches(tokens):
            logits = model.logits(model(batch, tail)[:, places - 1 - (length - tail)])
            found = values.start + logits[..., values.start : values.stop].argmax(-1)
            right.append((found == batch[:, places]).cpu().numpy())
        right = np.concatenate(right)
        quarter = np.minimum(distance * 4 // context_tokens(length, settings.questions), 3)
        low, high = wilson(int(right.sum()), right.size)
        return {
            "length": length,
            "queries": right.size,
            "accuracy": round(float(right.mean()), 4),
            "low": low,
            "high": high,
            "quarters": [round(float(right[quarter == i].mean()), 4) for i in range(4)],
        }

    def perplexity(self, model, multiple):
        """exp of the mean cross-entropy of text, in one pass per row."""
        settings = self.settings
        length = settings.length * multiple
        rows = max(1, settings.text // length)
        tokens, _ = self.test((TEXT, length), lambda g: g.text(rows, length))
        total = 0.0
        for batch in self.batches(tokens):
            logits = model.logits(model(batch[:, :-1]))
            total += functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
        return round(math.exp(total / (rows * (length - 1))), 3)

    def test(self, key, make):
        """Rows of a test, made once for all methods."""
        if key not in self.tests:
            generator = Generator(self.settings.vocabulary, [self.seed, *key], language=self.seed)
            self.tests[key] = make(generator)
        return self.tests[key]

    def batches(self, tokens):
        rows = max(1, self.settings.evaluation_batch // tokens.shape[1])
        with torch.inference_mode(), self.precision():
            for start in range(0, len(tokens), rows):
                yield torch.from_numpy(tokens[start : start + rows]).to(self.device)

    # Parts

    def new_model(self):
        s = self.settings
        return TinyLlama(s.vocabulary.size, s.layers, s.width, s.heads, s.hidden, s.base).to(self.device)

    def precision(self):
        return torch.autocast(self.device, torch.bfloat16) if self.settings.autocast else nullcontext()

    def require_finite(self, model, name):
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise RuntimeError(f"{name}: the weights are not finite; lower the learning rate")

    def key(self, stage):
        """A digest of all that the result of a stage depends on."""
        sources = [Path(__file__).with_name(name).read_bytes() for name in ("data.py", "model.py", "experiment.py")]
        facts = [asdict(self.settings), self.seed, self.device, torch.__version__, rw.__version__, stage]
        return hashlib.sha256(b"".join(sources) + json.dumps(facts).encode()).hexdigest()

    def pretraining_work(self):
        return sum(3 * self.settings.flops(self.settings.batch, n) * steps for n, steps in self.settings.curriculum)

    def method_work(self, method):
        s = self.settings
        training = 3 * s.flops(s.finetune_batch, 2 * s.length) * method.steps * s.finetune_steps
        return training + len(s.ratios) * sum(map(self.cell_work, s.multiples))

    def cell_work(self, multiple):
        length = self.settings.length * multiple
        return self.settings.flops(
            self.settings.queries / self.settings.questions * length + self.settings.text, length
        )


def schedule(step, total):
    """Factor of the learning rate: a short warm-up, then constant, then down to a tenth over the last 40 %."""
    done = step / total
    return min(1.0, (step + 1) / min(50, 0.1 * total + 1), 1 - 0.9 * (done - 0.6) / 0.4)


def wilson(right, count, z=1.96):
    """The interval of a binomial share at 95 %."""
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)


def replace(path, write):
    """Write a file as a whole: a killed run leaves the old one."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)
