"""Page of the recorded results of each machine, docs/results/<machine>.md, from benchmarks/results/<machine>_*.json.

python benchmarks/python/results_page.py    writes the pages and names those that changed

A test in tests/house compares the pages with the results.
"""

import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "results"
# Names of the machines. The processor in the results does not name its microarchitecture.
MACHINES = {"zen4": "Zen 4"}
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON", "baseline": "baseline"}
LENGTHS = (1, 16, 128, 4096, 32768)
IN_CACHE = 128  # tokens of 40 + 40 heads, at most
OURS = "ropewalk"
CANDIDATES = {
    OURS: "ropewalk",
    "hand": "AVX2 intrinsics and a table",
    "ggml": "ggml",
    "libm": "powf, cosf, sinf per pair",
}
CALLS = {
    "rotate": "`rotate`",
    "table": "`rotate` with `options.table`",
    "prepared": "prepared, a new position per call",
    "prepared_layers": "prepared, 40 layers per position",
}


def read_result(path):
    """The context and the rows of a recorded result, with the key `benchmarks` or `rows`."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["context"]["machine"], result["context"]["date"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is not a recorded result: {error!r}") from error
    return result


def table_rows(result):
    """{name: row} of a result of Google Benchmark."""
    return {row["name"]: row for row in result["benchmarks"]}


def machine_of(path):
    """The machine that a result file is named after."""
    key = path.name.split("_")[0]
    return MACHINES.get(key, key)


def row_of(rows, kind, layout, tokens, threads):
    """A row of bench_peers, or {}."""
    return rows.get(f"peers/{kind}/{layout}/40x40/{tokens}/threads:{threads}", {})


def ratio_of(rows, kind, layout, tokens, threads, candidate):
    """The ratio of a candidate of bench_peers to the in-place scale, or None."""
    row = row_of(rows, kind, layout, tokens, threads)
    return row.get("ratio_to_scale" if candidate == OURS else f"ratio_to_scale_{candidate}")


def number(value):
    """A ratio with two digits after the point, or three if it is small. None gives a dash."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def table(heading, lines):
    if not lines:
        return []
    return ["| " + " | ".join(map(str, line)) + " |" for line in [heading, ["---"] * len(heading), *lines]] + [""]


def section(title, about, content):
    """The lines of a section; none without content."""
    return [f"## {title}", "", about, "", *content] if content else []


def milliseconds(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def per_thread(cells):
    """Cells of one and two threads as one; a dash if neither is known."""
    return "-" if all(cell == "-" for cell in cells) else " / ".join(cells)


class Machine:
    """The results of one machine."""

    def __init__(self, key, paths):
        self.key, self.name = key, MACHINES.get(key, key)
        self.files = {path.stem.partition("_")[2]: path for path in sorted(paths)}
        self.results = {what: read_result(path) for what, path in self.files.items()}

    def of_sets(self, prefix):
        """[(name of the set, result)] of the files <prefix><set>, the widest set first."""
        return [(name, self.results[prefix + key]) for key, name in SETS.items() if prefix + key in self.results]


def contexts(machine):
    lines = []
    for what, path in machine.files.items():
        result = machine.results[what]
        context = result["context"]
        software = [context.get("compiler")]
        software += [
            f"{name} {context[name]}" for name in ("xsimd", "ggml", "torch", "transformers") if name in context
        ]
        lines.append(
            [
                f"{{download}}`{path.name} <../../benchmarks/results/{path.name}>`",
                context["date"][:16].replace("T", " "),
                context.get("commit", "-"),
                SETS.get(context.get("instruction_set"), "-"),
                context.get("tuning_profile", "-"),
                context.get("runs", 1),
                f"{context['load_avg'][0]:.1f}" if context.get("load_avg") else "-",
                ", ".join(filter(None, software)),
            ]
        )
    caches = next((r["context"]["caches"] for r in machine.results.values() if "caches" in r["context"]), [])
    sizes = [
        f"{cache['size'] // 1024} KiB L{cache['level']}" + (" per core" if cache["num_sharing"] == 1 else "")
        for cache in caches
        if cache["type"] != "Instruction"
    ]
    names = {result["context"]["machine"] for result in machine.results.values()}
    heading = ["file", "date (UTC)", "commit", "instruction set", "profile", "runs", "load", "software"]
    return [
        f"Processor: {', '.join(sorted(names))} ({machine.name}). Caches: {', '.join(sizes)}.",
        "",
        "Rows of several runs have the median. A dash under *profile* is a measurement before the tuning profiles, or"
        " of a program that does not name it. *Load* is the load average of the system at the start of the last run."
        " With more load than cores, other processes interrupted the run, and rows of two threads say little.",
        "",
        *table(heading, lines),
    ]


def kernel_cell(row, tokens):
    convert = row.get("ratio_to_convert") if tokens <= IN_CACHE else None
    return number(row["ratio_to_scale"]) + (f" ({number(convert)})" if convert is not None else "")


def kernels(machine):
    text = []
    for name, result in machine.of_sets(""):
        rows = table_rows(result)
        text += [f"### {name}", ""]
        for heads, title in (("40x40", "40 query and 40 key heads"), ("32x8", "32 query and 8 key heads")):
            lines = []
            for kind in ("f32", "f16", "bf16"):
                for layout in ("half_split", "interleaved"):
                    for threads in (1, 2):
                        found = [rows.get(f"rotate/{kind}/{layout}/{heads}/{n}/threads:{threads}") for n in LENGTHS]
                        if any(found):
                            cells = [kernel_cell(row, n) if row else "-" for row, n in zip(found, LENGTHS)]
                            lines.append([f"{kind} {layout}", threads, *cells])
            text += table([title, "threads", *LENGTHS], lines)
        lines = []
        for family, title in (("rotate_bhsd", "heads before tokens"), ("out_of_place", "out of place")):
            for kind in ("f32", "f16", "bf16"):
                for layout in ("half_split", "interleaved"):
                    cells = []
                    for n in (128, 4096):
                        found = [rows.get(f"{family}/{kind}/{layout}/40x40/{n}/threads:{t}") for t in (1, 2)]
                        cells.append(per_thread([number(row["ratio_to_scale"]) if row else "-" for row in found]))
                    lines.append([f"{title}, {kind} {layout}", *cells])
        text += table(["40 + 40 heads, 1 / 2 threads", "128", "4096"], lines)
    return section(
        "Kernels",
        "Time of an in-place float32 scale over the same bytes, divided by the time of the rotation, by tokens per"
        " call. Out of place, the scale writes to other memory. The value in parentheses is the ratio to a scale that"
        " also converts.",
        text,
    )


def profiles(machine):
    sets = machine.of_sets("tuning_")
    if not sets:
        return []
    lines = []
    for profile in sets[0][1]["rows"][0]["ratio_to_bound"]:
        cells = []
        for _, result in sets:
            for in_cache in (True, False):
                found = [
                    row["ratio_to_bound"][profile] for row in result["rows"] if (row["tokens"] <= IN_CACHE) == in_cache
                ]
                cells.append(f"{min(found):.2f} / {statistics.geometric_mean(found):.2f}")
        lines.append([profile if " " in profile or profile == "tuned" else f"`{profile}`", *cells])
    heading = [f"{name}, {where}" for name, _ in sets for where in ("in cache", "memory")]
    return section(
        "Tuning profiles",
        "`make tune`: calls of 16 and 128 tokens (in cache) and 4096 tokens (memory) of 40 + 40 heads in every type and"
        " layout, on one thread and on two, for each [profile](../performance.md#tuning-profiles). The worst ratio to"
        " the bound, and the geometric mean. The bound is the in-place scale, for 16-bit elements in cache the scale"
        " that also converts.",
        table(["worst / mean", *heading], lines),
    )


def cos_sin_tables(machine):
    sets = machine.of_sets("")
    lines = []
    for size in ("4096x64", "32768x64", "131072x64"):
        cells = []
        for _, result in sets:
            rows = table_rows(result)
            found = [rows.get(f"table/{size}/threads:{threads}") for threads in (1, 2)]
            cells.append(
                per_thread([f"{r['real_time']:.0f} µs ({number(r['ratio_to_store'])})" if r else "-" for r in found])
            )
        lines.append([size.replace("x", " x "), *cells])
    if not sets:
        return []
    return section(
        "Tables of cosines and sines",
        "Time on 1 / 2 threads. In parentheses: the ratio to storing the same bytes.",
        table(["positions x pairs", *(name for name, _ in sets)], lines),
    )


def loops(machine):
    text = []
    for key, name in SETS.items():
        path = machine.files.get(f"loops_{key}")
        if path is None:
            continue
        rows = table_rows(machine.results[f"loops_{key}"])
        text += [f"### Loops of engines, {name}", ""]
        if path.with_suffix(".png").is_file():
            image = f"../../benchmarks/results/{path.stem}.png"
            text += [
                f"![Ratio to the in-place scale by tokens, ropewalk and the loops of engines, {name}]({image})",
                "",
            ]
        lines, errors = [], {}
        for kind in ("f32", "f16", "bf16"):
            for layout in ("half_split", "interleaved"):
                for candidate, title in CANDIDATES.items():
                    cells = [
                        per_thread([number(ratio_of(rows, kind, layout, n, t, candidate)) for t in (1, 2)])
                        for n in LENGTHS
                    ]
                    if any(cell != "-" for cell in cells):
                        ours = candidate == OURS
                        lines.append([f"{kind} {layout}: " + (f"**{title}**" if ours else title), *cells])
        text += table(["ratio to the in-place scale, 1 / 2 threads", *LENGTHS], lines)
        for row in rows.values():
            kind = row["name"].split("/")[1]
            for candidate in CANDIDATES:
                error = row.get("error" if candidate == OURS else f"error_{candidate}")
                if error is not None:
                    errors[candidate, kind] = max(error, errors.get((candidate, kind), 0.0))
        lines = [
            [title, *(f"{errors[c, k]:.1e}" if (c, k) in errors else "-" for k in ("f32", "f16", "bf16"))]
            for c, title in CANDIDATES.items()
        ]
        text += table(["largest error, relative to the norm of a pair", "f32", "f16", "bf16"], lines)
    return section(
        "Loops of engines",
        "`bench_peers`: rotations in place of 40 + 40 heads at positions from 4096 on. The loop in AVX2 intrinsics"
        " reads a table that is computed before. ggml and the loop of the C library compute cosines and sines in the"
        " call, as ropewalk does. ggml runs a graph, of 40 layers up to 16 tokens; it has no bf16.",
        text,
    )


def decode(machine):
    sets = machine.of_sets("decode_")
    if not sets:
        return []
    heads = ("40x8", "8x8", "8x1", "1x1")
    lines = []
    for layout in ("interleaved", "half_split"):
        for call, title in CALLS.items():
            cells = []
            for size in heads:
                name = f"decode/f32/{layout}/{size}/{call}"
                cells.append(" / ".join(f"{table_rows(result)[name]['ratio_to_hand']:.2f}" for _, result in sets))
            lines.append([f"{layout}: {title}", *cells])
    lines.append(
        [
            "nanoseconds of the loop, interleaved",
            *(
                " / ".join(
                    f"{table_rows(result)[f'decode/f32/interleaved/{size}/prepared']['hand_ns']:.0f}"
                    for _, result in sets
                )
                for size in heads
            ),
        ]
    )
    return section(
        "One token",
        "`bench_decode`: time of one token of f32 in L1, divided by the time of the loop in AVX2 intrinsics with a"
        f" table, for {' / '.join(name for name, _ in sets)}. Less than 1 is faster than the loop.",
        table(["query heads x key heads", *heads], lines),
    )


def pytorch(machine):
    text = []
    if "peers" in machine.results:
        rows = machine.results["peers"]["rows"]
        lengths = sorted({row["tokens"] for row in rows})
        found = {(r["type"], r["candidate"], r["tokens"], r["threads"]): r["ratio_to_scale"] for r in rows}
        lines = [
            [f"{kind}: {name}", *(per_thread([number(found.get((kind, name, n, t))) for t in (1, 2)]) for n in lengths)]
            for kind, name in dict.fromkeys((row["type"], row["candidate"]) for row in rows)
        ]
        text += [
            "`bench_peers.py`: the yardstick is PyTorch's own in-place scale. The peers' tables are precomputed and not"
            " timed.",
            "",
            *table(["ratio to PyTorch's in-place scale, 1 / 2 threads", *lengths], lines),
        ]
    if "training" in machine.results:
        rows = machine.results["training"]["rows"]
        lengths = sorted({row["tokens"] for row in rows})
        times = {(r["type"], r["candidate"], r["tokens"], r["threads"]): milliseconds(r["milliseconds"]) for r in rows}
        lines = [
            [f"{kind}: {name}", *(per_thread([times.get((kind, name, n, t), "-") for t in (1, 2)]) for n in lengths)]
            for kind, name in dict.fromkeys((row["type"], row["candidate"]) for row in rows)
        ]
        text += [
            "`bench_training.py`: forward and backward, out of place.",
            "",
            *table(["milliseconds, 1 / 2 threads", *(f"{n} tokens" for n in lengths)], lines),
        ]
    return ["## PyTorch", "", *text] if text else []


def llama(machine):
    sets = machine.of_sets("llama_")
    if not sets:
        return []
    found = [{row["name"]: row for row in result["rows"]} for _, result in sets]
    lines = []
    for name, first in found[0].items():
        cells = []
        for rows in found:
            row = rows.get(name)
            cells.append(f"{row['ratio']:.2f} ({row['rate']:.3g} {row['unit']})" if row else "-")
        lines.append([f"`{name}`", first["ceiling"], *cells])
    return section(
        "The Llama stack",
        "`bench_llama`, two threads: the rate divided by that of the bound in the same run.",
        table(["row", "bound", *(name for name, _ in sets)], lines),
    )


def spread(row):
    return (max(row["runs"]) - min(row["runs"])) / statistics.median(row["runs"])


def tokens_of(name):
    """Tokens per call of a row, or None for a table of cosines and sines."""
    match = re.search(r"x[0-9]+/([0-9]+)/threads", name)
    return int(match[1]) if match else None


def differences(machine):
    """Spread of repeated runs, and of equal rows of two programs."""
    heading, lines, pairs = ["measured", "data", "rows", "median", "95 %", "largest"], [], []
    for what, result in machine.results.items():
        rows = [row for row in result.get("benchmarks", []) if len(row.get("runs", ())) > 1]
        pairs.append(
            (f"`{machine.key}_{what}`, {result['context'].get('runs', 1)} runs", [(row, spread(row)) for row in rows])
        )
    for key, name in SETS.items():
        if key in machine.results and f"loops_{key}" in machine.results:
            ours, again = table_rows(machine.results[key]), table_rows(machine.results[f"loops_{key}"])
            both = [(row, ours.get(row["name"].replace("peers/", "rotate/", 1))) for row in again.values()]
            changes = [(a, abs(a["ratio_to_scale"] - b["ratio_to_scale"]) / b["ratio_to_scale"]) for a, b in both if b]
            pairs.append((f"the rows of both `bench_rotate` and `bench_peers`, {name}", changes))
    for title, changes in pairs:
        for where, chosen in (
            ("in cache", [(r, x) for r, x in changes if (tokens_of(r["name"]) or 1) <= IN_CACHE]),
            ("memory", [(r, x) for r, x in changes if (tokens_of(r["name"]) or 1) > IN_CACHE]),
        ):
            if chosen:
                values = sorted(x for _, x in chosen)
                worst = max(chosen, key=lambda pair: pair[1])
                lines.append(
                    [
                        title,
                        where,
                        len(values),
                        f"{statistics.median(values):.0%}",
                        f"{values[int(0.95 * (len(values) - 1))]:.0%}",
                        f"{values[-1]:.0%} (`{worst[0]['name']}`)",
                    ]
                )
    return section(
        "Differences between runs",
        "The spread of a row is its largest ratio minus its smallest one, divided by the median. For two programs it is"
        " the difference of their ratios, divided by that of `bench_rotate`. Other users share the memory of this"
        " machine, and calls of two threads in cache wait for a busy core.",
        table(heading, lines),
    )


def page(machine):
    text = [
        f"# Results: {machine.name}",
        "",
        "<!-- generated by `make bench-plot` from benchmarks/results/; a test compares it with them -->",
        "",
        "[Performance](../performance.md) explains the method. 1.00 is the speed of the yardstick; higher is faster.",
        "",
        *contexts(machine),
    ]
    for part in (kernels, profiles, loops, decode, cos_sin_tables, pytorch, llama, differences):
        text += part(machine)
    return "\n".join(text).rstrip() + "\n"


def machines():
    """The machines with recorded results of the CPU kernels."""
    keys = sorted({path.name.split("_")[0] for name in SETS for path in RESULTS.glob(f"*_{name}.json")})
    skipped = ("compile_time", "engines")  # other pages have them
    files = {key: [path for path in RESULTS.glob(f"{key}_*.json") if not path.stem.endswith(skipped)] for key in keys}
    return [Machine(key, paths) for key, paths in files.items()]


def main():
    PAGES.mkdir(exist_ok=True)
    for machine in machines():
        path, text = PAGES / f"{machine.key}.md", page(machine)
        changed = not path.is_file() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'written' if changed else 'is current'}")


if __name__ == "__main__":
    main()
