"""Paths of untrusted files: only regular files are read, and nothing blocks."""

import functools
import json
import os

import pytest
import ropewalk as rw
from ropewalk import _files
from ropewalk.evaluation import Settings, _run, _text, read_cells, read_documents, read_lines, read_qa

READERS = {
    "from_config": rw.from_config,
    "write_hf_config": functools.partial(rw.write_hf_config, rw.encoding("default", head_dim=8)),
    "read_lines": read_lines,
    "read_qa": read_qa,
    "read_documents": read_documents,
    "read_cells": read_cells,
    "read_texts": lambda path: _text.read_texts([path]),
    "settings_of": lambda path: _run.settings_of([_run.Job("default", "perplexity", 8)], Settings(text=(path,))),
}


@pytest.mark.parametrize("reader", READERS)
def test_other_files_are_refused(tmp_path, reader):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # it has no writer, for which a plain open() would wait
    link = tmp_path / "link"
    link.symlink_to(fifo)
    for path, kind in ((fifo, "a FIFO"), (link, "a FIFO"), ("/dev/zero", "a character device")):
        with pytest.raises(rw.Error, match=f"ropewalk: {path} is {kind}, expected a file"):
            READERS[reader](path)
    if reader in ("from_config", "write_hf_config"):  # they read the config.json of a folder
        os.mkfifo(tmp_path / "config.json")
        with pytest.raises(rw.Error, match=r"config.json is a FIFO"):
            READERS[reader](tmp_path)
    else:
        with pytest.raises(IsADirectoryError):
            READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("wrong", [None, 3, b"rows"])
def test_what_is_no_path(reader, wrong):
    with pytest.raises(TypeError, match=r"ropewalk: (path|files|config) must be a path"):
        READERS[reader](wrong)
    for text in ("\ud800", "a\0b"):
        with pytest.raises(rw.Error, match=r"ropewalk: (path|files|config) is no path"):
            READERS[reader](text)


@pytest.mark.parametrize("reader", [read_lines, read_qa, read_documents, read_cells])
@pytest.mark.parametrize("text", ["[" * 100_000, '[{"a": ' + "1" * 5000 + "}]", "[{", '{"a": "\\ud800"'])
def test_json_that_python_cannot_read(tmp_path, reader, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(rw.Error, match=r"rows.json:\d+: ") as caught:
        reader(path)
    assert len(str(caught.value)) < 500


def test_the_limit_of_a_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"abcd")
    assert _files.read_bytes(path, 4) == b"abcd"
    with pytest.raises(rw.Error, match="has 4 bytes, the limit is 3"):
        _files.read_bytes(path, 3)
    path.write_bytes(b"a\r\nb\rc\n")
    assert _files.read_text(path) == "a\nb\nc\n"


def test_files_that_the_system_generates():
    """Their size is stated as 0."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc")
    assert "Name:" in _files.read_text(_files.as_path("/proc/self/status", "path"))


def test_numbers_of_many_digits_in_a_configuration(tmp_path):
    """The reader in C++ takes them where no key needs them, but Python's reader does not."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"head_dim": 8, "rope_theta": 1e4})[:-1] + ', "a": ' + "1" * 5000 + "}")
    before = path.read_bytes()
    with pytest.raises(rw.Error):
        rw.write_hf_config(rw.encoding("default", head_dim=8), path)
    assert path.read_bytes() == before
