"""Runs giraffe_13b on mutated copies of a small checkpoint.

Each run has limits of memory and time. It may end with exit status 0 and no error, or with exit status 1 and a message
of one line. Everything else is a finding: a signal, another status, a longer message, a timeout. A seed makes a run
repeatable:

    python tests/fuzz/checkpoints.py build/examples/giraffe_13b --runs 5000 --seed 7
"""

import argparse
import collections
import copy
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HIDDEN, INNER, VOCABULARY, HEAD_DIM = 16, 24, 32, 8
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
SCALINGS = (
    None,
    {"rope_type": "linear", "factor": 8.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {
        "rope_type": "longrope",
        "factor": 4.0,
        "original_max_position_embeddings": 20,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 1.5, 2.0, 2.5],
    },
)
NUMBERS = (0, -1, 1, 2, 3, 7, 2**16, 2**24, 2**24 + 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.5, 1e-320)
NUMBERS += (1e300, 1e308, float("inf"), float("nan"))
VALUES = (*NUMBERS, None, True, False, "", "llama", "x" * 3000, "\ud800", [], {}, [1, 2], {"a": {}})
TYPES = {"F32": 4, "F16": 2, "BF16": 2}
MEMORY, SECONDS, LONGEST_MESSAGE = 1 << 30, 20, 1500


def shapes():
    """The tensors of the model by name."""
    keys = HEAD_DIM * CONFIG["num_key_value_heads"]
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield f"{prefix}input_layernorm.weight", [HIDDEN]
        for name, outputs in (("q", HIDDEN), ("k", keys), ("v", keys), ("o", HIDDEN)):
            yield f"{prefix}self_attn.{name}_proj.weight", [outputs, HIDDEN]
        yield f"{prefix}post_attention_layernorm.weight", [HIDDEN]
        yield f"{prefix}mlp.gate_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}mlp.up_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}mlp.down_proj.weight", [HIDDEN, INNER]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def bits_of(value, dtype):
    """The little-endian bytes of a number in a type of the file."""
    if dtype == "BF16":
        return struct.pack("<f", value)[2:]
    return struct.pack("<e" if dtype == "F16" else "<f", value)


def shard_of(tensors, dtype, chance):
    """The header and the data of a file with these tensors."""
    header, data = {}, bytearray()
    for name, shape in tensors:
        start = len(data)
        for _ in range(shape[0] * (shape[1] if len(shape) > 1 else 1)):
            data += bits_of(1.0 if name.endswith("norm.weight") else chance.uniform(-0.3, 0.3), dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, len(data)]}
    return header, data


def dump(value, chance, mutated):
    """JSON text; that of a mutated file has one key twice at times."""
    text = json.dumps(value)
    if mutated and chance.random() < 0.02 and text.startswith("{") and len(text) > 2:
        first = text[1:].split(",", 1)[0].rstrip("}")
        text = "{" + first + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def mutate_value(value, chance):
    """Another value in place of one inside a JSON value."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = chance.choice(keys)
        action = chance.random()
        if action < 0.1:
            del value[key]
        elif action < 0.15 and isinstance(value, dict):
            value[chance.choice(["", "x", "rope_scaling", "__metadata__", "dtype"])] = value.pop(key)
        else:
            value[key] = mutate_value(value[key], chance)
        return value
    if isinstance(value, (int, float)) and chance.random() < 0.4:
        return value + chance.choice([1, -1, 2, 8])
    return chance.choice(VALUES)


def mutate_bytes(data, chance):
    """Changes, inserts, removes or repeats bytes."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        if not data:
            break
        at = chance.randrange(len(data))
        action = chance.random()
        if action < 0.5:
            data[at] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)]
            )
        elif action < 0.65:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice([1, 2, 8])))
        elif action < 0.8:
            del data[at : at + chance.choice([1, 2, 8, 100])]
        elif action < 0.9:
            del data[at:]
        else:
            data += data[at : at + 64]
    return bytes(data)


def file_of(header, data, chance, mutated):
    """The bytes of a safetensors file, with a mutation of its length, header or data."""
    kind = chance.choice(["length", "bytes", "values", "header", "header", "header"]) if mutated else ""
    if kind == "header":
        for _ in range(chance.choice([1, 1, 2])):
            header = mutate_value(header, chance)
    text = dump(header, chance, mutated)
    length = (
        chance.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(text) - 1, len(text) + 1]) if kind == "length" else len(text)
    )
    if kind == "values":
        for _ in range(chance.choice([1, 20])):
            at = chance.randrange(0, len(data) - 4, 2)
            data[at : at + 2] = chance.choice(
                [b"\xff\xff", b"\x80\x7f", b"\x00\x7c", b"\xc0\x7f", b"\x01\x00", b"\x7f\x7f"]
            )
    file = struct.pack("<Q", length) + text + data
    return mutate_bytes(file, chance) if kind == "bytes" else file


def write_checkpoint(folder, chance):
    """Writes a checkpoint with one mutated file, or with none."""
    dtype = chance.choice(list(TYPES))
    config = copy.deepcopy(CONFIG)
    scaling = chance.choice(SCALINGS)
    if scaling is not None:
        config["rope_scaling"] = copy.deepcopy(scaling)
    victim = chance.choice(["config", "config", "shard", "shard", "shard", "index", "nothing"])
    if victim == "config" and chance.random() < 0.7:
        for _ in range(chance.choice([1, 1, 2, 3])):
            config = mutate_value(config, chance)
    text = dump(config, chance, victim == "config")
    if victim == "config" and chance.random() < 0.3:
        text = mutate_bytes(text, chance)
    (folder / "config.json").write_bytes(text)
    tensors = list(shapes())
    parts = [tensors]
    if victim == "index" or chance.random() < 0.3:
        middle = chance.randrange(1, len(tensors))
        parts = [tensors[:middle], tensors[middle:]]
        names = [f"model-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
        index = {"metadata": {}, "weight_map": {name: names[i] for i in range(2) for name, _ in parts[i]}}
        if victim == "index" and chance.random() < 0.7:
            index = mutate_value(index, chance)
            if chance.random() < 0.3 and isinstance(index, dict) and isinstance(index.get("weight_map"), dict):
                outside = ["../config.json", "/dev/zero", ".", "", "config.json", "a/b", "model.safetensors.index.json"]
                index["weight_map"]["lm_head.weight"] = chance.choice(outside)
        text = dump(index, chance, victim == "index")
        if victim == "index" and chance.random() < 0.3:
            text = mutate_bytes(text, chance)
        (folder / "model.safetensors.index.json").write_bytes(text)
    else:
        names = ["model.safetensors"]
    broken = chance.randrange(len(parts)) if victim == "shard" else -1
    for i, part in enumerate(parts):
        header, data = shard_of(part, dtype, chance)
        (folder / names[i]).write_bytes(file_of(header, data, chance, i == broken))
    return victim


def limit_resources():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def finding(status, error):
    """Describes a forbidden end of the program, or returns None."""
    if status == 0:
        return None if not error else "exit status 0 with a message"
    if status != 1:
        return f"exit status {status}"
    if not re.fullmatch(rb"giraffe_13b: [^\n]+\n", error):
        return "no message of one line"
    return "a long message" if len(error) > LONGEST_MESSAGE else None


def run(program, folder, chance):
    """Runs the program on a checkpoint and returns the exit status and the finding."""
    arguments = [program, "--weights", str(folder), "--threads", "1"]
    task = chance.choice(["generate", "generate", "perplexity", "layers"])
    if task == "generate":
        arguments += ["--prompt-ids", "1,5,9,31", "--generate", "4"]
    elif task == "perplexity":
        ids = folder / "ids.json"
        ids.write_text(json.dumps([chance.randrange(VOCABULARY) for _ in range(24)]), encoding="utf-8")
        arguments += ["--perplexity", str(ids)]
    else:
        arguments += ["--layers", "1", "--context", "8", "--decode", "1"]
    if chance.random() < 0.3:
        arguments += ["--dtype", chance.choice(["f32", "bf16", "f16"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            arguments, capture_output=True, timeout=2 * SECONDS, preexec_fn=limit_resources, env=environment
        )
    except subprocess.TimeoutExpired:
        return "timeout", f"no end within {2 * SECONDS} s", arguments
    problem = finding(done.returncode, done.stderr)
    return done.returncode, problem and f"{problem}: {done.stderr[:500]!r}", arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="build/examples/giraffe_13b")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run; run i has seed + i")
    parser.add_argument("--keep", type=Path, help="folder for the checkpoints of findings")
    arguments = parser.parse_args()
    counts, findings = collections.Counter(), 0
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        chance = random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="ropewalk_") as name:
            folder = Path(name)
            victim = write_checkpoint(folder, chance)
            status, problem, command = run(str(arguments.program.resolve()), folder, chance)
            counts[victim, status] += 1
            if victim == "nothing" and status != 0:
                problem = problem or "a valid checkpoint is refused"
            if problem is None:
                continue
            findings += 1
            print(f"seed {seed}, {victim}: {problem}\n  {' '.join(command[1:])}", file=sys.stderr)
            if arguments.keep is not None:
                shutil.copytree(folder, arguments.keep / str(seed), dirs_exist_ok=True)
    for (victim, status), count in sorted(counts.items(), key=str):
        print(f"{victim}: {count} runs with exit status {status}")
    accepted = sum(count for (_, status), count in counts.items() if status == 0)
    print(f"{arguments.runs} runs, {accepted} accepted, {findings} findings")
    # A script that mutates nothing, or breaks everything, tests nothing.
    sys.exit(1 if findings or accepted in (0, arguments.runs) else 0)


if __name__ == "__main__":
    main()
