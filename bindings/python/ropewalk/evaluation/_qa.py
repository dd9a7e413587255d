"""Rows of FreeFormQA and AlteredNumericQA: a document, a question, and a short answer that the document holds."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ropewalk._ropewalk import Error

from ._rows import PathLike, Row, Tokenizer, check_request, count_tokens, fit, read_rows

PLACES = ("start", "random", "end")
QUESTION_FIRST = (
    "Read the question, then find its answer in the text. Reply with the answer only, as short as possible.\n\n"
    "Question: {question}\n\nText:\n{context}\n\nAnswer:"
)
QUESTION_LAST = (
    "Read the text, then answer the question after it. Reply with the answer only, as short as possible.\n\n"
    "Text:\n{context}\n\nQuestion: {question}\n\nAnswer:"
)
# A word with the space before it. Pieces of 32 characters keep texts without spaces divisible.
WORD = re.compile(r"\s*\S{1,32}")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s|\n\s*\n")
INTEGER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+")
# A number that is not part of a decimal fraction, of a longer number or of a name such as B52.
NUMBER = re.compile(r"(?<![^\W\d])(?<![0-9])(?<![0-9][.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?![0-9])(?![.,][0-9])")


@dataclass(frozen=True)
class QaRow:
    """One prompt with the reference that its answer must contain."""

    prompt: str
    reference: str
    token_size: int | None  # tokens of the prompt; None if the file does not say
    place: str | None  # "start", "random" or "end" of the text; None if unknown
    depth: float | None  # share of the prompt before the reference, by characters; None if unknown
    reference_size: int | None = None  # tokens of the reference

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a published row, and place and depth."""
        return {
            "conversations": [
                {"from": "human", "tok_len": self.token_size, "value": self.prompt},
                {"from": "gpt", "tok_len": self.reference_size, "value": self.reference},
            ],
            "place": self.place,
            "depth": self.depth,
        }


@dataclass(frozen=True)
class Document:
    """A text with a question and its answer."""

    document: str
    question: str
    answer: str


def read_qa(path: PathLike) -> list[QaRow]:
    """Read rows as published: JSON lines, a JSON list, or Parquet (which needs pyarrow).

    A row has `conversations`, a list whose first entry is the prompt and whose second is the reference, each with
    `value` and, if known, `tok_len`. `place` and `depth` are read where present. Otherwise the depth is that of the
    reference in the prompt, if it occurs there exactly once.

    Raises:
        Error: A row is malformed. The message names the file, the line and the field.
    """
    return [parse_row(row) for row in read_rows(path)]


def parse_row(row: Row) -> QaRow:
    turns = row.get("conversations", list)
    if len(turns) < 2:
        raise row.error(f"'conversations' must have a prompt and a reference, got {len(turns)} entries")
    prompt, reference = (Row(turn, f"{row.where}, conversations[{at}]") for at, turn in enumerate(turns[:2]))
    text, wanted = prompt.get("value", str), reference.get("value", str).strip()
    if not wanted:
        raise reference.error("'value' is an empty reference, which every answer contains")
    place = row.get_optional("place", str)
    if place not in (None, *PLACES):
        raise row.error(f"'place' must be one of {', '.join(PLACES)}, got {place!r}")
    depth = row.get_optional("depth", float)
    if depth is None and text.count(wanted) == 1:
        depth = text.index(wanted) / len(text)
    sizes = [one.get_optional("tok_len", int) for one in (prompt, reference)]
    return QaRow(text, wanted, sizes[0], place, depth, sizes[1])


def read_documents(path: PathLike) -> list[Document]:
    """Read documents for make_qa(): rows with `document`, `question` and `answer`, none of them empty."""
    documents = []
    for row in read_rows(path):
        fields = {name: row.get(name, str).strip() for name in ("document", "question", "answer")}
        for name, value in fields.items():
            if not value:
                raise row.error(f"{name!r} is empty")
        documents.append(Document(**fields))
    return documents


def make_qa(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    samples: int,
    seed: int = 0,
    altered: bool = False,
) -> list[QaRow]:
    """Make rows whose prompts have at most `length` tokens, and at least 99 % of it where whole words permit.

    The rows take the documents in random order, again from the first when all are used, and place the answer at the
    start, at random and at the end by turns. A document that fits is whole, and other documents fill the rest of the
    text: after it, on both sides, or before it. Of a longer document the text is a part around the answer. Documents
    that also hold the answer fill last. Three rows with the question before the text alternate with three after it.

    With `altered`, the rows are those of AlteredNumericQA: the answer is an integer, and alter_number() changes it at
    every occurrence in the document. The question and numbers in words do not change. The new number does not occur in
    the document, if there is such a number.

    Documents whose answer does not occur (or, with `altered`, is no integer) cannot be used. A warning says how many.

    Args:
        documents: Texts with questions and answers, see read_documents().
        tokenizer: Returns a mapping with `input_ids` for a text, like the tokenizers of Transformers. Special tokens
            that it adds are counted.
        length: The largest number of tokens of a prompt.
        samples: The number of rows.
        seed: The same arguments give the same rows, in every process.
        altered: Make rows of AlteredNumericQA.

    Raises:
        Error: No document can be used, the documents are too short to fill a prompt, or `length` has no room for the
            question and the sentence with the answer.
    """
    check_request(length, samples)
    usable = select(documents, altered)
    order = list(range(len(usable)))
    random.Random(f"qa {seed}").shuffle(order)
    rows = []
    for number in range(samples):
        rng = random.Random(f"qa {seed} {length} {number}")
        # Each round through the documents starts with another place, also if their number is a multiple of three.
        source = usable[order[number % len(usable)]]
        place = PLACES[(number + number // len(usable) * (len(usable) % 3 == 0)) % 3]
        others = [one.document for one in documents if one.document != source.document]
        others = list(dict.fromkeys(others))
        rng.shuffle(others)
        if altered:
            source = alter_document(source, rng)
        template = (QUESTION_FIRST, QUESTION_LAST)[number // 3 % 2]
        rows.append(make_row(source, others, tokenizer, length, place, template, rng))
    return rows


def select(documents: Sequence[Document], altered: bool) -> list[Document]:
    """Return the documents with a usable answer, and warn of others."""
    usable, absent, not_integer = [], 0, 0
    for one in documents:
        if altered and not INTEGER.fullmatch(one.answer):
            not_integer += 1
        elif not occurrences(one):
            absent += 1
        else:
            usable.append(one)
    reasons = f"the answer does not occur in {absent} of them" + altered * f" and is no integer in {not_integer}"
    if not usable:
        raise Error(f"ropewalk: none of the {len(documents)} documents can be used: {reasons}")
    if absent or not_integer:
        left_out = len(documents) - len(usable)
        warnings.warn(f"{left_out} of {len(documents)} documents are left out: {reasons}", stacklevel=3)
    return usable


def make_row(
    source: Document,
    others: list[str],
    tokenizer: Tokenizer,
    length: int,
    place: str,
    template: str,
    rng: random.Random,
) -> QaRow:
    text, (start, stop) = source.document, occurrences(source)[0]
    share = {"start": 0.0, "end": 1.0}.get(place, rng.random())
    first, last = 0, len(text)
    if count_tokens(tokenizer, template.format(question=source.question, context=text)) > length:
        first, last = passage(text, start, stop)
    filler = choose_filler(others, source.answer, 32 * length)
    prompt = Prompt(template, source.question, text[:first], text[first:last], text[last:], filler, share)

    def count(words: int) -> int:
        return count_tokens(tokenizer, prompt.make(words)[0])

    if count(0) > length:
        raise Error(
            f"ropewalk: length must be at least {count(0)}, the tokens of the question {source.question!r} and of the "
            f"sentence with its answer, got {length}"
        )
    most = prompt.most_words()
    words, tokens = fit(count, length, 0, most)
    if words == most and length - tokens > length // 100:
        raise Error(
            f"ropewalk: with the answer at {place}, {len(others) + 1} documents give a prompt of {tokens} tokens, but "
            f"length is {length}; add documents or reduce length"
        )
    made, at = prompt.make(words)
    depth = (at + start - first) / len(made)
    reference = text[start:stop]  # a number may have commas in the document and none in the answer
    return QaRow(made, reference, tokens, place, depth, count_tokens(tokenizer, reference))


class Prompt:
    """A prompt whose text is a core, which has the answer, and any number of words around it.

    The words are those of the core's document, and then those of the filler.
    """

    def __init__(
        self, template: str, question: str, left: str, core: str, right: str, filler: list[str], share: float
    ) -> None:
        self.template, self.question, self.core = template, question, core
        self.share = share  # of the words that are before the core
        self.left, self.right, self.filler = map(WORD.findall, (left, right, "\n\n".join(filler)))
        self.gap = left[len(left.rstrip()) :]

    def split(self, words: int) -> tuple[int, int, int, int]:
        """Return the numbers of words: filler and document before the core, document and filler after it."""
        before = round(self.share * words)
        after = words - before
        own_before, own_after = min(before, len(self.left)), min(after, len(self.right))
        return before - own_before, own_before, own_after, after - own_after

    def most_words(self) -> int:
        """Return the largest number of words for which the filler suffices."""
        low, high = 0, len(self.left) + len(self.right) + len(self.filler)
        while low < high:
            middle = (low + high + 1) // 2
            before, _, _, after = self.split(middle)
            low, high = (middle, high) if before + after <= len(self.filler) else (low, middle - 1)
        return low

    def make(self, words: int) -> tuple[str, int]:
        """Return the prompt and the offset of its core, in characters."""
        filler_before, before, after, filler_after = self.split(words)
        start = "".join(self.left[len(self.left) - before :]).lstrip()
        if start:
            start += self.gap
        end = "".join(self.right[:after])
        if filler_before:
            start = "".join(self.filler[filler_after : filler_after + filler_before]).strip() + "\n\n" + start
        if filler_after:
            end += "\n\n" + "".join(self.filler[:filler_after]).strip()
        head = self.template.split("{context}")[0].format(question=self.question)
        prompt = self.template.format(question=self.question, context=start + self.core + end)
        return prompt, len(head) + len(start)


def passage(text: str, start: int, stop: int) -> tuple[int, int]:
    """Return the sentence around [start, stop), at most 400 characters on each side."""
    first, last = max(start - 400, 0), min(stop + 400, len(text))
    ends = [match.end() for match in SENTENCE_END.finditer(text, first, start)]
    if ends:
        first = ends[-1]
    elif first:
        space = text.find(" ", first, start)
        first = space + 1 if space >= 0 else first
    end = SENTENCE_END.search(text, stop, last)
    if end:
        last = end.end()
    elif last < len(text):
        space = text.rfind(" ", stop, last)
        last = space if space >= 0 else last
    return first, len(text[:last].rstrip())


def choose_filler(others: list[str], answer: str, characters: int) -> list[str]:
    """Return documents of so many characters or all, those that hold the answer last."""
    without, holding, total = [], [], 0
    for other in others:
        if total > characters:
            break
        if find_answer(other, answer):
            holding.append(other)
        else:
            without.append(other)
            total += len(other)
    return without + holding


def occurrences(source: Document) -> list[tuple[int, int]]:
    """Return where the document has the answer: as a number if it is one, otherwise as text."""
    if not source.answer.strip():
        return []
    if INTEGER.fullmatch(source.answer):
        return find_number(source.document, source.answer)
    return find_answer(source.document, source.answer)


def find_answer(text: str, answer: str) -> list[tuple[int, int]]:
    """Return every occurrence of the answer that is not part of a longer word."""
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text)]


def find_number(text: str, number: str) -> list[tuple[int, int]]:
    """Return every occurrence of an integer, with or without commas at the thousands."""
    digits = number.replace(",", "")
    return [match.span() for match in NUMBER.finditer(text) if match.group().replace(",", "") == digits]


def alter_number(number: str, rng: random.Random) -> str:
    """Return a different number by the rule of AlteredNumericQA.

    A number of 1000 to 2100, such as a year, becomes a different one within 10 of it. Any other number becomes a
    different one of as many digits. Commas at the thousands stay.

    Args:
        number: The digits of an integer, with or without commas.
        rng: The source of random numbers.
    """
    if not INTEGER.fullmatch(number):
        raise Error(f"ropewalk: number must be an integer without a sign, got {number!r}")
    digits = number.replace(",", "")
    value = int(digits)
    if len(digits) == 4 and 1000 <= value <= 2100:
        changed = value + rng.choice([step for step in range(-10, 11) if step])
    else:
        low, high = 10 ** (len(digits) - 1) if len(digits) > 1 else 0, 10 ** len(digits)
        changed = value
        while changed == value:
            changed = rng.randrange(low, high)
    return f"{changed:,}" if "," in number else str(changed)


def alter_document(source: Document, rng: random.Random) -> Document:
    """Change the number at every occurrence in the document, and in the answer, which takes the form of the first."""
    places = occurrences(source)
    number = source.document[slice(*places[0])]
    for _ in range(100):
        answer = alter_number(number, rng)
        if not find_number(source.document, answer):
            break
    plain = answer.replace(",", "")
    pieces, last = [], 0
    for start, stop in places:
        form = f"{int(plain):,}" if "," in source.document[start:stop] else plain
        pieces += [source.document[last:start], form]
        last = stop
    return replace(source, document="".join(pieces) + source.document[last:], answer=answer)


def contains(reference: str, answer: str) -> bool:
    """Return True if the reference, stripped of space at its ends, occurs in the answer. Case counts."""
    return reference.strip() in answer
