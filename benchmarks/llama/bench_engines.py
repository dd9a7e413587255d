"""Prefill and decode of giraffe_13b and llama.cpp: the same weights, the same threads.

python benchmarks/llama/bench_engines.py --gguf FILE --weights DIR [--types f16,bf16] [--threads 2,1] [--out FILE]

FILE is a Llama as GGUF, and DIR the same model for giraffe_13b: a folder with safetensors in float32. The weights of
FILE are dequantised and written as a GGUF of each type; giraffe_13b rounds those of DIR to it. Both caches are f16.
Every run is a process of its own. Runs alternate, and medians are compared. The greedy text of both is compared first.

llama.cpp is the package xllamacpp, whose wheels for Linux are compiled for AVX2. giraffe_13b therefore runs with AVX2
too, next to the widest instruction set of the machine. Without xllamacpp and gguf the benchmark is skipped.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "python"))
GIRAFFE = Path(os.environ.get("ROPEWALK_BUILD_DIR", ROOT / "build")) / "examples" / "giraffe_13b"


def write_gguf(source, target, kind):
    """Writes a GGUF whose matrices are f16 or bf16. Vectors are f32, as llama.cpp needs them."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    written_by_gguf = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in reader.fields.items():
        if name in written_by_gguf or name.startswith("GGUF."):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        stored = gguf.GGMLQuantizationType[kind.upper()] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_llama_cpp(path, threads, prompt, steps):
    """Seconds of a prompt and of one more token, and the text. Runs in a process of its own."""
    import xllamacpp

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # its log
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = len(prompt) + steps + 64, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    request = {"prompt": prompt, "max_tokens": steps, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    answer = server.handle_completions(request)
    timings = answer["timings"]
    if timings["prompt_n"] != len(prompt) or timings["predicted_n"] != steps:
        raise RuntimeError(f"llama.cpp ran {timings['prompt_n']} and {timings['predicted_n']} tokens")
    # The first token comes from the prompt.
    seconds = timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3 / (steps - 1)
    return *seconds, answer["choices"][0]["text"]


def run_giraffe(weights, kind, threads, prompt, steps, instruction_set):
    """Seconds of a prompt and of one more token, and the tokens."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.json")
        flags = ["--dtype", kind, "--cache", "f16", "--threads", threads, "--generate", steps, "--json", out]
        run = [GIRAFFE, "--weights", weights, "--prompt-ids", ",".join(map(str, prompt)), *flags]
        environment = {**os.environ, "ROPEWALK_ISA": instruction_set}
        subprocess.run(list(map(str, run)), check=True, stdout=subprocess.DEVNULL, env=environment)
        report = json.loads(out.read_text())
    return report["prefill"], report["decode"] / (steps - 1), report["tokens"]


def same_start(one, other):
    """Characters that two texts share at their beginning."""
    pairs = list(zip(one.strip(), other.strip()))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def measure(run_theirs, runs_ours, rounds):
    """Medians of seconds: of llama.cpp, and by instruction set."""
    names = ["llama.cpp", *runs_ours]
    seconds = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            seconds[name].append((run_theirs if name == "llama.cpp" else runs_ours[name])()[:2])
    return seconds


def rows_of(kind, threads, tokens, seconds):
    for name, ours in seconds.items():
        if name == "llama.cpp":
            continue
        row = {"type": kind, "threads": threads, "tokens": tokens, "instruction_set": name}
        for i, part in enumerate(("prefill", "decode")):
            scale = tokens if part == "prefill" else 1
            pairs = [(mine[i], theirs[i]) for mine, theirs in zip(ours, seconds["llama.cpp"])]
            row[f"{part}_tokens_per_second"] = scale / statistics.median(mine for mine, _ in pairs)
            row[f"{part}_tokens_per_second_of_llama_cpp"] = scale / statistics.median(theirs for _, theirs in pairs)
            row[f"{part}_speedup"] = statistics.median(theirs / mine for mine, theirs in pairs)
        yield row


def read_options():
    from bench_common import check_writable, counts, types_among

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--types", type=types_among({"f16", "bf16"}), default="f16,bf16")
    parser.add_argument("--threads", type=counts, default="2,1")
    parser.add_argument("--instruction-sets", type=types_among({"avx512", "avx2", "neon"}), default="avx512,avx2")
    parser.add_argument("--tokens", type=int, default=2048, help="of the prompt")
    parser.add_argument("--steps", type=int, default=33, help="tokens to generate after it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "llama_engines.json")
    options = parser.parse_args()
    check_writable(parser, options.out)
    for path in (options.gguf, options.weights / "model.safetensors", GIRAFFE):
        if not path.is_file():
            parser.error(f"{path} is missing")
    return options


def main():
    options = read_options()
    missing = [name for name in ("xllamacpp", "gguf", "transformers") if find_spec(name) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed; pip install xllamacpp gguf transformers")
        return
    from bench_common import installed
    from bench_peers import save
    from conversation import prose
    from transformers import AutoTokenizer

    prompt, tokenizer = prose(options.weights, options.tokens), AutoTokenizer.from_pretrained(options.weights)
    processes, rows = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.types:
            path = Path(folder, f"{kind}.gguf")
            write_gguf(options.gguf, path, kind)

            def theirs(threads, path=path, ids=prompt, steps=options.steps):
                with processes.Pool(1) as pool:
                    return pool.apply(run_llama_cpp, (path, threads, ids, steps))

            for threads in options.threads:
                ours = {
                    name: lambda name=name, threads=threads, kind=kind: run_giraffe(
                        options.weights, kind, threads, prompt, options.steps, name
                    )
                    for name in options.instruction_sets
                }
                text = theirs(threads)[2]
                for name, run in ours.items():
                    same = same_start(tokenizer.decode(run()[2]), text)
                    if same < min(len(text) // 2, 40):
                        sys.exit(f"{kind}, {name}: the greedy texts differ after {same} characters")
                seconds = measure(lambda threads=threads: theirs(threads), ours, options.rounds)
                for row in rows_of(kind, threads, options.tokens, seconds):
                    rows.append(row)
                    print(row, flush=True)
            path.unlink()
    import xllamacpp

    features = [part.split("=")[0].strip(" :") for part in xllamacpp.get_system_info().split("|") if "= 1" in part]
    llama_cpp = f"xllamacpp {installed('xllamacpp')}: {' '.join(features)}"
    save(rows, options.out, model=options.gguf.stem, llama_cpp=llama_cpp)


if __name__ == "__main__":
    main()
