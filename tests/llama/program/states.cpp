// Hidden states and logits of a Hugging Face Llama. test_llama_stack.py compares them with Transformers.
//
//     llama_states --model DIR --ids 1,5,9 --out FILE [--scaling EXPRESSION] [--dtype f32|f16|bf16]
//         [--cache f32|f16|bf16|i8] [--lengths 2,1] [--chunks 1,2] [--page N] [--threads N]
//
// --lengths divides the ids into consecutive sequences. Forward pass i adds up to chunks[i] tokens to every sequence,
// and a last pass the rest. FILE holds native float32: hidden states [ids, hidden_size] after the last layer, the same
// normalised, and logits [ids, vocabulary].

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/checkpoint.hpp>
#include <ropewalk/llama/model.hpp>

#include "giraffe/options.hpp"

namespace {

namespace rw = ropewalk;
namespace llama = ropewalk::llama;

using options = std::map<std::string, std::string>;

options read_options(int argc, char** argv) {
    options found;
    for (int i = 1; i < argc; i += 2) {
        const std::string flag = argv[i];
        RW_EXPECTS(i + 1 < argc, "{} needs a value", flag);
        found[flag] = argv[i + 1];
    }
    for (const char* const needed : {"--model", "--ids", "--out"})
        RW_EXPECTS(found.contains(needed), "{} is missing", needed);
    return found;
}

std::string text(const options& o, const std::string& flag, const std::string& otherwise = {}) {
    const auto found = o.find(flag);
    return found == o.end() ? otherwise : found->second;
}

template <class T>
std::vector<T> numbers(const options& o, const std::string& flag, const std::string& otherwise = {}) {
    const std::string values = text(o, flag, otherwise);
    return values.empty() ? std::vector<T>{} : giraffe::numbers<T>(flag, values);
}

/// One sequence of the batch and its progress.
struct sequence {
    int number = 0;
    std::size_t first = 0, tokens = 0, done = 0;  ///< ids
};

class runner {
public:
    runner(llama::model& model, llama::kv_cache& cache, const std::vector<std::int32_t>& ids,
           const std::vector<std::size_t>& lengths)
        : model_(model),
          cache_(cache),
          ids_(ids),
          width_(static_cast<std::size_t>(model.config().hidden_size)),
          hidden_(ids.size() * width_) {
        std::size_t first = 0;
        for (const std::size_t tokens : lengths) {
            sequences_.push_back({cache.add_sequence(), first, tokens, 0});
            first += tokens;
        }
        RW_EXPECTS(first == ids.size(), "--lengths sum to {}, there are {} ids", first, ids.size());
    }

    /// Adds up to `chunk` tokens to every sequence, in one batch.
    void step(std::size_t chunk) {
        std::vector<llama::segment> batch;
        std::vector<std::int32_t> tokens;
        for (const sequence& one : sequences_) {
            const std::size_t count = std::min(chunk, one.tokens - one.done);
            const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(one.first + one.done);
            if (count == 0) continue;
            batch.push_back({one.number, static_cast<std::int64_t>(count), static_cast<std::int64_t>(one.tokens)});
            tokens.insert(tokens.end(), begin, begin + static_cast<std::ptrdiff_t>(count));
        }
        std::vector<float> hidden(tokens.size() * width_);
        model_.embed(tokens, hidden);
        model_.layers().forward(batch, hidden, cache_);
        auto from = hidden.begin();
        for (sequence& one : sequences_) {
            const std::size_t count = std::min(chunk, one.tokens - one.done);
            const auto size = static_cast<std::ptrdiff_t>(count * width_);
            std::copy(from, from + size,
                      hidden_.begin() + static_cast<std::ptrdiff_t>((one.first + one.done) * width_));
            from += size;
            one.done += count;
        }
    }

    [[nodiscard]] const std::vector<float>& hidden() const { return hidden_; }

private:
    llama::model& model_;
    llama::kv_cache& cache_;
    const std::vector<std::int32_t>& ids_;
    std::size_t width_;
    std::vector<sequence> sequences_;
    std::vector<float> hidden_;
};

void write(std::ofstream& file, const std::vector<float>& values) {
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
}

void run(const options& o) {
    const std::string folder = text(o, "--model");
    const auto described = llama::read_model_config(folder, text(o, "--scaling"));
    const auto& config = described.config;
    const auto weights = llama::read_weights(folder, config, giraffe::element_type_of(text(o, "--dtype", "f32")));
    const auto threads = numbers<int>(o, "--threads", "1").front();
    llama::model model(config, weights, described.encoding, rw::dispatch::llama_kernels(), threads);
    const auto page = numbers<std::int64_t>(o, "--page", "16").front();
    llama::kv_cache cache(config, {giraffe::cache_type_of(text(o, "--cache", "f32")), page, 0});
    const auto ids = numbers<std::int32_t>(o, "--ids");
    runner all(model, cache, ids, numbers<std::size_t>(o, "--lengths", std::to_string(ids.size())));
    for (const std::size_t chunk : numbers<std::size_t>(o, "--chunks")) all.step(chunk);
    all.step(ids.size());

    std::vector<float> normed(all.hidden().size()), logits(ids.size() * static_cast<std::size_t>(config.vocabulary));
    model.final_norm(all.hidden(), normed);
    model.logits(all.hidden(), logits);
    std::ofstream file(text(o, "--out"), std::ios::binary);
    write(file, all.hidden());
    write(file, normed);
    write(file, logits);
    RW_EXPECTS(file.flush(), "cannot write {}", text(o, "--out"));
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(read_options(argc, argv));
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "llama_states: %s\n", problem.what());
        return 1;
    }
}
