"""Cached keys that follow a length-dependent scaling method, on a real model.

python benchmarks/llama/conversation.py --weights DIR [--turns 6144,512] [--tokens 12288] [--out FILE]

DIR holds a Llama with its tokenizer, such as SmolLM2-135M-Instruct. A text is added in turns. giraffe_13b re-rotates
its cached keys whenever the length selects another encoding. The oracle is PyTorch: it caches keys before the rotation
and rotates all of them, in every turn, as Transformers does. Both compute the losses in float32.

A third run adds the whole text at once with the final encoding. It differs from a conversation, because the values and
keys of its early tokens come from states that have seen the final encoding only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GIRAFFE = Path(os.environ.get("ROPEWALK_BUILD_DIR", ROOT / "build")) / "examples" / "giraffe_13b"


def losses_of(model, states, ids):
    """Cross-entropies in nats, in float64, of ids[i + 1] for the last hidden states of ids[i]. Holds 256 logits."""
    following, parts = torch.tensor(ids[1:], dtype=torch.int64), []
    for start in range(0, len(following), 256):
        rows = following[start : start + 256]
        logits = model.lm_head(states[start : start + len(rows)]).double()
        parts.append(functional.cross_entropy(logits, rows, reduction="none"))
    return torch.cat(parts).numpy() if parts else np.empty(0)


def freshly_encoded_losses(model, ids, turns):
    """Losses of a conversation whose cache holds keys before the rotation. Every turn rotates all of them by the
    encoding of its length."""
    cached = [([], []) for _ in model.model.layers]
    groups = model.config.num_attention_heads // model.config.num_key_value_heads

    def heads(x):
        return x.unflatten(-1, (-1, model.config.head_dim)).transpose(0, 1)

    def rotated(x, cos, sin):
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def attention(layer, states, past, cos, sin):
        keys, values = cached[layer.self_attn.layer_idx]
        keys.append(heads(layer.self_attn.k_proj(states)))
        values.append(heads(layer.self_attn.v_proj(states)))
        q = rotated(heads(layer.self_attn.q_proj(states)), cos[past:], sin[past:])
        k = rotated(torch.cat(keys, dim=1), cos, sin).repeat_interleave(groups, dim=0)
        v = torch.cat(values, dim=1).repeat_interleave(groups, dim=0)
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(past)
        mixed = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]
        return layer.self_attn.o_proj(mixed.transpose(0, 1).flatten(1))

    losses, past = [], 0
    with torch.no_grad():
        for turn in turns:
            x, whole = model.model.embed_tokens(torch.tensor(ids[past : past + turn])), past + turn
            cos, sin = (table[0] for table in model.model.rotary_emb(x, torch.arange(whole)[None]))
            for layer in model.model.layers:
                x = x + attention(layer, layer.input_layernorm(x), past, cos, sin)
                x = x + layer.mlp(layer.post_attention_layernorm(x))
            losses.append(losses_of(model, model.model.norm(x), ids[past : whole + 1]))
            past = whole
    return np.concatenate(losses)


def giraffe_losses(config, weights, ids, *flags):
    """Losses of giraffe_13b in float32."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "ids.json"), Path(folder, "report.json")
        path.write_text(json.dumps(ids))
        run = [GIRAFFE, "--config", config, "--weights", weights, "--perplexity", path, "--dtype", "f32", "--json", out]
        subprocess.run([*map(str, run), *flags], check=True, stdout=subprocess.DEVNULL)
        return np.array(json.loads(out.read_text())["losses"])


def policies_of(config):
    """Length-dependent scaling methods that change at the length of the configuration."""
    pairs = config.head_dim // 2
    longrope = {
        "rope_type": "longrope",
        "factor": 2.0,
        "original_max_position_embeddings": config.max_position_embeddings,
        "short_factor": [1.0] * pairs,
        # NTK-aware interpolation by two.
        "long_factor": [2.0 ** (pair / (pairs - 1)) for pair in range(pairs)],
    }
    return {"dynamic": {"rope_type": "dynamic", "factor": 2.0}, "longrope": longrope}


def config_of(args):
    config = LlamaConfig.from_pretrained(args.weights)
    if args.original_length:
        config.max_position_embeddings = args.original_length
    return config


def prose(folder, tokens):
    """Token ids of English prose that every Python carries."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:tokens]


def row_of(policy, parameters, args, ids):
    """Runs the conversation three times and compares the losses of the last turn."""
    first, step = args.turns
    turns = [first] + [step] * ((len(ids) - first) // step)
    config = config_of(args)
    config.rope_parameters = {**parameters, "rope_theta": config.rope_parameters["rope_theta"]}
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        ours = giraffe_losses(folder, args.weights, ids, "--turns", f"{first},{step}")
        at_once = giraffe_losses(folder, args.weights, ids)
    model = LlamaForCausalLM.from_pretrained(args.weights, config=config, dtype=torch.float32).eval()
    fresh = freshly_encoded_losses(model, ids, turns)
    last = slice(len(ids) - step, None)
    return {
        "policy": policy,
        "tokens": len(ids),
        "turns": [first, step],
        "original_length": config.max_position_embeddings,
        "loss": float(ours[last].mean()),
        "fresh_keys_loss": float(fresh[last].mean()),
        "at_once_loss": float(at_once[last].mean()),
        "largest_difference_to_fresh_keys": float(np.abs(ours - fresh).max()),
        "largest_difference_to_at_once": float(np.abs(ours - at_once)[last].max()),
    }


def main():
    sys.path.append(str(ROOT / "benchmarks" / "python"))
    from bench_common import check_writable, counts
    from bench_peers import save

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder of a Llama with safetensors and a tokenizer"
    )
    parser.add_argument("--policies", nargs="+", default=["dynamic", "longrope"], choices=["dynamic", "longrope"])
    parser.add_argument("--turns", type=counts, default=[6144, 512], help="tokens of the first turn and of the others")
    parser.add_argument("--tokens", type=int, default=12288)
    parser.add_argument("--original-length", type=int, help="length after which the encoding changes [trained length]")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "conversation.json")
    args = parser.parse_args()
    if len(args.turns) != 2 or (args.tokens - args.turns[0]) % args.turns[1] or args.tokens <= args.turns[0]:
        parser.error(f"{args.tokens} tokens are not turns of {args.turns}")
    check_writable(parser, args.out)
    ids = prose(args.weights, args.tokens)
    if len(ids) < args.tokens:
        parser.error(f"the text has {len(ids)} tokens, fewer than {args.tokens}")
    rows = []
    parameters = policies_of(config_of(args))
    for policy in args.policies:
        rows.append(row_of(policy, parameters[policy], args, ids))
        print(rows[-1], flush=True)
    save(rows, args.out)


if __name__ == "__main__":
    main()
