"""Rows of LongChat-Lines: a record of lines with keys and numbers, and the question for the number of one line.

The wording of the record and of the question is the task's own, so that results compare with published ones. The rows
are without the chat frame that some published files have.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from ropewalk._ropewalk import Error

from ._rows import PathLike, Row, Tokenizer, check_request, count_tokens, fit, read_rows

HEAD = (
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
    "'<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line index, memorize its corresponding "
    "<REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the corresponding <REGISTER_CONTENT> of "
    "a certain line index. Now the record start:\n\n"
)
LINE = "line {}: REGISTER_CONTENT is <{}>\n"
ANSWER = "The <REGISTER_CONTENT> in line {} is <"
QUESTION = "\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line {}? I need the number."
PARSED_LINE = re.compile(r"^line (.+?): REGISTER_CONTENT is <(\d+)>", re.MULTILINE)
PARSED_QUESTION = re.compile(r"in line (.+?)\? I need the number")
INTEGER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+")
LARGEST = 50000

# The lists are disjoint, and every pair is a key: 129 x 165 = 21,285 keys.
ADJECTIVES = re.findall(
    r"\w+",
    """
    amber ancient arctic autumn basic bitter blank blue bold brave brief bright broad broken bronze busy calm
    careful cheap clean clear clever cold common cool coral crimson curious curly daily damp dark deep dense direct
    distant dry dusty eager early easy elegant empty exact famous fancy fast fierce final firm fluffy foggy formal
    fresh friendly frozen gentle giant global golden grand great green happy hidden hollow honest humble icy idle
    jolly keen large late lazy light little lively local lone loud lucky main major mellow mighty minor modern
    narrow neat noble noisy odd open orange pale patient plain polite proud purple quick quiet rapid rare remote
    rich rough round royal rural sharp shiny silent simple sleepy small smooth solid steady sunny sweet tall tender
    tiny warm wild wise young
    """,
)
NOUNS = re.findall(
    r"\w+",
    """
    acorn anchor apple arrow badge baker balloon banana barrel basket beach bear bell bench bird blanket boat bottle
    branch brick bridge brush bucket button cabin cable camera candle canyon carpet castle chain chair cherry circle
    cliff clock cloud coat coffee compass cookie corner cotton cousin crown curtain desert desk diamond doctor
    dragon drawer drum eagle engine farmer feather fence field finger flag flower forest fountain garden gate
    glacier glove grape guitar hammer harbor hat helmet hill honey horse hotel island jacket jungle kettle kitchen
    ladder lake lamp lantern leaf lemon letter lion lizard map market meadow melon mirror monkey moon mountain
    museum needle nest ocean onion owl paddle palace paper parrot pencil pepper piano pillow planet plate pocket
    pony potato prairie pumpkin puzzle rabbit radio river road robot rocket rope sail salad sandwich school shadow
    ship shoe shovel spider spoon station stone storm street summer sugar table teacher temple tiger tower train
    tree tunnel turtle valley village violin wagon wallet water whale window winter wolf
    """,
)
KEYS = len(ADJECTIVES) * len(NOUNS)


@dataclass(frozen=True)
class LinesRow:
    """One prompt of LongChat-Lines with its answer."""

    prompt: str
    expected_number: int
    num_lines: int  # lines in the record of the prompt
    token_size: int | None  # tokens of the prompt; None if the file does not say
    key: str  # of the asked line
    index: int | None  # of the asked line, from 0

    @property
    def depth(self) -> float | None:
        """Place of the asked line in the record: 0 is the first line, 1 the last."""
        return None if self.index is None else self.index / max(self.num_lines - 1, 1)

    @property
    def answer_start(self) -> str:
        """Beginning of an answer, which a model without a chat format continues with the number."""
        return ANSWER.format(self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a published row."""
        return {
            "random_idx": [self.key, self.index],
            "expected_number": self.expected_number,
            "num_lines": self.num_lines,
            "token_size": self.token_size,
            "correct_line": LINE.format(self.key, self.expected_number),
            "prompt": self.prompt,
        }


def make_lines(tokenizer: Tokenizer, length: int, samples: int, seed: int = 0) -> list[LinesRow]:
    """Make rows whose prompts have at most `length` tokens, and at least 99 % of it where whole lines permit.

    The keys and the numbers of a row are unique. The record is divided into `samples` parts of equal size: each row
    asks for a line of another part, in random order. A line has about 23 tokens. Where a whole line is more than 1 % of
    `length`, lines with more tokens replace others to come closer; below about 300 tokens they may not suffice.

    Args:
        tokenizer: Returns a mapping with `input_ids` for a text, like the tokenizers of Transformers. Special tokens
            that it adds are counted.
        length: The largest number of tokens of a prompt.
        samples: The number of rows.
        seed: The same arguments give the same rows, in every process.

    Raises:
        Error: `length` has no room for two lines, or needs more lines than there are keys (21,285).
    """
    check_request(length, samples)
    parts = list(range(samples))
    random.Random(f"lines {seed}").shuffle(parts)
    return [
        make_row(tokenizer, length, part, samples, random.Random(f"lines {seed} {length} {number}"))
        for number, part in enumerate(parts)
    ]


def make_row(tokenizer: Tokenizer, length: int, part: int, samples: int, rng: random.Random) -> LinesRow:
    share = (part + rng.random()) / samples
    most = min(KEYS, max(length, 2))  # a line has at least one token
    pairs = rng.sample(range(KEYS), most)
    keys = [f"{ADJECTIVES[pair // len(NOUNS)]}-{NOUNS[pair % len(NOUNS)]}" for pair in pairs]
    lines = list(zip(keys, rng.sample(range(1, LARGEST + 1), most)))

    def prompt(lines: list[tuple[str, int]]) -> str:
        asked = lines[int(share * len(lines))][0]
        return HEAD + "".join(LINE.format(*line) for line in lines) + QUESTION.format(asked)

    def count(number: int) -> int:
        return count_tokens(tokenizer, prompt(lines[:number]))

    if count(2) > length:
        raise Error(f"ropewalk: length must be at least {count(2)}, the tokens of a record of two lines, got {length}")
    number, tokens = fit(count, length, 2, most)
    if number == KEYS and length - tokens > length // 100:
        raise Error(f"ropewalk: length must be at most {tokens}, the tokens of all {number} keys, got {length}")
    record, index = lines[:number], int(share * number)
    if length - tokens > length // 100:
        filled = fill(tokenizer, record, lines[number : number + 300], index, length - tokens)
        filled_tokens = count_tokens(tokenizer, prompt(filled))
        if tokens < filled_tokens <= length:
            record, tokens = filled, filled_tokens
    key, expected = record[index]
    return LinesRow(prompt(record), expected, number, tokens, key, index)


def fill(
    tokenizer: Tokenizer, record: list[tuple[str, int]], spare: list[tuple[str, int]], index: int, missing: int
) -> list[tuple[str, int]]:
    """Replace lines other than the asked one by lines with more tokens, up to `missing` more."""

    def cost(line: tuple[str, int]) -> int:
        return count_tokens(tokenizer, LINE.format(*line))

    record = list(record)
    own = sorted((cost(line), at) for at, line in enumerate(record) if at != index)
    longest = sorted(((cost(line), line) for line in spare), reverse=True)
    for tokens, at in own:
        for choice, (more, line) in enumerate(longest):
            if 0 < more - tokens <= missing:
                record[at] = line
                missing -= more - tokens
                del longest[choice]
                break
    return record


def read_lines(path: PathLike) -> list[LinesRow]:
    """Read rows as published: JSON lines, a JSON list, or Parquet (which needs pyarrow).

    A row must have `expected_number` and `prompt`; `token_size` may be absent. The asked line, its index and the number
    of lines are those of the record in the prompt. (In published files `num_lines` also counts lines that were removed,
    because their keys repeated.)

    Raises:
        Error: A row lacks a field, its question asks for a line that the record does not have, or the record has
            another number for it than `expected_number`, once or in addition. The message names the file and the line.
    """
    return [parse_row(row) for row in read_rows(path)]


def parse_row(row: Row) -> LinesRow:
    expected, prompt = row.get("expected_number", int), row.get("prompt", str)
    lines = PARSED_LINE.findall(prompt)
    question = PARSED_QUESTION.findall(prompt)
    if not lines or not question:
        part = "record of lines 'line KEY: REGISTER_CONTENT is <NUMBER>'" if not lines else "question for one line"
        raise row.error(f"the prompt has no {part}")
    key = question[-1]
    found = [(index, int(number)) for index, (name, number) in enumerate(lines) if name == key]
    numbers = sorted({number for _, number in found})
    if not found:
        raise row.error(f"the question asks for line {key}, which the record of {len(lines)} lines does not have")
    if numbers != [expected]:
        listed = ", ".join(map(str, numbers))
        raise row.error(f"expected_number is {expected}, but the record has {listed} for line {key}")
    index = found[0][0] if len(found) == 1 else None
    return LinesRow(prompt, expected, len(lines), row.get_optional("token_size", int), key, index)


def first_integer(text: str) -> int | None:
    """Return the first integer of a text, or None.

    Thousands may have commas: "12,345" is 12345. A sign is not read, as no number of a record has one.
    """
    match = INTEGER.search(text)
    return int(match.group().replace(",", "")) if match else None


def without_key(row: LinesRow, answer: str) -> str:
    """Return the answer without the asked key, because keys in older files end in a number."""
    key = re.escape(row.key)
    key = rf"\bline {key}\b" if row.key.isdigit() else rf"(?<!\w){key}(?!\w)"
    return re.sub(key, " ", answer)


def is_correct(row: LinesRow, answer: str) -> bool:
    """Return True if the first integer of the answer, apart from the asked key, is the expected number."""
    return first_integer(without_key(row, answer)) == row.expected_number


def is_complete(row: LinesRow, answer: str) -> bool:
    """Return True if is_correct() does not depend on what follows the answer."""
    # The text after a key of digits shows that the key is not the beginning of a number.
    return re.search(r"[0-9][0-9,]*[^0-9,]", without_key(row, answer)) is not None
