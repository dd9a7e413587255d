// Prefill and decode of Llama-2-13B at long contexts with any rotary encoding, on the CPU or a GPU: the time of each
// part, and text or losses of a checkpoint.
//
//     build/examples/giraffe_13b --layers 1 --context 4096 --scaling linear:8
//     build/examples/giraffe_13b --weights Giraffe-13b-32k --prompt-ids 1,15043 --generate 64
//     build/examples/giraffe_13b --weights Giraffe-13b-32k --perplexity ids.json
//
// Without --weights, the weights are generated from a seed. Without --generate, the layers have attention only.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <dispatch/llama/llama.hpp>
#include <nlohmann/json.hpp>
#include <ropewalk/dispatch.hpp>
#include <ropewalk/llama/checkpoint.hpp>
#include <ropewalk/llama/model.hpp>

#include "giraffe/bus_error.hpp"
#include "giraffe/cuda.hpp"
#include "giraffe/losses.hpp"
#include "output.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;
using giraffe::measurement, giraffe::options, giraffe::outcome, giraffe::run_params;

std::int64_t peak_memory_bytes() {
    // On Linux, getrusage() includes the process that started this program.
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::int64_t kibibytes = 0;
        if (word == "VmHWM:" && status >> kibibytes) return kibibytes * 1024;
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

llama::model_description describe(const options& o) {
    llama::model_description model;
    const bool named = o.config == "7b" || o.config == "13b" || o.config == "70b";
    if (!named || !o.weights.empty()) {
        model = llama::read_model_config(named ? o.weights : o.config, o.scaling);
    } else {
        model.config = o.config == "7b"    ? llama::llama2_7b()
                       : o.config == "13b" ? llama::llama2_13b()
                                           : llama::llama2_70b();
        model.encoding = rw::make_encoding(model.config.geometry(), o.scaling.empty() ? "default" : o.scaling);
    }
    if (o.layers > 0) {
        RW_EXPECTS(o.layers <= model.config.layers, "--layers {}: the model has {}", o.layers, model.config.layers);
        model.config.layers = o.layers;
    }
    if (!o.whole && o.weights.empty() && o.generate == 0 && o.prompt.empty())
        model.config.intermediate_size = model.config.vocabulary = 0;
    return model;
}

void print_row(const char* name, const measurement& m) {
    const llama::stack_seconds& p = m.parts;
    const double whole = m.seconds > 0 ? m.seconds : 1;
    const auto percent = [whole](double seconds) { return 100 * seconds / whole; };
    std::printf("%-8s %8lld tokens %9.3f s %10.1f tokens/s   %5.1f %%  %6.2f %%  %5.1f %%  %5.1f %%  %5.1f %%\n", name,
                static_cast<long long>(m.tokens), m.seconds, static_cast<double>(m.tokens) / whole,
                percent(p.projections), percent(p.rope), percent(p.attention), percent(p.cache + p.norm),
                percent(p.mlp));
}

void print_report(const outcome& result, std::int64_t weight_bytes) {
    std::printf("%-53s %s\n", "", "projections   RoPE  attention  cache, norm   MLP");
    print_row("prefill", result.prefill);
    if (result.decode.tokens > 0) print_row("decode", result.decode);
    constexpr double gib = 1024.0 * 1024 * 1024;
    std::printf("memory: weights %.2f GiB, cache %.1f KiB per token (%.2f GiB held), peak %.2f GiB\n",
                static_cast<double>(weight_bytes) / gib, static_cast<double>(result.cache_bytes_per_token) / 1024,
                static_cast<double>(result.cache_bytes_held) / gib,
                static_cast<double>(result.peak_memory_bytes) / gib);
    if (!result.losses.empty()) giraffe::print_losses(result.losses);
    if (result.tokens.empty()) return;
    for (std::size_t i = 0; i < result.tokens.size(); ++i) std::printf("%s%d", i == 0 ? "" : ",", result.tokens[i]);
    std::printf("\n");
}

nlohmann::json parts_of(const measurement& m) {
    return {{"tokens", m.tokens},
            {"seconds", m.seconds},
            {"projections", m.parts.projections},
            {"rope", m.parts.rope},
            {"attention", m.parts.attention},
            {"cache", m.parts.cache},
            {"norm", m.parts.norm},
            {"mlp", m.parts.mlp}};
}

/// Reads the token ids of a text: a JSON list, or an object with a list "tokens".
std::vector<std::int32_t> read_ids(const std::string& path) {
    const nlohmann::json file = rw::parse_config_file(path);
    const bool wrapped = file.is_object() && file.contains("tokens");
    const nlohmann::json& list = wrapped ? file["tokens"] : file;
    RW_EXPECTS(list.is_array(), "{} must be a list of token ids or an object with a list 'tokens'", path);
    RW_EXPECTS(list.size() >= 2, "{} has {} tokens, a loss needs 2 or more", path, list.size());
    std::vector<std::int32_t> ids;
    for (const nlohmann::json& id : list) {
        constexpr std::int64_t largest = std::numeric_limits<std::int32_t>::max();
        const bool whole = id.is_number_integer() && !(id.is_number_unsigned() && id.get<std::uint64_t>() > largest);
        RW_EXPECTS(whole && id.get<std::int64_t>() >= 0, "{}: token {} must be a whole number from 0 to {}, got {}",
                   path, ids.size(), largest, rw::detail::shown_name(id.dump()));
        ids.push_back(id.get<std::int32_t>());
    }
    return ids;
}

void add_losses(nlohmann::json& report, std::span<const double> losses) {
    report["loss"] = giraffe::mean(losses), report["perplexity"] = std::exp(giraffe::mean(losses));
    report["losses"] = losses;
    for (const giraffe::loss_bucket& b : giraffe::buckets_of(losses))
        report["buckets"].push_back({{"start", b.start}, {"stop", b.stop}, {"loss", b.loss}});
}

/// Writes the seconds of each part: of prefill and decode together, then of each.
void write_json(const run_params& params, const std::string& device, const outcome& result) {
    const llama::stack_seconds &a = result.prefill.parts, &b = result.decode.parts;
    nlohmann::json report = {{"scaling", params.encoding.expression},
                             {"layers", params.config.layers},
                             {"device", params.options.device},
                             {params.options.device == "cpu" ? "instruction_set" : "device_name", device},
                             {"projections", a.projections + b.projections},
                             {"rope", a.rope + b.rope},
                             {"attention", a.attention + b.attention},
                             {"mlp", a.mlp + b.mlp},
                             {"prefill", result.prefill.seconds},
                             {"decode", result.decode.seconds},
                             {"peak_memory_bytes", result.peak_memory_bytes},
                             {"cache_bytes_per_token", result.cache_bytes_per_token},
                             {"prefill_parts", parts_of(result.prefill)},
                             {"decode_parts", parts_of(result.decode)},
                             {"tokens", result.tokens}};
    if (!result.losses.empty()) add_losses(report, result.losses);
    std::ofstream file(params.options.json);
    file << report.dump(2) << '\n';
    RW_EXPECTS(file.flush(), "cannot write {}", params.options.json);
}

/// Checks options before gigabytes of weights are read.
void check(const options& o) {
    const auto prompt = static_cast<std::int64_t>(o.prompt.size()), more = o.generate > 0 ? o.generate : o.decode;
    RW_EXPECTS(o.perplexity.empty() || o.context == 0 || prompt <= o.context, "{} has {} tokens, --context allows {}",
               o.perplexity, prompt, o.context);
    RW_EXPECTS(prompt == 0 || o.context == 0 || more <= o.context - prompt,
               "{} tokens of --prompt-ids and {} of --{} make {}, --context allows {}", prompt, more,
               o.generate > 0 ? "generate" : "decode", prompt + more, o.context);
    if (!o.json.empty()) output::check_file(o.json);
}

outcome run_on_cpu(const run_params& params, llama::model_weights weights) {
    llama::kv_cache cache(params.config, params.cache);
    const llama::cpu::kernel_table& kernels = rw::dispatch::llama_kernels();
    const int threads = params.options.threads;
    outcome result = giraffe::run_model(
        params, cache,
        [&] { return llama::stack(params.config, std::move(weights), params.encoding, kernels, threads); },
        [&] { return llama::model(params.config, std::move(weights), params.encoding, kernels, threads); });
    result.peak_memory_bytes = peak_memory_bytes();
    return result;
}

/// The parameters of a run. Its cache has the type of the options.
run_params params_of(const options& o, const llama::model_description& model) {
    const auto given = static_cast<std::int64_t>(o.prompt.size());
    const std::int64_t context = given > 0 ? given : o.context > 0 ? o.context : 4096;
    const bool limited = given > 0 && o.context > 0;
    const std::int64_t limit = limited ? o.context : context + std::max(o.generate, o.decode);
    return {.options = o,
            .config = model.config,
            .encoding = model.encoding,
            .cache = {.type = o.cache.value_or(rw::cache_type::f16), .page_tokens = 256, .most_tokens = limit},
            .context = context};
}

void run_model(run_params params, const std::string& device) {
    const options& o = params.options;
    const llama::model_config& config = params.config;
    auto weights = o.weights.empty() ? llama::synthetic_weights(config, o.dtype.value_or(rw::element_type::bf16),
                                                                static_cast<std::uint64_t>(o.seed))
                                     : llama::read_weights(o.weights, config, o.dtype);
    const rw::element_type stored = weights.layers.front().q.type;
    const std::int64_t weight_bytes = weights.bytes();
    // f32 keeps keys that are re-rotated repeatedly from being rounded each time.
    const bool rerotates = llama::rope_schedule(params.encoding).follows_length();
    if (!o.cache && (rerotates || stored == rw::element_type::f32)) params.cache.type = rw::cache_type::f32;
    std::printf("%s: %lld layers of %lld, %lld heads of %lld (%lld of keys), %s weights, %s cache, %s, %s\n",
                o.weights.empty() ? "generated weights" : o.weights.c_str(), static_cast<long long>(config.layers),
                static_cast<long long>(config.hidden_size), static_cast<long long>(config.heads),
                static_cast<long long>(config.head_dim), static_cast<long long>(config.kv_heads),
                std::string(rw::to_string(stored)).c_str(), std::string(rw::to_string(params.cache.type)).c_str(),
                params.encoding.expression.c_str(), device.c_str());
    const bool cuda = o.device == "cuda";
    const outcome result =
        cuda ? giraffe::run_on_cuda(params, std::move(weights)) : run_on_cpu(params, std::move(weights));
    print_report(result, weight_bytes);
    if (!o.json.empty()) write_json(params, device, result);
}

void run(options o) {
    if (!o.perplexity.empty()) o.prompt = read_ids(o.perplexity);
    check(o);
    const std::string device =
        o.device == "cuda" ? giraffe::cuda_device_name() : std::string(rw::dispatch::instruction_set());
    const run_params params = params_of(o, describe(o));
    try {
        run_model(params, device);
    } catch (const std::bad_alloc&) {
        rw::detail::fail("no memory for {} layers of {} and a sequence of up to {} tokens, {} at once",
                         params.config.layers, params.config.hidden_size, params.cache.most_tokens,
                         std::min(o.chunk, params.context));
    }
}

}  // namespace

int main(int argc, char** argv) {
    giraffe::report_bus_errors();
    try {
        const auto options = giraffe::read_options(argc, argv);
        if (options)
            run(*options);
        else
            std::fputs(giraffe::usage, stdout);
        output::check_printed();
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "giraffe_13b: %s\n", problem.what());
        return 1;
    }
}
