"""Evaluations: perplexity against plain loops over Transformers, stubs with known answers, runs that are stopped."""

import copy
import errno
import json
import math
import os
import pathlib
import re
import sys
import types

import pytest
from checks import run
from ropewalk.__main__ import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import patched_models  # noqa: E402
import ropewalk as rw  # noqa: E402
from ropewalk import evaluation  # noqa: E402
from ropewalk.evaluation import _lines, _model, _run, _tasks, _text  # noqa: E402
from tiny_model import IDS, ROPES, build  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "It was a bright cold day in April, and the clocks of the harbour struck thirteen. " * 80


@pytest.fixture(scope="module")
def tokenizer():
    """Returns a byte-level BPE tokenizer with 400 tokens and a token that begins every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator([_text.default_text()[:40000]], trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    build(vocab_size=400).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def plain_losses(model, ids):
    """Losses from the logits of the whole sequence in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0].double()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


# Cohere, Gemma-2 and Granite scale or limit their logits after the head. The base_model of Llama-4 is the model itself.
@pytest.mark.parametrize("family", ["Llama", "Cohere", "Gemma2", "Granite", "GPTNeoX", "Llama4", "Mixtral", "Phi3"])
def test_losses_in_pieces_equal_those_of_the_whole_sequence(family, monkeypatch):
    model = build(family, rope=None if family == "GPTNeoX" else "default")
    forward = model.base_model.forward
    ids = torch.randint(3, 97, (75,), generator=torch.Generator().manual_seed(2)).tolist()
    monkeypatch.setattr(_model, "PIECE", 97 * 10)  # pieces of ten tokens, and a last one of four
    torch.testing.assert_close(
        evaluation.token_losses(model, ids).double(), plain_losses(model, ids), rtol=0, atol=1e-5
    )
    assert model.base_model.forward == forward and "forward" not in vars(model.base_model)


@pytest.mark.parametrize("kind", ["Gemma3", "bamba", "gpt_oss", "qwen3_next", "Qwen2VL"])
def test_losses_of_special_kinds_equal_those_of_the_whole_sequence(kind):
    model, ids = patched_models.tiny(kind), IDS[0].tolist()
    torch.testing.assert_close(
        evaluation.token_losses(model, ids).double(), plain_losses(model, ids), rtol=0, atol=1e-5
    )


def test_losses_have_no_bias_with_many_logits():
    model = build(vocab_size=50000)
    losses = evaluation.token_losses(model, list(range(3, 90))).double()
    assert float((losses - plain_losses(model, list(range(3, 90)))).mean().abs()) < 1e-6


def test_a_model_with_an_encoder_is_refused(tokenizer):
    model = patched_models.tiny("T5Gemma")
    with pytest.raises(rw.Error, match="T5GemmaForConditionalGeneration has an encoder and a decoder"):
        evaluation.perplexity(model, tokenizer, length=64, text=TEXT)


def test_logits_never_exist_for_the_whole_sequence(monkeypatch):
    model, rows = build(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    monkeypatch.setattr(_model, "PIECE", 97 * 16)
    evaluation.token_losses(model, list(range(3, 90)))
    assert max(rows) == 16 and sum(rows) == 1 + 86


@pytest.mark.parametrize("rope", sorted(ROPES))
def test_perplexity_equals_a_plain_loop_over_transformers(rope, tokenizer):
    model = build(rope=rope, vocab_size=400)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    length, needed = 600, 600
    starts = [0, (len(ids) - needed) // 2, 2 * ((len(ids) - needed) // 2)]
    parts = [[1, *ids[start : start + needed]] for start in starts]
    losses = torch.stack([plain_losses(model, part) for part in parts])
    cell = evaluation.perplexity(
        model, tokenizer, length=length, text=TEXT, texts=3, policy="from-config"
    )  # Transformers has these policies itself
    assert cell.samples == 3 and cell.policy == "from-config"
    assert math.log(cell.value) == pytest.approx(float(losses.mean()), abs=1e-4)
    assert cell.low < cell.value < cell.high
    assert [(one.start, one.stop) for one in cell.buckets] == [(0, 256), (256, 512), (512, 600)]
    for one in cell.buckets:
        assert one.loss == pytest.approx(float(losses[:, one.start : one.stop].mean()), abs=1e-4)
    assert evaluation.perplexity(model, tokenizer, length=length, text=TEXT, texts=3).value == pytest.approx(
        cell.value, rel=1e-4
    )  # the model's own rotation, not patched


def test_sliding_windows_of_all_lengths_score_the_same_tokens(tokenizer):
    model = build(vocab_size=400)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for length in (256, 300):
        cell = evaluation.sliding(model, tokenizer, length=length, text=TEXT, samples=3, stride=200)
        losses = []
        for part in range(3):
            stop = len(ids) - 200 * part
            losses.append(plain_losses(model, [1, *ids[stop - length : stop]])[-200:])
        assert cell.samples == 3 and math.log(cell.value) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)
    with pytest.raises(rw.Error, match=r"stride must be in \[1, 64\], the tokens of a window, got 65"):
        evaluation.sliding(model, tokenizer, length=64, text=TEXT, stride=65)


def test_a_task_patches_the_model_and_restores_it(tokenizer):
    model, kinds = build(vocab_size=400), []
    kind = type(model.model.rotary_emb)
    model.model.register_forward_hook(lambda module, inputs, output: kinds.append(type(module.rotary_emb)))
    with pytest.raises(rw.Error, match="unknown policy"):
        evaluation.perplexity(model, tokenizer, length=64, text=TEXT, policy="lineer:2")
    one, two = (
        evaluation.perplexity(model, tokenizer, length=64, text=TEXT, policy=p) for p in ("default", "linear:4")
    )
    assert one.value != two.value and kind not in kinds and type(model.model.rotary_emb) is kind
    rw.patch(model)
    with pytest.raises(rw.Error, match="already patched"):
        evaluation.perplexity(model, tokenizer, length=64, text=TEXT, policy="default")


def test_infinite_logits_are_an_error():
    model = build()
    with torch.no_grad():
        model.lm_head.weight[5] = float("inf")
    with pytest.raises(rw.Error, match=r"the loss at position \d+ is (nan|inf)"):
        evaluation.token_losses(model, list(range(3, 20)))


class Reader:
    """A model that reads the asked line in its prompt, and answers wrongly in the second half of the record."""

    device, generation_config = torch.device("cpu"), types.SimpleNamespace(eos_token_id=2)

    def __init__(self, tokenizer, template="{}"):
        self.tokenizer, self.template, self.prompts = tokenizer, template, []

    def generate(self, ids, **options):
        prompt = self.tokenizer.decode(ids[0])
        self.prompts.append(prompt)
        key = re.search(r"in line (\S+?)\?", prompt)[1]
        record = re.findall(r"line (\S+?): REGISTER_CONTENT is <(\d+)>", prompt)
        place = [name for name, number in record].index(key)
        number = int(record[place][1]) + (place >= len(record) / 2)
        answer = self.tokenizer(self.template.format(number), add_special_tokens=False)["input_ids"]
        return torch.cat([ids, torch.tensor([answer])], 1)


@pytest.mark.parametrize("template", ["{}>. I found it in 1 step", "The number is <{}>."])
def test_accuracy_of_a_model_with_known_answers_is_exact(tokenizer, template):
    model = Reader(tokenizer, template)
    cell = evaluation.lines(model, tokenizer, length=600, samples=20, seed=3)
    early = [one for one in cell.answers if one.depth <= 0.5]
    assert {one.correct for one in early} == {True}
    assert cell.value == len(early) / 20 and 0.3 <= cell.value <= 0.7
    assert cell.low < cell.value < cell.high
    assert all(one.correct == (one.expected in one.answer) for one in cell.answers)
    assert all(540 < one.tokens <= 600 for one in cell.answers)
    assert all(prompt.endswith("is <") for prompt in model.prompts)  # the beginning of the answer is given
    again = evaluation.lines(Reader(tokenizer, template), tokenizer, length=600, samples=20, seed=3)
    assert again.answers == cell.answers


def test_a_chat_template_is_used_on_request(tokenizer):
    model = Reader(tokenizer)
    with pytest.raises(rw.Error, match="no chat template"):
        evaluation.lines(model, tokenizer, length=600, samples=2, chat=True)
    template = "{% for message in messages %}[user] {{ message['content'] }}{% endfor %}[assistant] "
    tokenizer.chat_template = template
    try:
        cell = evaluation.lines(model, tokenizer, length=600, samples=2, chat=True)
    finally:
        tokenizer.chat_template = None
    assert all(p.startswith("[user] ") and p.endswith("[assistant] ") for p in model.prompts)
    assert max(one.tokens for one in cell.answers) <= 600
    tokenizer.chat_template = "{{ raise_exception('needs a system message') }}"
    try:
        with pytest.raises(rw.Error, match=r"chat template refuses a single user message: .*needs a system message"):
            evaluation.lines(model, tokenizer, length=600, samples=2, chat=True)
    finally:
        tokenizer.chat_template = None


def test_documents_without_their_answer_are_one_line(folder, tmp_path, capsys):
    path = tmp_path / "documents.jsonl"
    text = "The ship left Oslo, and the sea was calm for hours. " * 12
    rows = [{"document": text, "question": "Which?", "answer": answer} for answer in ("Oslo", "Rome")]
    path.write_text("\n".join(map(json.dumps, rows)))
    options = ["--tasks", "qa", "--documents", path, "--lengths", 250, "--samples", 1]
    status, _, progress = evaluate(folder, *options, capsys=capsys)
    line = "ropewalk: 1 of 2 documents are left out: the answer does not occur in 1 of them"
    assert status == 0 and progress.splitlines()[0] == line and "Warning" not in progress, progress


def test_keys_that_end_in_numbers_do_not_end_the_answer(tokenizer):
    record = "line odd-sock-7: REGISTER_CONTENT is <17>\nline tin-cup-8: REGISTER_CONTENT is <12345>\n"
    prompt = f"{record}\nTell me what is the <REGISTER_CONTENT> in line odd-sock-7? I need the number."
    row = evaluation.LinesRow(prompt, 17, 2, None, "odd-sock-7", 0)
    written = []

    class Speaker(Reader):
        def generate(self, ids, stopping_criteria, **options):
            text = "In line odd-sock-7 it is 17>. The other is 12345."
            for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
                ids = torch.cat([ids, torch.tensor([[token]])], 1)
                if bool(stopping_criteria(ids, None)):
                    break
            written.append(ids)
            return ids

    cell = evaluation.lines(Speaker(tokenizer), tokenizer, rows=[row])
    assert cell.value == 1 and "17>" in cell.answers[0].answer and "12345" not in cell.answers[0].answer
    assert [_lines.is_complete(row, text) for text in ("odd-sock-7", "12,", "17, ", "1", "1>")] == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("template", "prefix"), [("<s> $A </s>", [1]), ("$A </s>", []), ("<pad> <s> $A", [0, 1]), ("$A", [])]
)
def test_prompts_have_the_tokens_before_a_text_and_none_after_it(tokenizer, template, prefix):
    from tokenizers import processors

    other = copy.deepcopy(tokenizer)
    ids = {"special_tokens": [("<pad>", 0), ("<s>", 1), ("</s>", 2)]}
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, **ids)
    plain = other("Say\nThe <", add_special_tokens=False)["input_ids"]
    assert _tasks.prompt_tokens(other, "Say", False, "The <") == prefix + plain
    assert _text.first_tokens(other) == prefix


@pytest.mark.parametrize("chat", [False, True])
def test_lengths_hold_with_one_token_per_character(chat):
    class Characters:
        chat_template = "used by the method below"

        def __call__(self, text, add_special_tokens=True, verbose=True):
            return {"input_ids": [1] * add_special_tokens + list(text.encode())}

        def apply_chat_template(self, messages, **options):
            return f"<user>{messages[0]['content']}<assistant>"

    rows = _tasks.rows_of_length(Characters(), 3000, 12, 0, chat, True)
    sizes = [len(ids) for ids in _tasks.lines_prompts(Characters(), rows, chat, True)]
    assert sizes == [row.token_size for row in rows] and min(sizes) >= 2970 and max(sizes) <= 3000


def test_greedy_text_ignores_the_generation_settings_of_the_model(tokenizer):
    model, ids = build(vocab_size=400), tokenizer("The harbour")["input_ids"]
    expected = list(ids)
    for _ in range(12):
        with torch.no_grad():
            expected.append(int(model(torch.tensor([expected])).logits[0, -1].argmax()))
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0)
    own = model.generation_config
    text = _model.greedy_text(model, tokenizer, ids, 12)
    assert text == tokenizer.decode(expected[len(ids) :], skip_special_tokens=True) and model.generation_config is own


def evaluate(folder, *arguments, capsys=None):
    status = main(["evaluate", str(folder), "--samples", "4", "--texts", "2", *map(str, arguments)])
    return (status, *capsys.readouterr()) if capsys else status


def test_the_command_prints_a_table_and_writes_json_and_plots(folder, tmp_path, capsys):
    paths = tmp_path / "out.json", tmp_path / "out.svg"
    options = ["--policies", "default", "yarn:4", "--tasks", "perplexity", "sliding", "lines", "--lengths", 512, 470]
    status, table, progress = evaluate(folder, *options, "--json", paths[0], "--plot", paths[1], capsys=capsys)
    assert status == 0, progress
    assert "yarn:4" in table and "perplexity" in table
    assert "[12/12]" in progress and "left" in progress
    rows = json.loads(paths[0].read_text())
    assert len(rows) == 12 and paths[1].stat().st_size > 1000
    for row in rows:
        assert {"policy", "task", "length", "value", "low", "high", "samples", "seconds"} <= row.keys()
        assert row["versions"]["transformers"] == transformers.__version__ and row["seed"] == 0
        assert row["low"] <= row["value"] <= row["high"] and row["settings"].get("samples", 4) == 4
    assert {row["length"] for row in rows} == {470, 512}
    lines = [row for row in rows if row["task"] == "lines"]
    assert all(len(row["answers"]) == 4 for row in lines)
    prompts = [[(one["expected"], one["depth"]) for one in row["answers"]] for row in lines if row["length"] == 512]
    assert prompts[0] == prompts[1]  # all policies have the same rows
    assert main(["report", str(paths[0]), "--plot", str(tmp_path / "again.svg")]) == 0
    assert capsys.readouterr().out == table and (tmp_path / "again.svg").stat().st_size > 1000
    assert main(["report", str(paths[0]), str(paths[0])]) == 2
    assert "is in the files more than once" in capsys.readouterr().err
    rows[0]["model"] = "other"
    (tmp_path / "other.json").write_text(json.dumps(rows[:1]))
    cells = evaluation.read_cells(paths[0], tmp_path / "other.json")
    assert len(cells) == 13 and {"other default", "model0 default"} < {cell.policy for cell in cells}


def test_a_stopped_run_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, capsys):
    path, measured = tmp_path / "out.json", []
    options = ["--policies", "default", "linear:4", "--tasks", "perplexity", "--lengths", 64, 128, "--json", path]
    measure = _run.Runner.measure

    def stopping(self, job, progress=None):
        measured.append(job)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(self, job, progress)

    monkeypatch.setattr(_run.Runner, "measure", stopping)
    assert evaluate(folder, *options) == 130
    stored = path.read_text()
    assert len(json.loads(stored)) == 2
    status, _, progress = evaluate(folder, *options, capsys=capsys)
    assert status == 0 and "2 of 4 cells are stored already" in progress and len(measured) == 5
    assert measured[2] == measured[3] and [row["length"] for row in json.loads(path.read_text())] == [64, 64, 128, 128]
    assert evaluate(folder, *options) == 0 and len(measured) == 5  # nothing is left
    status, _, problem = evaluate(folder, *options, "--texts", 3, capsys=capsys)
    assert status == 2 and "its settings.texts is 2, here it is 3" in problem
    path.write_text(stored[:-30])
    status, _, problem = evaluate(folder, *options, capsys=capsys)
    assert status == 2 and f"{path} holds no results of an evaluation" in problem


def test_a_file_keeps_other_cells_and_refuses_other_settings_of_the_same(folder, tmp_path, capsys):
    path, text = tmp_path / "out.json", tmp_path / "text.txt"
    text.write_text(TEXT)
    common = ["--lengths", 512, "--json", path]
    assert evaluate(folder, "--tasks", "lines", *common) == 0
    stored = path.read_text().splitlines()[1]
    assert evaluate(folder, "--tasks", "lines", "perplexity", "--text", text, "--texts", 1, *common) == 0
    assert stored in path.read_text() and len(json.loads(path.read_text())) == 2
    status, _, problem = evaluate(folder, "--tasks", "perplexity", "--texts", 1, *common, capsys=capsys)
    assert status == 2 and "its settings.text is ['text.txt " in problem
    rows = json.loads(path.read_text())
    del rows[0]["value"]
    path.write_text(json.dumps(rows))
    status, _, problem = evaluate(folder, "--tasks", "lines", *common, capsys=capsys)
    assert status == 2 and f"{path} holds no results of an evaluation" in problem


def test_a_store_takes_in_the_rows_of_other_processes(tmp_path, monkeypatch):
    jobs = [_run.Job("default", "perplexity", length) for length in (64, 128, 256)]
    path, head = tmp_path / "out[1].json", {"model": "m", "fingerprint": "f", "dtype": "float32"}
    settings = _run.settings_of(jobs, _run.Settings())
    first, second = (_run.Store(path, head, settings, _run.Ranks()) for _ in range(2))
    cell = evaluation.Cell("default", "perplexity", 64, 2.0, 1.0, 3.0, 1, 1.0)
    for store, job in ((first, jobs[0]), (second, jobs[1]), (first, jobs[2])):
        store.add(job, cell)
    assert len(json.loads(path.read_text())) == 3 and second.cell(jobs[0]) and os.listdir(tmp_path) == [path.name]
    path.rename(tmp_path / "out[1].json.rank5")  # of a run that was killed
    store = _run.Store(path, head, settings, _run.Ranks())
    store.close()
    assert all(map(store.cell, jobs)) and os.listdir(tmp_path) == [path.name]

    def full(file, *arguments, **options):
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device") as problem:
        store.write()
    assert problem.value.filename == str(path) and os.listdir(tmp_path) == [path.name]
    assert len(json.loads(path.read_text())) == 3


def test_an_error_of_a_cell_names_the_cell(folder, monkeypatch, capsys):
    def failing(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")

    monkeypatch.setattr(_model, "token_losses", failing)
    status, _, problem = evaluate(folder, "--tasks", "perplexity", "--lengths", 64, capsys=capsys)
    assert status == 2 and problem.count("\n") == 1
    assert "perplexity from-config 64: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB." in problem


def test_rows_of_files(folder, tmp_path, monkeypatch, capsys):
    files = [tmp_path / "a" / "rows.jsonl", tmp_path / "b" / "rows.jsonl", tmp_path / "other.jsonl"]
    record = "line odd-sock: REGISTER_CONTENT is <17>\n" * 3
    prompt = f"{record}\nTell me what is the <REGISTER_CONTENT> in line odd-sock? I need the number."
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"expected_number": 17, "prompt": prompt}))
    common = ["--tasks", "lines", "--lines"]
    status, _, problem = evaluate(folder, *common, files[0], files[1], capsys=capsys)
    assert status == 2 and "file of lines rows.jsonl is given twice" in problem
    status, _, problem = evaluate(folder, *common, files[0], files[2], capsys=capsys)
    assert status == 2 and re.search(r"the longest prompts of .* have \d+ tokens each", problem)
    assert evaluate(folder, *common, files[0]) == 0
    monkeypatch.setattr(_model, "free_bytes", lambda device: 1000)
    status, _, problem = evaluate(folder, *common, files[0], capsys=capsys)
    assert status == 2 and re.search(r"length 2\d\d needs about", problem)


def test_ranks_share_the_cells(folder, tmp_path):
    paths = tmp_path / "one.json", tmp_path / "two.json"
    options = ["--policies", "default", "linear:2", "ntk:2", "--tasks", "perplexity", "--lengths", "64", "96"]
    options += ["--texts", "2", "--json"]
    assert main(["evaluate", str(folder), *options, str(paths[0])]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = run(*torchrun, "-m", "ropewalk", "evaluate", str(folder), *options, str(paths[1]), OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("ntk:2") == 1 or "[3/3]" in result.stderr
    one, two = (
        {(row["policy"], row["length"]): row["value"] for row in json.loads(path.read_text())} for path in paths
    )
    assert one.keys() == two.keys() and all(one[key] == pytest.approx(two[key], rel=1e-5) for key in one)
    assert sorted(os.listdir(tmp_path)) == ["one.json", "two.json"]


def test_shares_have_equal_costs():
    costs = [8.0, 1, 1, 1, 1, 4]
    shares = _run._share(list("abcdef"), costs, 2)
    assert sorted(job for share in shares for job in share) == list("abcdef")
    assert [sum(costs["abcdef".index(job)] for job in share) for share in shares] == [8, 8]


# Arguments after the model, and a part of the message.
BAD = {
    "policy": (["--policies", "lineer:2"], "lineer"),
    "task": (["--tasks", "perplexiti"], "unknown task 'perplexiti'; tasks are perplexity, sliding, lines, qa"),
    "short text": (["--tasks", "perplexity", "--lengths", "3000000"], "but length 3000000 needs 3000000"),
    "memory": (
        ["--tasks", "lines", "--lengths", str(10**12)],
        r"length 1000000000000 needs about \d+\.\d GB of memory",
    ),
    "length": (["--lengths", "0"], "length must be positive, got 0"),
    "twice": (["--policies", "ntk:2", "ntk:2"], "policy ntk:2 is given twice"),
    "too short": (["--tasks", "lines", "--lengths", "200"], "length must be at least .* got 200"),
    "qa": (["--tasks", "qa"], r"task qa needs rows \(--qa\) or documents"),
    "unused": (["--tasks", "lines", "--text", "a.txt"], "--text has no effect on the tasks lines"),
    "no lengths": (
        ["--tasks", "qa", "--qa", "a", "--lengths", "9"],
        "--lengths has no effect on the tasks qa of files",
    ),
    "chat": (["--tasks", "perplexity", "--chat"], "--chat has no effect on the tasks perplexity"),
    "stride": (["--tasks", "sliding", "--lengths", "64"], r"stride must be in \[1, 64\], .* got 256"),
    "many": (["--tasks", "lines", "--lengths", "512", "--samples", str(10**9)], "samples must be at most 100000, got"),
    "bytes": (["--policies", "linear:\udcff"], r"'linear:\\udcff' is not UTF-8 text"),
    "device file": (["--json", os.devnull], "cannot write '/dev/null': it is no file"),
    "altered": (["--altered"], "--altered needs --documents"),
    "samples": (["--samples", "0"], "--samples must be positive, got 0"),
    "suffix": (["--plot", "a.gif"], "--plot must end in .png or .svg"),
    "folder": (["--json", "missing/a.json"], "cannot write 'missing/a.json'"),
    "no file": (["--tasks", "perplexity", "--text", "missing.txt"], "missing.txt: No such file"),
    "attention": (["--attention", "unheard"], "cannot load .*unheard"),
    "device": (["--device", "cuda:99"], "cannot load"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name, folder, capsys):
    arguments, message = BAD[name]
    assert main(["evaluate", str(folder), *arguments]) == 2
    problem = capsys.readouterr().err
    assert re.search(message, problem), problem
    assert problem.startswith("ropewalk: ") and problem.count("\n") == (3 if name == "policy" else 1), problem


def test_a_folder_without_a_rotating_model_is_one_clear_line(tokenizer, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "missing")]) == 2
    assert "no folder or GGUF file" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "Transformers cannot load" in capsys.readouterr().err
    (tmp_path / "weights.txt").write_text("none")
    assert main(["evaluate", str(tmp_path / "weights.txt")]) == 2
    assert "neither a folder nor a .gguf file" in capsys.readouterr().err
    gpt = transformers.GPT2Config(vocab_size=400, n_embd=32, n_head=2, n_layer=1, n_positions=512)
    transformers.GPT2LMHeadModel(gpt).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert main(["evaluate", str(tmp_path), "--tasks", "perplexity", "--lengths", "64"]) == 2
    problem = capsys.readouterr().err
    assert "GPT2" in problem and problem.count("\n") == 1


def test_a_model_is_identified_by_its_files(folder, tmp_path):
    import shutil

    other = tmp_path / "copy"
    shutil.copytree(folder, other)
    assert _model.fingerprint(other) == _model.fingerprint(folder)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert _model.fingerprint(other) != _model.fingerprint(folder)


def test_texts_are_read_from_files(tmp_path):
    one, two = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_text("first", encoding="utf-8")
    two.write_text("sécond", encoding="utf-8")
    assert _text.read_texts([one, two]) == "first\nsécond"
    two.write_bytes(b"\xff\xfe")
    with pytest.raises(rw.Error, match=r"b\.txt is not UTF-8 text: .* at byte 0"):
        _text.read_texts([one, two])
    with pytest.raises(FileNotFoundError):
        _text.read_texts([tmp_path / "missing.txt"])
    assert len(_text.default_text()) > 300_000


def test_parts_of_a_text():
    ids = list(range(100))
    parts = _text.windows(ids, [], 19, 3)
    assert parts == [ids[0:20], ids[40:60], ids[80:100]]
    assert _text.windows(ids, [-1], 20, 2) == [[-1, *ids[0:20]], [-1, *ids[80:100]]]
    assert len(_text.windows(ids, [], 49, 9)) == 2  # no more fit
    assert _text.windows(ids, [], 19, 2, stride=5) == [ids[80:100], ids[75:95]]
    assert [one for one in _tasks._buckets([evaluation.Block(0, 0, 100, 2.0)], 100)] == [evaluation.Bucket(0, 100, 2.0)]


def test_a_gguf_file_is_a_model(tmp_path, tokenizer, capsys):
    """A Llama with a byte-level tokenizer; GGUF has the rows of q and k in the interleaved order."""
    gguf, _ = pytest.importorskip("gguf"), pytest.importorskip("accelerate")
    model = build(vocab_size=len(tokenizer), num_key_value_heads=4, max_position_embeddings=1024)
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    raw = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(raw["vocab"], key=raw["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in raw["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads
            tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read, reader = evaluation.load(tmp_path / "model.gguf")
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, model(ids).logits, rtol=0, atol=1e-4)
    status, table, _ = evaluate(tmp_path / "model.gguf", "--tasks", "lines", "--lengths", 600, capsys=capsys)
    assert status == 0 and "from-config" in table and reader("a b")["input_ids"]
