"""The tasks: each measures a model at one length and returns a Cell."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

from ropewalk import _ropewalk
from ropewalk.evaluation import _intervals, _lines, _model, _qa, _text
from ropewalk.evaluation._results import Answer, Block, Bucket, Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Progress = Callable[[int, int], None]  # the number of finished units, and of all

BLOCK = 256  # tokens whose mean loss is stored, and the first bucket
STRIDE = 256  # tokens that a sliding window scores
TEXTS = 4
SAMPLES = 20
AS_IT_IS = "as loaded"  # the policy of cells whose model was not patched


def perplexity(
    model: Any,
    tokenizer: Any,
    *,
    length: int,
    text: str | Sequence[int] | None = None,
    texts: int = TEXTS,
    policy: str | None = None,
    progress: Progress | None = None,
) -> Cell:
    """Measure perplexity in one pass over each text, and the loss by position.

    Perplexity is exp of the mean cross-entropy per token over all positions. The interval is that of the mean over
    blocks of 256 tokens.

    Args:
        model: A causal language model of Transformers.
        tokenizer: Its tokenizer.
        length: Tokens of each text.
        text: The text from which parts are taken, or its tokens. By default the reference of the Python language.
        texts: Largest number of parts, which spread over the text and do not overlap.
        policy: The model is patched with it during the call. "from-config" keeps the scaling of its configuration.
            None leaves the model as it is.
        progress: Called with the number of finished parts, and of all.

    Raises:
        Error: The text is too short, a loss is not finite, or as patch().
    """
    parts = text_windows(tokenizer, text, length, texts, None)

    def blocks() -> Iterable[Block]:
        for number, ids in enumerate(_reporting(parts, progress)):
            losses = _model.token_losses(model, ids)
            for start in range(0, length, BLOCK):
                stop = min(start + BLOCK, length)
                yield Block(number, start, stop, float(losses[start:stop].mean()))

    return _loss_cell("perplexity", model, policy, length, len(parts), blocks, buckets=True)


def sliding(
    model: Any,
    tokenizer: Any,
    *,
    length: int,
    text: str | Sequence[int] | None = None,
    samples: int = SAMPLES,
    stride: int = STRIDE,
    policy: str | None = None,
    progress: Progress | None = None,
) -> Cell:
    """Measure perplexity with a sliding window: every window scores its last `stride` tokens.

    The windows end at the end of the text and every `stride` tokens before it, so that all lengths score the same
    tokens. Each has at least length - stride tokens before it.

    Args:
        length: Tokens of a window.
        samples: Largest number of windows.
        stride: Tokens between two windows, at most length.
        The others are those of perplexity().

    Raises:
        Error: As perplexity(), or stride is not in [1, length].
    """
    parts = text_windows(tokenizer, text, length, samples, stride)

    def blocks() -> Iterable[Block]:
        for number, ids in enumerate(_reporting(parts, progress)):
            yield Block(number, length - stride, length, float(_model.token_losses(model, ids)[-stride:].mean()))

    return _loss_cell("sliding", model, policy, length, len(parts), blocks, buckets=False)


def lines(
    model: Any,
    tokenizer: Any,
    *,
    length: int | None = None,
    rows: Sequence[_lines.LinesRow] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    chat: bool = False,
    answer_start: bool | None = None,
    new_tokens: int | None = None,
    policy: str | None = None,
    progress: Progress | None = None,
) -> Cell:
    """Measure LongChat-Lines: the share of rows whose asked number is the first integer of the greedy answer.

    Args:
        length: Largest number of tokens of a generated prompt. With rows, only the length of the cell.
        rows: Rows of read_lines() instead. Without length, the cell has that of the longest prompt.
        samples: Number of generated rows.
        seed: Seed of the generated rows.
        chat: Put the prompt into the model's chat template.
        answer_start: Give the beginning of the answer, which a model without instruction tuning needs. By default true
            without a chat template, in prompts that do not end with "ASSISTANT:".
        new_tokens: Largest number of tokens of an answer. By default 16 after a given beginning, else 48.
        policy, progress: As for perplexity().

    Raises:
        Error: Neither length nor rows are given, or as make_lines() and patch().
    """
    if rows is None:
        if length is None:
            raise _ropewalk.Error("ropewalk: lines() needs length or rows")
        rows = rows_of_length(tokenizer, length, samples, seed, chat, answer_start)
    prompts = lines_prompts(tokenizer, rows, chat, answer_start)

    def answer(number: int) -> Answer:
        row = rows[number]
        limit = new_tokens or (16 if _starts(row.prompt, chat, answer_start) else 48)
        complete = functools.partial(_lines.is_complete, row)
        text = _model.greedy_text(model, tokenizer, prompts[number], limit, complete)
        correct = _lines.is_correct(row, text)
        return Answer(str(row.expected_number), text, correct, row.depth, len(prompts[number]))

    return _answer_cell("lines", model, policy, length, prompts, answer, progress)


def qa(
    model: Any,
    tokenizer: Any,
    *,
    rows: Sequence[_qa.QaRow],
    length: int | None = None,
    chat: bool = False,
    new_tokens: int = 50,
    policy: str | None = None,
    progress: Progress | None = None,
) -> Cell:
    """Measure presence accuracy: the share of rows whose reference occurs in the greedy answer.

    Args:
        rows: Rows of read_qa() or make_qa(): FreeFormQA, or AlteredNumericQA.
        length: The length of the cell. By default that of the longest prompt.
        new_tokens: Largest number of tokens of an answer.
        The others are those of lines().

    Raises:
        Error: rows is empty, or as patch().
    """
    prompts = [prompt_tokens(tokenizer, row.prompt, chat) for row in rows]

    def answer(number: int) -> Answer:
        row = rows[number]
        text = _model.greedy_text(model, tokenizer, prompts[number], new_tokens)
        return Answer(row.reference, text, _qa.contains(row.reference, text), row.depth, len(prompts[number]))

    return _answer_cell("qa", model, policy, length, prompts, answer, progress)


def text_windows(
    tokenizer: Any, text: str | Sequence[int] | None, length: int, count: int, stride: int | None
) -> list[list[int]]:
    for name, value in (("length", length), ("number of texts", count)):
        if value < 1:
            raise _ropewalk.Error(f"ropewalk: {name} must be positive, got {value}")
    if stride is not None and not 1 <= stride <= length:
        raise _ropewalk.Error(f"ropewalk: stride must be in [1, {length}], the tokens of a window, got {stride}")
    if text is None:
        text = _text.default_text()
    ids = _text.tokens_of(tokenizer, text) if isinstance(text, str) else list(text)
    return _text.windows(ids, _text.first_tokens(tokenizer), length, count, stride)


def rows_of_length(
    tokenizer: Any, length: int, samples: int, seed: int, chat: bool, answer_start: bool | None
) -> list[_lines.LinesRow]:
    """Return rows that have `length` tokens together with the chat template and the beginning of the answer."""
    return _lines.make_lines(whole_prompts(tokenizer, chat, answer_start), length, samples, seed)


def lines_prompts(
    tokenizer: Any, rows: Sequence[_lines.LinesRow], chat: bool, answer_start: bool | None
) -> list[list[int]]:
    """Return the tokens of each prompt, with the beginning of the answer where it is given."""
    return [
        prompt_tokens(tokenizer, row.prompt, chat, row.answer_start if _starts(row.prompt, chat, answer_start) else "")
        for row in rows
    ]


def whole_prompts(tokenizer: Any, chat: bool, answer_start: bool | None = False) -> Callable[[str], Any]:
    """Return a function from a prompt to `input_ids` with the chat template and the beginning of the answer."""

    def tokens(prompt: str) -> dict[str, list[int]]:
        asked = _lines.PARSED_QUESTION.findall(prompt) if _starts(prompt, chat, answer_start) else []
        start = _lines.ANSWER.format(asked[-1]) if asked else ""
        return {"input_ids": prompt_tokens(tokenizer, prompt, chat, start)}

    return tokens


def prompt_tokens(tokenizer: Any, prompt: str, chat: bool, answer_start: str = "") -> list[int]:
    """Return the tokens of a prompt and of the beginning of the answer.

    Tokens that the tokenizer puts after a text are left out: a model answers after them as to the next text.
    """
    if not chat:
        separator = "" if not answer_start or prompt[-1:].isspace() else "\n"
        return _text.first_tokens(tokenizer) + _text.tokens_of(tokenizer, prompt + separator + answer_start)
    if getattr(tokenizer, "chat_template", None) is None:
        raise _ropewalk.Error("ropewalk: the tokenizer has no chat template; drop chat (--chat)")
    messages = [{"role": "user", "content": prompt}]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as problem:  # a template is a program, and may need a system message
        raise _ropewalk.Error(
            f"ropewalk: the chat template refuses a single user message: {_model.reason(problem)}; drop chat (--chat)"
        ) from None
    return _text.tokens_of(tokenizer, text + answer_start)


def _starts(prompt: str, chat: bool, answer_start: bool | None) -> bool:
    """Return True if the beginning of the answer is given."""
    return not chat and not prompt.rstrip().endswith("ASSISTANT:") if answer_start is None else answer_start


def _reporting(parts: Sequence[Any], progress: Progress | None) -> Iterable[Any]:
    for number, part in enumerate(parts):
        yield part
        if progress:
            progress(number + 1, len(parts))


def _loss_cell(
    task: str,
    model: Any,
    policy: str | None,
    length: int,
    samples: int,
    make_blocks: Callable[[], Iterable[Block]],
    buckets: bool,
) -> Cell:
    begin = time.perf_counter()
    with _model.applied(model, policy):
        blocks = tuple(make_blocks())
    seconds = time.perf_counter() - begin
    mean = _mean_loss(blocks)
    low, high = _intervals.mean_interval([one.loss for one in blocks], [one.stop - one.start for one in blocks])
    value, low, high = (math.exp(loss) if loss < 700 else math.inf for loss in (mean, low, high))
    found = _buckets(blocks, length) if buckets else ()
    return Cell(policy or AS_IT_IS, task, length, value, low, high, samples, seconds, blocks=blocks, buckets=found)


def _mean_loss(blocks: Sequence[Block]) -> float:
    return sum(one.loss * (one.stop - one.start) for one in blocks) / sum(one.stop - one.start for one in blocks)


def _buckets(blocks: Sequence[Block], length: int) -> tuple[Bucket, ...]:
    """Return the losses at the positions [0, 256), [256, 512), [512, 1024), …"""
    bounds = [0, BLOCK]
    while bounds[-1] < length:
        bounds.append(2 * bounds[-1])
    found = []
    for start, stop in zip(bounds, bounds[1:]):
        inside = [one for one in blocks if start <= one.start < stop]
        found.append(Bucket(start, min(stop, length), _mean_loss(inside)))
    return tuple(found)


def _answer_cell(
    task: str,
    model: Any,
    policy: str | None,
    length: int | None,
    prompts: Sequence[Sequence[int]],
    answer: Callable[[int], Answer],
    progress: Progress | None,
) -> Cell:
    if not prompts:
        raise _ropewalk.Error(f"ropewalk: {task} has no rows")
    begin = time.perf_counter()
    with _model.applied(model, policy):
        answers = tuple(answer(number) for number in _reporting(range(len(prompts)), progress))
    seconds = time.perf_counter() - begin
    correct = sum(one.correct for one in answers)
    low, high = _intervals.wilson(correct, len(answers))
    length = length or max(len(prompt) for prompt in prompts)
    value = correct / len(answers)
    return Cell(policy or AS_IT_IS, task, length, value, low, high, len(answers), seconds, answers)
