"""Measure what scaling methods do to a language model: perplexity, LongChat-Lines and question answering.

The tasks of the Giraffe paper (https://arxiv.org/abs/2308.10882), for causal language models of Transformers. See
`python -m ropewalk evaluate --help` for the same from the command line.
"""

from ropewalk.evaluation._lines import LinesRow, is_correct, make_lines, read_lines
from ropewalk.evaluation._model import load, token_losses
from ropewalk.evaluation._qa import QaRow, contains, make_qa, read_documents, read_qa
from ropewalk.evaluation._report import sentences, table
from ropewalk.evaluation._results import Answer, Block, Bucket, Cell, read_cells
from ropewalk.evaluation._run import Settings, evaluate
from ropewalk.evaluation._tasks import lines, perplexity, qa, sliding

__all__ = [
    "Answer",
    "Block",
    "Bucket",
    "Cell",
    "LinesRow",
    "QaRow",
    "Settings",
    "contains",
    "evaluate",
    "is_correct",
    "lines",
    "load",
    "make_lines",
    "make_qa",
    "perplexity",
    "qa",
    "read_cells",
    "read_documents",
    "read_lines",
    "read_qa",
    "sentences",
    "sliding",
    "table",
    "token_losses",
]
