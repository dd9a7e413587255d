"""Rows of LongChat-Lines, FreeFormQA and AlteredNumericQA: made, read and scored."""

import collections
import contextlib
import io
import json
import os
import random
import re
import sys
import warnings
from pathlib import Path

import pytest
import ropewalk as rw
from checks import run_python
from ropewalk.evaluation import _lines, _qa
from ropewalk.evaluation._lines import first_integer, is_correct, make_lines, read_lines
from ropewalk.evaluation._qa import Document, alter_number, contains, make_qa, read_documents, read_qa


def words(text):
    """A tokenizer with one token per word, and one at the start."""
    return {"input_ids": [0, *map(len, text.split())]}


def characters(text):
    return {"input_ids": list(text.encode())}


@pytest.fixture(scope="module")
def byte_pairs():
    """A byte-level BPE tokenizer, trained on lines with some of the words, so that lines differ in tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    rng = random.Random(1)
    keys = [f"{rng.choice(_lines.ADJECTIVES[::2])}-{rng.choice(_lines.NOUNS[::2])}" for _ in range(300)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, show_progress=False)
    text = _lines.HEAD + "".join(f"line {key}: REGISTER_CONTENT is <{rng.randrange(1, 50000)}>\n" for key in keys)
    tokenizer.train_from_iterator([text, _lines.QUESTION], trainer)
    return lambda text: {"input_ids": tokenizer.encode(text).ids}


def record_of(prompt):
    """The keys and numbers of a prompt, parsed without a regular expression."""
    lines = [line for line in prompt.split("\n") if line.startswith("line ")]
    parts = [line.removeprefix("line ").removesuffix(">").split(": REGISTER_CONTENT is <") for line in lines]
    return [(key, int(number)) for key, number in parts]


def check_lines(rows, tokenizer, length, shortest):
    for row in rows:
        record = record_of(row.prompt)
        keys, numbers = zip(*record)
        assert len(set(keys)) == len(keys) == row.num_lines
        assert all(1 <= number <= 50000 for number in numbers)
        assert all(re.fullmatch("[a-z]+-[a-z]+", key) for key in keys)
        assert record[row.index] == (row.key, row.expected_number)
        assert len(set(numbers)) == len(numbers)
        assert row.prompt.endswith(f"the <REGISTER_CONTENT> in line {row.key}? I need the number.")
        assert row.token_size == len(tokenizer(row.prompt)["input_ids"])
        assert shortest <= row.token_size <= length
    depths = sorted(row.depth for row in rows)
    lines = min(row.num_lines for row in rows)
    for part, depth in enumerate(depths):  # one row per part of the record, to a line
        assert part / len(rows) - 1 / lines <= depth <= (part + 1) / len(rows) + 1 / lines


@pytest.mark.parametrize("length", [512, 1024, 4096])
def test_lines_have_the_length_in_byte_pairs(byte_pairs, length):
    rows = make_lines(byte_pairs, length, samples=8)
    check_lines(rows, byte_pairs, length, shortest=0.99 * length)
    assert [row.depth for row in rows] != sorted(row.depth for row in rows)


def test_lines_come_as_near_as_whole_lines_permit():
    # Every line has five words, so no replacement fills the rest.
    for length in (100, 103, 777):
        rows = make_lines(words, length, samples=4)
        check_lines(rows, words, length, shortest=length - 4)
    rows = make_lines(characters, 33000, samples=5)
    check_lines(rows, characters, 33000, shortest=0.99 * 33000)


def test_lines_have_thousands_of_keys():
    assert len(_lines.ADJECTIVES) * len(_lines.NOUNS) == _lines.KEYS > 20000
    names = _lines.ADJECTIVES + _lines.NOUNS
    assert len(set(names)) == len(names)
    (row,) = make_lines(words, 20000, samples=1)
    check_lines([row], words, 20000, shortest=19900)
    assert row.num_lines > 3900
    with pytest.raises(rw.Error, match=r"length must be at most 106\d\d\d, the tokens of all 21285 keys, got 200000"):
        make_lines(words, 200000, samples=1)


def test_the_asked_lines_cover_every_depth():
    rows = make_lines(words, 600, samples=200)
    counts = collections.Counter(min(int(row.depth * 10), 9) for row in rows)
    assert len(counts) == 10 and min(counts.values()) >= 15
    assert {row.index for row in rows} >= {0, rows[0].num_lines - 1}


PROGRAM = """
import hashlib
from ropewalk.evaluation import _lines, _qa
words = lambda text: {"input_ids": text.split()}
documents = [_qa.Document(f"The {n} ships sail to port {n}. " * n, "How many ships?", str(n)) for n in range(5, 40)]
rows = _lines.make_lines(words, 400, 3, seed=7), _qa.make_qa(documents, words, 400, 6, seed=7, altered=True)
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


def test_the_same_seed_gives_the_same_rows():
    rows = make_lines(words, 500, samples=3, seed=5)
    assert rows == make_lines(words, 500, samples=3, seed=5)
    others = make_lines(words, 500, samples=3, seed=-5)
    assert not {row.prompt for row in rows} & {row.prompt for row in others}
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(PROGRAM, {})
    assert run_python(PROGRAM, PYTHONHASHSEED="1") + "\n" == here.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((50, 1), r"length must be at least \d\d, the tokens of a record of two lines, got 50"),
        ((0, 1), "length must be positive, got 0"),
        ((500, 0), "samples must be positive, got 0"),
        ((500.0, 1), "length must be an integer, got 500.0"),
        ((500, True), "samples must be an integer, got True"),
    ],
)
def test_lines_refuse(arguments, message):
    with pytest.raises(rw.Error, match=message):
        make_lines(words, *arguments)


def published_row(**changes):
    """A row as published, with made-up content: keys end in a number, and the prompt has a chat frame."""
    record = [("rusty-spoon-0", 411), ("tin cup-1", 17), ("odd-sock-2", 9)]
    prompt = "USER: Below is a record of lines. Now the record start:\n\n"
    prompt += "".join(f"line {key}: REGISTER_CONTENT is <{number}>\n" for key, number in record)
    prompt += "\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line tin cup-1? I need the number. "
    return {"expected_number": 17, "num_lines": 5, "token_size": 99, "prompt": prompt + "ASSISTANT: ", **changes}


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_lines_are_read_as_published(tmp_path):
    without_size = {key: value for key, value in published_row().items() if key != "token_size"}
    path = write_lines(tmp_path / "3_lines.jsonl", published_row(prompt_length=-1), without_size)
    first, second = read_lines(path)
    assert (first.expected_number, first.num_lines, first.token_size) == (17, 3, 99)
    assert (first.key, first.index, first.depth, second.token_size) == ("tin cup-1", 1, 0.5, None)
    assert first.answer_start == "The <REGISTER_CONTENT> in line tin cup-1 is <"
    path = tmp_path / "list.json"
    path.write_text(json.dumps([published_row(), published_row()], indent=2), encoding="utf-8")
    assert read_lines(path) == [first, first]
    path.write_text("\ufeff" + json.dumps(published_row()), encoding="utf-8")
    assert read_lines(path) == [first]


def test_made_lines_are_read_back(tmp_path):
    rows = make_lines(words, 300, samples=3)
    fields = rows[0].to_dict()
    assert fields["correct_line"] in fields["prompt"]
    assert fields["random_idx"] == [rows[0].key, rows[0].index]
    assert read_lines(write_lines(tmp_path / "rows.jsonl", *(row.to_dict() for row in rows))) == rows


REPEATED = published_row()["prompt"].replace("odd-sock-2", "tin cup-1")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "the row has no 'expected_number', only 'prompt'"),
        ({}, "the row has no 'expected_number', only no field"),
        ([1], "a row must be an object with named fields, got [1]"),
        (published_row(expected_number="17"), "'expected_number' must be of type int, got '17'"),
        (published_row(token_size=True), "'token_size' must be of type int, got True"),
        (published_row(prompt="line a: 5"), "the prompt has no record of lines"),
        (published_row(prompt=published_row()["prompt"][:150]), "the prompt has no question for one line"),
        (published_row(expected_number=9), "expected_number is 9, but the record has 17 for line tin cup-1"),
        (published_row(prompt=REPEATED), "expected_number is 17, but the record has 9, 17 for line tin cup-1"),
        (
            published_row(prompt=published_row()["prompt"].replace("line tin cup-1:", "line tin cup:")),
            "the question asks for line tin cup-1, which the record of 3 lines does not have",
        ),
    ],
)
def test_a_malformed_row_of_lines_is_named(tmp_path, row, message):
    path = write_lines(tmp_path / "rows.jsonl", published_row(), row)
    with pytest.raises(rw.Error, match=re.escape(f"ropewalk: {path}:2: {message}")):
        read_lines(path)


def test_a_repeated_key_with_one_number_has_no_depth(tmp_path):
    prompt = REPEATED.replace("<9>", "<17>")
    (row,) = read_lines(write_lines(tmp_path / "rows.jsonl", published_row(prompt=prompt)))
    assert (row.expected_number, row.index, row.depth) == (17, None, None)


def test_files_that_are_no_rows(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    for content, message in (
        (b"", "has no rows"),
        (b" \n\n", "has no rows"),
        (b"[]", "has no rows"),
        (b'{"a": 1}\n{"a": \n', ":2: not JSON: Expecting value"),
        (b'[{"a": 1},\n 2,,]', ":2: not JSON"),
        (b"[7]", ", row 1: a row must be an object"),
        (b"\xff\xfe{}", "is neither Parquet nor UTF-8 text"),
    ):
        path.write_bytes(content)
        with pytest.raises(rw.Error, match=re.escape(str(path)) + ".*" + re.escape(message)):
            read_lines(path)
    path.write_bytes(b"PAR1 and so on")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(rw.Error, match=re.escape(f"{path}: reading Parquet needs pyarrow: pip install pyarrow")):
        read_lines(path)
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "absent")


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [published_row(), published_row(token_size=None)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "lines.parquet")
    assert [row.token_size for row in read_lines(tmp_path / "lines.parquet")] == [99, None]
    rows = [conversation("Which? In Oslo.", "Oslo")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "qa.parquet")
    assert [row.reference for row in read_qa(tmp_path / "qa.parquet")] == ["Oslo"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(rw.Error, match=r"broken\.parquet is not a readable Parquet file"):
        read_lines(tmp_path / "broken.parquet")


def test_published_files():
    folder = os.environ.get("ROPEWALK_LONGCHAT_LINES")
    if not folder:
        pytest.skip("ROPEWALK_LONGCHAT_LINES names no folder of published rows")
    files = sorted(Path(folder).glob("*.jsonl"))
    assert files
    for path in files:
        rows = read_lines(path)
        published = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len(published)
        for row, fields in zip(rows, published):
            assert [row.key, row.index] == fields["random_idx"]
            assert 0 <= row.depth <= 1 and row.num_lines <= fields["num_lines"]
            assert fields["correct_line"] in row.prompt
            assert is_correct(row, f"{row.answer_start}{row.expected_number}>.")
            assert not is_correct(row, f"{row.answer_start}{row.expected_number + 1}>.")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48173", 48173),
        ("The <REGISTER_CONTENT> is <2821>. Not 17.", 2821),
        ("12,345", 12345),
        ("1,234,567 or 8", 1234567),
        ("17, 411", 17),
        ("17,41", 17),
        ("1234,567", 1234),
        ("1,2345", 1),
        ("007", 7),
        ("-5", 5),
        ("3.7", 3),
        ("no number", None),
        ("", None),
        ("\u0663", None),
    ],
)
def test_the_first_integer_counts(text, number):
    assert first_integer(text) == number


def test_scores_of_lines(tmp_path):
    (row,) = read_lines(write_lines(tmp_path / "rows.jsonl", published_row()))
    assert is_correct(row, "17>.")
    assert is_correct(row, "The <REGISTER_CONTENT> in line tin cup-1 is <17>.")
    assert is_correct(row, "tin cup-1: 17, not 411")
    assert not is_correct(row, "411, or 17")
    assert not is_correct(row, "171")
    assert not is_correct(row, "the line tin cup-1")
    assert not is_correct(row, "")
    digits = _lines.LinesRow("", 12, 3, None, key="12", index=0)
    assert (
        is_correct(digits, "line 12 has <12>")
        and is_correct(digits, "12")
        and not is_correct(digits, "line 12 has <3>")
    )


def conversation(prompt, reference, **changes):
    turns = [{"from": "human", "tok_len": 7, "value": prompt}, {"from": "gpt", "tok_len": 2, "value": reference}]
    return {"conversations": turns, **changes}


def test_qa_rows_are_read_as_published(tmp_path):
    prompt = "The ship left Oslo. Question: which city? Answer:"
    rows = [conversation(prompt, " Oslo\n"), conversation("Oslo, Oslo", "Oslo", place="end", depth=1)]
    for path in (tmp_path / "rows.jsonl", tmp_path / "rows.json"):
        path.write_text(
            json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8"
        )
        first, second = read_qa(path)
        assert (first.prompt, first.reference, first.token_size, first.reference_size) == (prompt, "Oslo", 7, 2)
        assert (first.place, first.depth) == (None, 14 / len(prompt))
        assert (second.place, second.depth) == ("end", 1.0)
    (ambiguous,) = read_qa(write_lines(tmp_path / "rows.jsonl", conversation("Oslo, Oslo", "Oslo")))
    assert ambiguous.depth is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": 1}, ": the row has no 'conversations', only 'text'"),
        ({"conversations": "x"}, ": 'conversations' must be of type list, got 'x'"),
        ({"conversations": [{}]}, ": 'conversations' must have a prompt and a reference, got 1 entries"),
        (
            {"conversations": [{"value": "x"}, 5]},
            ", conversations[1]: a row must be an object with named fields, got 5",
        ),
        ({"conversations": [{"from": "human"}, {}]}, ", conversations[0]: the row has no 'value', only 'from'"),
        (conversation("x", " "), ", conversations[1]: 'value' is an empty reference"),
        (conversation("x", "y", place="middle"), ": 'place' must be one of start, random, end, got 'middle'"),
    ],
)
def test_a_malformed_row_of_qa_is_named(tmp_path, row, message):
    path = write_lines(tmp_path / "rows.jsonl", conversation("a", "b"), row)
    with pytest.raises(rw.Error, match=re.escape(f"ropewalk: {path}:2{message}")):
        read_qa(path)


def test_presence():
    assert contains(" 1987\n", "It was 1987, I think") and contains("Oslo", "Oslo")
    assert not contains("Oslo", "oslo") and not contains("1987", "198 7") and not contains("Oslo", "")


def test_documents_are_read(tmp_path):
    good = {"document": " A text. ", "question": "Which?", "answer": "text"}
    path = write_lines(tmp_path / "documents.jsonl", good)
    assert read_documents(path) == [Document("A text.", "Which?", "text")]
    for name in good:
        write_lines(path, good, {**good, name: " "})
        with pytest.raises(rw.Error, match=re.escape(f"{path}:2: '{name}' is empty")):
            read_documents(path)
        write_lines(path, {key: value for key, value in good.items() if key != name})
        with pytest.raises(rw.Error, match=re.escape(f"{path}:1: the row has no '{name}'")):
            read_documents(path)


def document(number, sentences, at):
    """A document of numbered sentences, one of which has the answer."""
    text = [f"Sentence {letters(number)}{letters(each)} of the tale goes on and on." for each in range(sentences)]
    text[at] = f"The treasure of {letters(number)} lies in Port{letters(number)} under {1600 + number} stones."
    return Document(" ".join(text), f"Which port has the treasure of {letters(number)}?", f"Port{letters(number)}")


def letters(number):
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def text_of(row):
    """The text of a prompt, without the question and the instructions."""
    return row.prompt.split("Text:\n")[1].rsplit("\n\nAnswer:")[0].rsplit("\n\nQuestion:")[0]


def check_qa(rows, tokenizer, length):
    for row in rows:
        assert row.token_size == len(tokenizer(row.prompt)["input_ids"])
        assert 0.99 * length <= row.token_size <= length
        at = round(row.depth * len(row.prompt))
        assert row.prompt[at : at + len(row.reference)] == row.reference
        assert row.reference_size == len(tokenizer(row.reference)["input_ids"])
    assert [row.place for row in rows[:3]] == ["start", "random", "end"]


def test_short_documents_are_whole_and_at_their_place(byte_pairs):
    documents = [document(number, 6, at=3) for number in range(12)]
    for tokenizer, length in ((words, 600), (byte_pairs, 1500)):
        rows = make_qa(documents, tokenizer, length, samples=12)
        check_qa(rows, tokenizer, length)
        used = set()
        for row in rows:
            (source,) = (one for one in documents if one.answer == row.reference)
            used.add(source)
            text = text_of(row)
            assert text.count(source.document) == 1 and source.question in row.prompt
            sentences = re.findall(r"(?:Sentence|The treasure)[^.]*\.", text)
            assert len(set(sentences)) == len(sentences)
            before, after = map(len, text.split(source.document))
            if row.place == "random":
                assert before > 2 and after > 2
            else:
                assert (before if row.place == "start" else after) == 0
        assert len(used) == len(documents)
        first = [row.prompt.index("Question:") < row.prompt.index("Text:") for row in rows]
        assert first == 2 * [True, True, True, False, False, False]


def test_long_documents_are_cut_around_the_answer():
    # The answer is near the end of the document, so that the window of place "start" needs other documents.
    documents = [document(number, 200, at=(195, 100, 4)[number % 3]) for number in range(9)]
    rows = make_qa(documents, words, 500, samples=18)
    check_qa(rows, words, 500)
    for row in rows:
        text = text_of(row)
        (source,) = (one for one in documents if one.answer == row.reference)
        sentence = next(one for one in re.findall(r"[^.]+\.", source.document) if row.reference in one).strip()
        assert sentence in text
        if row.place != "random":
            assert text.startswith(sentence) if row.place == "start" else text.endswith(sentence)
        # The words before and after the sentence continue the document up to its ends.
        before, after = text.split(sentence)
        before, after = (before.split("\n\n")[-1], after.split("\n\n")[0])
        assert before + sentence + after in source.document
    assert len({row.place for row in rows if row.reference == rows[0].reference}) == 2  # another place the second time


def test_long_words_come_as_near_as_they_permit():
    documents = [document(number, 20, at=3) for number in range(3)]
    for row in make_qa(documents, characters, 503, samples=6):
        assert 503 - 11 <= row.token_size <= 503  # the longest word has ten letters


def test_documents_that_hold_the_answer_fill_last():
    documents = [document(1, 6, at=3)] + [Document(f"Portb and word{each} " * 20, "?", "absent") for each in range(9)]
    documents += [document(each, 30, at=3) for each in range(2, 5)]
    with pytest.warns(UserWarning, match="9 of 13 documents are left out: the answer does not occur in 9 of them"):
        rows = make_qa(documents, words, 700, samples=8)
    for row in rows:
        if row.reference == "Portb":
            assert text_of(row).count("Portb") == 1
    assert "Portb" in {row.reference for row in rows}


def test_qa_refuses():
    documents = [document(number, 6, at=3) for number in range(3)]
    with pytest.raises(
        rw.Error, match=r"with the answer at start, 3 documents give a prompt of \d+ tokens, but length is 900"
    ):
        make_qa(documents, words, 900, samples=3)
    with pytest.raises(
        rw.Error, match=r"length must be at least \d+, the tokens of the question 'Which port .* got 20"
    ):
        make_qa(documents, words, 20, samples=3)
    with pytest.raises(rw.Error, match=r"none of the 3 documents can be used: .* 0 of them and is no integer in 3"):
        make_qa(documents, words, 200, samples=3, altered=True)
    with pytest.raises(rw.Error, match="none of the 0 documents can be used"):
        make_qa([], words, 200, samples=3)
    with pytest.raises(rw.Error, match="samples must be positive, got -1"):
        make_qa(documents, words, 200, samples=-1)


def test_altered_numbers_follow_the_rule():
    rng = random.Random(3)
    steps = set()
    for _ in range(3000):
        year = rng.randint(1000, 2100)
        other = int(alter_number(str(year), rng))
        steps.add(other - year)
    assert steps == set(range(-10, 11)) - {0}
    for _ in range(3000):
        number = str(rng.randrange(10 ** rng.randint(1, 9)))
        if 1000 <= int(number) <= 2100:
            continue
        other = alter_number(number, rng)
        assert other != number and len(other) == len(number) and str(int(other)) == other
    digits = {alter_number("7", rng) for _ in range(300)}
    assert digits == set("012345689")
    assert {len(alter_number(edge, rng)) for edge in ("999", "2101")} == {3, 4}
    assert re.fullmatch(r"[1-9]\d\d,\d\d\d", alter_number("480,000", rng))
    with pytest.raises(rw.Error, match="number must be an integer without a sign, got '-4'"):
        alter_number("-4", rng)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("In 1987, the 1987 fleet (of 1987) left.", "In #, the # fleet (of #) left."),
        ("It ended in 1987. 1987! 1987", "It ended in #. #! #"),
        ("the 1987s, 1987km, $1987, 1987%", "the #s, #km, $#, #%"),
        ("1987-1990 and 1985\u20131987", "#-1990 and 1985\u2013#"),
        ("1,987 apples of 1987", "#, apples of #"),
        (
            "1987 but 11987, 19870, 1987.5, 0.1987, 1,987,000, 21,987",
            "# but 11987, 19870, 1987.5, 0.1987, 1,987,000, 21,987",
        ),
        ("1987 but B1987, x_1987", "# but B1987, x_1987"),
    ],
)
def test_every_occurrence_of_the_number_changes(text, expected):
    made = _qa.alter_document(Document(text, "?", "1987"), random.Random(0))
    plain = made.answer.replace(",", "")
    assert plain != "1987" and abs(int(plain) - 1987) <= 10
    assert made.document == expected.replace("#,", f"{int(plain):,}", text.count("1,987 ")).replace("#", plain)


def test_the_altered_number_is_new_to_the_document():
    text = "The year 1987, after " + ", ".join(str(year) for year in range(1977, 1998) if year not in (1987, 1991))
    assert {_qa.alter_document(Document(text, "?", "1987"), random.Random(seed)).answer for seed in range(9)} == {
        "1991"
    }


def test_altered_rows(byte_pairs):
    documents = [
        Document(one.document, one.question.replace("Which port has", "How many stones hide"), str(1600 + number))
        for number, one in enumerate(document(number, 6, at=3) for number in range(12))
    ]
    documents.append(Document("Two ships.", "How many?", "two"))
    documents.append(Document("Ships.", "How many?", "4"))
    with pytest.warns(UserWarning, match=r"2 of 14 .* does not occur in 1 of them and is no integer in 1"):
        rows = make_qa(documents, byte_pairs, 1500, samples=9, altered=True)
    check_qa(rows, byte_pairs, 1500)
    for row in rows:
        (source,) = (one for one in documents if one.question in row.prompt)
        assert row.reference != source.answer and abs(int(row.reference) - int(source.answer)) <= 10
        assert source.document.replace(source.answer, row.reference) in row.prompt
        assert source.answer not in row.prompt


def test_made_qa_rows_are_read_back(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = make_qa([document(number, 6, at=3) for number in range(12)], words, 400, samples=4)
    path = write_lines(tmp_path / "qa.jsonl", *(row.to_dict() for row in rows))
    assert read_qa(path) == rows
    assert all(contains(row.reference, f"In {row.reference}.") for row in rows)


def test_a_number_has_the_form_of_the_document():
    documents = [Document("The town has 12,500 people. " + "Rain falls. " * 20, "How many people?", "12500")]
    (row,) = make_qa(documents, words, 60, samples=1)
    assert row.reference == "12,500"
