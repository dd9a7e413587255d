// Whole steps of forward(), executed by the host with every access recorded.
#include <algorithm>
#include <deque>
#include <numeric>

#include <ropewalk/llama/synthetic.hpp>

#include "cache_contents.hpp"
#include "host_backend.hpp"
#include "llama/reference_model.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace llama = ropewalk::llama;
namespace gpu = ropewalk::llama::gpu;

namespace {

llama::model_config shape(rw::layout_kind layout) {
    return {.hidden_size = 48,
            .layers = 2,
            .heads = 4,
            .kv_heads = 2,
            .head_dim = 16,
            .intermediate_size = 40,
            .vocabulary = 50,
            .layout = layout};
}

/// Synthetic weights with norms that differ from 1.
llama::model_weights weights_of(const llama::model_config& config, rw::element_type type, test::random& numbers) {
    llama::model_weights weights = llama::synthetic_weights(config, type, static_cast<std::uint64_t>(numbers.bits()));
    llama::for_each_weight(config, weights, [&](const llama::matrix& w, const std::string& name, auto, auto) {
        if (!llama::is_norm(name)) return;
        auto* const norm = static_cast<float*>(const_cast<void*>(w.data));
        for (std::int64_t i = 0; i < w.columns; ++i) norm[i] = static_cast<float>(1 + numbers.normal() / 4);
    });
    return weights;
}

/// Sequences that grow call by call, over pages in no order.
class conversation {
public:
    static constexpr std::int64_t sequences = 3, page_size = 4, pages = 9;

    conversation(rw::element_type type, rw::layout_kind layout, test::random& numbers, double bound)
        : numbers_(numbers), bound_(bound), config_(shape(layout)), weights_(weights_of(config_, type, numbers)) {
        const test::cache_contents::extents size{sequences * pages, page_size, config_.kv_heads, config_.head_dim};
        const auto cached_as = static_cast<rw::cache_type>(type);
        for (std::int64_t i = 0; i < 2 * config_.layers; ++i)
            contents_.emplace_back(cached_as, size, test::cache_axes::nhd, numbers);
        for (std::size_t i = 0; i < contents_.size(); i += 2)
            caches_.push_back({contents_[i].tensor(), contents_[i + 1].tensor()});
        // 5 and 27 share no divisor: every page comes once.
        for (std::int32_t i = 0; i < sequences * pages; ++i) table_.push_back(i * 5 % (sequences * pages));
        for (std::int64_t i = 0; i < sequences; ++i) references_.emplace_back(config_, weights_);
    }

    /// Adds tokens to every sequence, with attention by blocks or by kernels that depend on device memory alone.
    void step(const std::vector<std::int64_t>& counts, bool by_blocks) {
        std::vector<std::int32_t> starts{0}, ids;
        std::vector<llama::sequence_rows> known;
        for (std::size_t s = 0; s < counts.size(); ++s) {
            known.push_back({starts.back(), counts[s], past_[s]});
            starts.push_back(starts.back() + static_cast<std::int32_t>(counts[s]));
            for (std::int64_t t = 0; t < counts[s]; ++t)
                ids.push_back(static_cast<std::int32_t>(numbers_.integer(0, config_.vocabulary - 1)));
        }
        const bool single = std::all_of(counts.begin(), counts.end(), [](auto n) { return n == 1; });
        gpu::forward_args args;
        args.batch = {single ? nullptr : starts.data(), past_, sequences,
                      *std::max_element(counts.begin(), counts.end()), gpu::pages_of(table_, sequences)};
        args.tokens = std::ssize(ids), args.ids = ids.data(), args.caches = caches_;
        if (by_blocks) args.known = known;
        args.splits = by_blocks ? 1 : 3, args.blocks = {4, 8};
        execute(args);
        for (std::size_t s = 0; s < counts.size(); ++s) compare(s, known[s], ids);
    }

private:
    void execute(gpu::forward_args& args) {
        const element_type type = weights_.layers[0].q.type;
        const std::int64_t bytes = gpu::forward_buffers(nullptr, type, config_, args).bytes;
        std::vector<float> space(static_cast<std::size_t>(bytes) / sizeof(float) + 64, std::nanf(""));
        hidden_ = test::array(rw::element_type::f32, {1, args.tokens, 1, config_.hidden_size});
        logits_ = test::array(rw::element_type::f32, {1, sequences, 1, config_.vocabulary});
        test::memory_log log;
        llama::for_each_weight(config_, weights_, [&](const llama::matrix& w, const std::string&, auto, auto) {
            log.watch(w.data, static_cast<std::size_t>(w.bytes()));
        });
        log.watch(hidden_), log.watch(logits_), log.watch(test::aligned(space), static_cast<std::size_t>(bytes));
        for (test::cache_contents& cache : contents_) cache.watch(log);
        const test::host_backend backend(log);
        const rw::Encoding encoding = rw::make_encoding(config_.geometry());
        const gpu::encoded_rows all{&encoding, 0, args.tokens};
        args.hidden = test::matrix_of(hidden_), args.logits = test::matrix_of(logits_), args.encodings = {&all, 1};
        gpu::forward(backend, config_, weights_, args, {test::aligned(space), bytes});
        backend.run(gpu::make_advance(args.batch, args.tokens, caches_[0].k, past_));
        CHECK(log.problem() == "");
        CHECK(hidden_.guards_intact());
        CHECK(logits_.guards_intact());
    }

    void compare(std::size_t sequence, const llama::sequence_rows& rows, const std::vector<std::int32_t>& ids) {
        CHECK(past_[sequence] == rows.past + rows.tokens);
        if (rows.tokens == 0) return;
        const auto first = ids.begin() + rows.first;
        const test::numbers states = references_[sequence].forward({first, first + rows.tokens}, policy_);
        const test::numbers logits = references_[sequence].logits(states);
        INFO("sequence " << sequence << " of " << past_[sequence] << " tokens");
        CHECK(worst(hidden_.values(), rows.first * config_.hidden_size, states) <= bound_);
        CHECK(worst(logits_.values(), static_cast<std::int64_t>(sequence) * config_.vocabulary, logits) <= bound_);
    }
    static double worst(const std::vector<double>& got, std::int64_t first, const test::numbers& exact) {
        double result = 0;
        for (std::size_t i = 0; i < exact.size(); ++i)
            result = std::max(result, std::fabs(got[static_cast<std::size_t>(first) + i] - exact[i]));
        return result;
    }

    using element_type = rw::element_type;
    test::random& numbers_;
    double bound_;
    llama::model_config config_;
    llama::model_weights weights_;
    test::reference_policy policy_ = test::linear_policy(config_, 1);
    std::deque<test::reference_model> references_;
    std::vector<test::cache_contents> contents_;
    std::vector<gpu::kv_cache> caches_;
    std::vector<std::int32_t> table_;
    std::int32_t past_[sequences] = {};
    test::array hidden_, logits_;
};

void converse(rw::element_type type, rw::layout_kind layout, test::random& numbers, double bound) {
    for (const bool by_blocks : {true, false}) {
        conversation talk(type, layout, numbers, bound);
        talk.step({9, 1, 14}, by_blocks);
        talk.step({1, 1, 1}, false);
        talk.step({2, 0, 5}, !by_blocks);
        talk.step({1, 1, 1}, false);
        talk.step({1, 12, 3}, by_blocks);
    }
}

}  // namespace

TEST_CASE("steps of prompts, chunks and single tokens agree with float64", "[llama_gpu][forward]") {
    SEEDED(numbers);
    converse(rw::element_type::f32, rw::layout_kind::half_split, numbers, 2e-4);
    converse(rw::element_type::f32, rw::layout_kind::interleaved, numbers, 2e-4);
    converse(rw::element_type::f16, rw::layout_kind::half_split, numbers, 0.03);
    converse(rw::element_type::bf16, rw::layout_kind::interleaved, numbers, 0.2);
}

TEST_CASE("a step refuses parts that do not fit before anything runs", "[llama_gpu][forward][errors]") {
    const llama::model_config config = shape(rw::layout_kind::half_split);
    const llama::model_weights weights = llama::synthetic_weights(config, rw::element_type::f32, 1);
    std::vector<float> memory(4096);
    const auto cache = rw::gpu::nhd_cache(memory.data(), 2, 16, 2, 16);
    const std::vector<gpu::kv_cache> caches(2, {cache, cache});
    test::array hidden(rw::element_type::f32, {1, 2, 1, 48});
    test::memory_log log;
    const test::host_backend backend(log);
    const rw::Encoding encoding = rw::make_encoding(config.geometry());
    const gpu::encoded_rows all{&encoding, 0, 2};
    gpu::forward_args args;
    args.batch.count = args.tokens = 2, args.caches = caches, args.encodings = {&all, 1};
    args.hidden = test::matrix_of(hidden);
    const auto call = [&](const gpu::forward_args& with, std::int64_t bytes = 1 << 20) {
        gpu::forward(backend, config, weights, with, {memory.data(), bytes});
        return 0;
    };
    const auto with = [&](auto member, const auto& value) {
        gpu::forward_args changed = args;
        changed.*member = value;
        return changed;
    };
    CHECK_REFUSED(call(with(&gpu::forward_args::caches, args.caches.first(1))), "2 layers", "got 1");
    CHECK_REFUSED(call(with(&gpu::forward_args::hidden, gpu::rows_of(args.hidden, 0, 1))), "[1, 48]", "f32 [2, 48]");
    CHECK_REFUSED(call(with(&gpu::forward_args::logits, args.hidden)), "logits", "[2, 50]");
    CHECK_REFUSED(call(with(&gpu::forward_args::encodings, args.encodings.first(0))), "0 of 2 tokens");
    CHECK_REFUSED(call(args, 100), "workspace", "got 100");
    CHECK(backend.launches == 0);
}
