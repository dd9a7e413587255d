"""Language models of Transformers: loading, losses without the logits of a whole sequence, greedy text."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ropewalk import _ropewalk
from ropewalk._huggingface import patch, unpatch
from ropewalk._patched import PatchedRotaryEmbedding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 2**24  # logits that exist at a time
SAMPLE = 2**20  # bytes of each end of a weight file that fingerprint() reads


def load(
    path: str | Path, dtype: str = "auto", device: str | None = None, attention: str | None = None
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Args:
        path: A Hugging Face folder, or a GGUF file, whose weights are expanded to dtype.
        dtype: "float32", "bfloat16", "float16", or "auto": that of the folder, float32 for GGUF.
        device: "cpu", "cuda" or "cuda:N". By default the GPU if there is one.
        attention: An attention implementation of Transformers. By default that of Transformers for the model.

    Raises:
        Error: There is no such model, Transformers cannot load it, or a package is missing.
    """
    path = Path(path)
    if not path.exists():
        raise _ropewalk.Error(f"ropewalk: no folder or GGUF file {str(path)!r}; download the model first")
    options: dict[str, Any] = {"local_files_only": True}
    folder = path
    if path.is_file():
        if path.suffix != ".gguf":
            raise _ropewalk.Error(f"ropewalk: {str(path)!r} is neither a folder nor a .gguf file")
        missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
        if missing:
            raise _ropewalk.Error(
                f"ropewalk: reading GGUF needs {' and '.join(missing)}: pip install 'ropewalk[evaluate]'"
            )
        folder, options["gguf_file"] = path.parent, path.name
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = "float32" if dtype == "auto" and path.is_file() else dtype
        with_weights = dict(options, dtype=kind if kind == "auto" else getattr(torch, kind))
        if attention:
            with_weights["attn_implementation"] = attention
        if path.is_file() and hasattr(transformers, "GgufConfig"):  # before Transformers 5.20, it always expands them
            with_weights["quantization_config"] = transformers.GgufConfig(dequantize=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, **with_weights)
        return model.to(device).eval(), tokenizer  # type: ignore[arg-type]
    except Exception as problem:  # a damaged file raises errors of any package
        raise _ropewalk.Error(f"ropewalk: Transformers cannot load {str(path)!r}: {reason(problem)}") from problem


def reason(problem: BaseException) -> str:
    """Return the message of an error of another package as one line of at most 200 characters."""
    text = " ".join(str(problem).split())
    if not text or not isinstance(problem, (OSError, ValueError, ImportError)):
        text = f"{type(problem).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= 200 else text[:197] + "..."


def fingerprint(path: str | Path) -> str:
    """Return 16 hexadecimal digits that identify a model, by its configuration, and both ends of its weight files."""
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    for file in files:
        if file.name in ("config.json", "tokenizer.json") or file.suffix in (".safetensors", ".bin", ".gguf"):
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(SAMPLE))
                stream.seek(max(size - SAMPLE, 0))
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def applied(model: Any, policy: str | None) -> Iterator[None]:
    """Patch the model with a policy inside the block: "from-config" keeps its scaling, None leaves the model as it is.

    Raises:
        Error: As patch(), the model is already patched and policy is not None, or it has an encoder.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise _ropewalk.Error(
            f"ropewalk: {type(model).__name__} has an encoder and a decoder; the tasks take causal language models"
        )
    if policy is None:
        yield
        return
    if any(isinstance(module, PatchedRotaryEmbedding) for module in model.modules()):
        raise _ropewalk.Error("ropewalk: the model is already patched; pass policy=None, or call rw.unpatch(model)")
    patch(model, None if policy == "from-config" else policy)
    try:
        yield
    finally:
        unpatch(model)


def _body(model: Any) -> Any:
    """Return the module that computes the states that the head of a model takes."""
    # The base_model of Llama4ForCausalLM is the model itself.
    body = model.base_model if model.base_model is not model else getattr(model, "model", model)
    if body is model:
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} has no base_model, whose states its head would take")
    return body


@contextlib.contextmanager
def _replaced(body: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the layers of a model by a function, so that its own code computes logits from what that returns."""
    own = vars(body).get("forward")
    body.forward = forward
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


def token_losses(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the loss of each token after the first, given those before it: float32 [tokens - 1], in nats.

    The layers run once over the whole sequence. The logits are computed in pieces.

    Raises:
        Error: A loss is not finite, or there are fewer than two tokens.
    """
    if len(ids) < 2:
        raise _ropewalk.Error(f"ropewalk: a loss needs at least two tokens, got {len(ids)}")
    device = model.device
    whole = torch.tensor([ids], device=device)
    inputs, targets = whole[:, :-1], whole[0, 1:]
    body = _body(model)
    layers, outputs = body.forward, []

    def first_state(*arguments: Any, **named: Any) -> Any:
        outputs.append(layers(*arguments, **named))
        return _with_states(outputs[0], outputs[0].last_hidden_state[:, :1])

    with torch.inference_mode():
        with _replaced(body, first_state):
            columns = model(input_ids=inputs, use_cache=False).logits.shape[-1]
        states, losses = outputs[0].last_hidden_state, []
        size = max(PIECE // columns, 1)
        for start in range(0, inputs.shape[1], size):
            piece = slice(start, start + size)

            def some_states(*arguments: Any, states: Any = states[:, piece], **named: Any) -> Any:
                return _with_states(outputs[0], states)

            with _replaced(body, some_states):
                logits = model(input_ids=inputs[:, piece], use_cache=False).logits[0].float()
            # In float32, cross_entropy() of PyTorch on the CPU is 9e-6 nats too low for 49,152 logits.
            losses.append(logits.logsumexp(-1) - logits.gather(1, targets[piece, None])[:, 0])
    found = torch.cat(losses).cpu()
    if not bool(found.isfinite().all()):
        position = int((~found.isfinite()).nonzero()[0])
        raise _ropewalk.Error(
            f"ropewalk: the loss at position {position} is {float(found[position])}; the model's logits are not finite"
        )
    return found


def _with_states(output: Any, states: torch.Tensor) -> Any:
    return type(output)(last_hidden_state=states)


class _EndOfAnswer(transformers.StoppingCriteria):
    """Stops generating when a function of the text so far returns True."""

    def __init__(self, tokenizer: Any, prompt: int, complete: Callable[[str], bool]) -> None:
        self.tokenizer, self.prompt, self.complete = tokenizer, prompt, complete

    def __call__(self, ids: Any, scores: Any, **named: Any) -> Any:
        text = self.tokenizer.decode(ids[0, self.prompt :], skip_special_tokens=True)
        return torch.full((1,), self.complete(text), dtype=torch.bool, device=ids.device)


def greedy_text(
    model: Any, tokenizer: Any, ids: list[int], new_tokens: int, complete: Callable[[str], bool] | None = None
) -> str:
    """Return the text that follows the tokens, without special tokens.

    Args:
        complete: Returns True for a text that needs no more tokens.
    """
    inputs = torch.tensor([ids], device=model.device)
    stops = transformers.StoppingCriteriaList([_EndOfAnswer(tokenizer, len(ids), complete)] if complete else [])
    own, ends = model.generation_config, model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    padding = ends[0] if isinstance(ends, list) else ends
    # Instead of the model's own, whose temperatures and penalties would be merged into ours.
    model.generation_config = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=ends, pad_token_id=padding
    )
    try:
        with torch.inference_mode():
            found = model.generate(inputs, attention_mask=torch.ones_like(inputs), stopping_criteria=stops)
    finally:
        model.generation_config = own
    text: str = tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True)
    return text


def needed_bytes(model: Any, length: int) -> int:
    """Return an estimate of the bytes that a sequence needs, without the weights."""
    config = model.config.get_text_config()
    hidden = config.hidden_size
    heads = getattr(config, "num_attention_heads", 1) or 1
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    size = next(model.parameters()).element_size()
    cache = 2 * config.num_hidden_layers * kv_heads * head_dim
    states = 6 * hidden + 3 * (inner if isinstance(inner, int) else max(inner)) + 4 * heads * head_dim
    scores = 0
    if getattr(config, "_attn_implementation", None) == "eager":
        scores = heads * length * (2 * size + 4)  # scores, and their softmax in float32
    logits = min(PIECE, length * config.vocab_size)
    return int(length * ((cache + states) * size + scores) + 2 * 4 * logits)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is available on a device, within the limit of the control group; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = []
    try:
        fields = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in fields if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or no limit: "max"
        pass
    return min(free) if free else None
