#include <ropewalk/llama/gpu/llama.hpp>

#include <map>

#include "host_machine.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace {

constexpr llama::llama_shape shape{48, 4, 2, 16, 40, 1e-5};
constexpr std::int64_t vocabulary = 50, layers = 2;

/// Weights as arrays [1, rows, 1, columns], and the same as float64.
struct matrix {
    test::array memory;
    std::vector<double> values;

    matrix(rw::element_type type, std::int64_t rows, std::int64_t columns, test::random& numbers)
        : memory(type, {1, rows, 1, columns}, numbers) {
        values = memory.values();
        // Sums of this many must stay near 1.
        for (double& one : values) one /= rows == 1 ? 4 : std::sqrt(static_cast<double>(columns));
        if (rows == 1)
            for (double& one : values) one += 1;
        memory.set(values);
        values = memory.values();
    }
    llama::matrix_view view() { return test::matrix_of(memory); }
    [[nodiscard]] std::vector<double> times(const std::vector<double>& x) const {
        std::vector<double> y(values.size() / x.size());
        for (std::size_t i = 0; i < values.size(); ++i) y[i / x.size()] += values[i] * x[i % x.size()];
        return y;
    }
};

struct layer {
    matrix attention_norm, q, k, v, o, mlp_norm, gate, up, down;

    layer(rw::element_type type, test::random& numbers)
        : attention_norm(rw::element_type::f32, 1, shape.hidden_size, numbers),
          q(type, shape.q_width(), shape.hidden_size, numbers),
          k(type, shape.kv_width(), shape.hidden_size, numbers),
          v(type, shape.kv_width(), shape.hidden_size, numbers),
          o(type, shape.hidden_size, shape.q_width(), numbers),
          mlp_norm(type, 1, shape.hidden_size, numbers),
          gate(type, shape.intermediate_size, shape.hidden_size, numbers),
          up(type, shape.intermediate_size, shape.hidden_size, numbers),
          down(type, shape.hidden_size, shape.intermediate_size, numbers) {}
};

struct model {
    std::vector<layer> parts;
    matrix embedding, final_norm, head;
    std::vector<llama::layer_weights> views;
    llama::model_weights weights;

    model(rw::element_type type, test::random& numbers)
        : embedding(type, vocabulary, shape.hidden_size, numbers),
          final_norm(rw::element_type::f16, 1, shape.hidden_size, numbers),
          head(type, vocabulary, shape.hidden_size, numbers) {
        for (std::int64_t i = 0; i < layers; ++i) parts.emplace_back(type, numbers);
        for (layer& one : parts)
            views.push_back({one.attention_norm.view(), one.q.view(), one.k.view(), one.v.view(), one.o.view(),
                             one.mlp_norm.view(), one.gate.view(), one.up.view(), one.down.view()});
        weights = {views, embedding.view(), final_norm.view(), head.view()};
    }
    void watch(test::memory_log& log) {
        for (layer& one : parts)
            for (matrix* each :
                 {&one.attention_norm, &one.q, &one.k, &one.v, &one.o, &one.mlp_norm, &one.gate, &one.up, &one.down})
                log.watch(each->memory);
        for (matrix* each : {&embedding, &final_norm, &head}) log.watch(each->memory);
    }
};

std::vector<double> normed(const std::vector<double>& x, const matrix& by) {
    double squares = 0;
    for (const double one : x) squares += one * one;
    std::vector<double> y = by.values;
    for (std::size_t i = 0; i < y.size(); ++i)
        y[i] *= x[i] / std::sqrt(squares / static_cast<double>(x.size()) + shape.rms_norm_eps);
    return y;
}

/// Turns every head of a row, by the definition.
void turn(std::vector<double>& row, std::int64_t position, rw::layout_kind layout) {
    const std::size_t dim = static_cast<std::size_t>(shape.head_dim), half = dim / 2;
    for (std::size_t head = 0; head < row.size(); head += dim) {
        for (std::size_t j = 0; j < half; ++j) {
            const double angle = static_cast<double>(position) *
                                 std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
            double& a = row[head + (layout == rw::layout_kind::half_split ? j : 2 * j)];
            double& b = row[head + (layout == rw::layout_kind::half_split ? j + half : 2 * j + 1)];
            const double x = a, y = b;
            a = x * std::cos(angle) - y * std::sin(angle), b = x * std::sin(angle) + y * std::cos(angle);
        }
    }
}

using rows = std::vector<std::vector<double>>;

/// What one query head makes of keys and values of the tokens before it.
void attend(const std::vector<double>& q, const rows& k, const rows& v, std::size_t last, std::size_t head,
            std::vector<double>& out) {
    const auto dim = static_cast<std::size_t>(shape.head_dim);
    const std::size_t shared = head / static_cast<std::size_t>(shape.heads / shape.kv_heads);
    double total = 0;
    for (std::size_t key = 0; key <= last; ++key) {
        double score = 0;
        for (std::size_t i = 0; i < dim; ++i) score += q[head * dim + i] * k[key][shared * dim + i];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
        total += weight;
        for (std::size_t i = 0; i < dim; ++i) out[head * dim + i] += weight * v[key][shared * dim + i];
    }
    for (std::size_t i = 0; i < dim; ++i) out[head * dim + i] /= total;
}

/// The hidden states of a whole sequence, from scratch, in float64.
rows exact_states(const model& m, const std::vector<std::int32_t>& tokens, rw::layout_kind layout) {
    rows x;
    for (const std::int32_t token : tokens) {
        const auto at = m.embedding.values.begin() + token * shape.hidden_size;
        x.emplace_back(at, at + shape.hidden_size);
    }
    for (const layer& part : m.parts) {
        rows q, k, v;
        for (std::size_t t = 0; t < x.size(); ++t) {
            const auto h = normed(x[t], part.attention_norm);
            q.push_back(part.q.times(h)), k.push_back(part.k.times(h)), v.push_back(part.v.times(h));
            turn(q.back(), static_cast<std::int64_t>(t), layout), turn(k.back(), static_cast<std::int64_t>(t), layout);
        }
        for (std::size_t t = 0; t < x.size(); ++t) {
            std::vector<double> attended(static_cast<std::size_t>(shape.q_width()));
            for (std::size_t head = 0; head < static_cast<std::size_t>(shape.heads); ++head)
                attend(q[t], k, v, t, head, attended);
            const auto o = part.o.times(attended);
            for (std::size_t i = 0; i < o.size(); ++i) x[t][i] += o[i];
            const auto h = normed(x[t], part.mlp_norm);
            auto gate = part.gate.times(h);
            const auto up = part.up.times(h);
            for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
            const auto down = part.down.times(gate);
            for (std::size_t i = 0; i < down.size(); ++i) x[t][i] += down[i];
        }
    }
    return x;
}

/// Sequences that grow call by call, in pages of no order.
template <class T, class L>
class conversation {
public:
    static constexpr std::int64_t sequences = 3, page_size = 4, pages = 9;

    conversation(test::random& numbers, double room)
        : numbers_(numbers),
          room_(room),
          model_(rw::type_of<T>, numbers),
          keys_(static_cast<std::size_t>(layers * 2 * sequences * pages * page_size * shape.kv_width())) {
        T* data = keys_.data();
        const std::int64_t size = sequences * pages * page_size * shape.kv_width();
        for (std::int64_t i = 0; i < layers; ++i, data += 2 * size)
            caches_.push_back(
                {gpu::nhd_cache(data, sequences * pages, page_size, shape.kv_heads, shape.head_dim),
                 gpu::nhd_cache(data + size, sequences * pages, page_size, shape.kv_heads, shape.head_dim)});
        for (std::int32_t i = 0; i < sequences * pages; ++i) table_.push_back(i * 5 % (sequences * pages));
        // 5 and 27 share no divisor: every page comes once.
    }

    /// Adds tokens to every sequence; by blocks, or by kernels that know nothing but device memory.
    void step(std::vector<std::int64_t> counts, bool by_blocks) {
        std::vector<std::int32_t> starts{0}, ids;
        std::vector<llama::known_sequence> known;
        for (std::size_t s = 0; s < counts.size(); ++s) {
            known.push_back({static_cast<std::int64_t>(s), starts.back(), counts[s], past_[s]});
            starts.push_back(starts.back() + static_cast<std::int32_t>(counts[s]));
            for (std::int64_t t = 0; t < counts[s]; ++t) {
                ids.push_back(static_cast<std::int32_t>(numbers_.integer(0, vocabulary - 1)));
                tokens_[s].push_back(ids.back());
            }
        }
        const bool single = std::all_of(counts.begin(), counts.end(), [](auto n) { return n == 1; });
        llama::llama_batch batch;
        batch.tokens = std::ssize(ids), batch.ids = ids.data();
        batch.sequence = {single ? nullptr : starts.data(), past_, sequences,
                          *std::max_element(counts.begin(), counts.end()), 0};
        batch.pages = llama::pages_of(table_, sequences);
        if (by_blocks) batch.known = known;
        batch.splits = by_blocks ? 1 : 3, batch.sizes = {4, 8};
        execute(batch);
        compare(starts);
    }

private:
    void execute(const llama::llama_batch& batch) {
        const std::int64_t bytes = llama::llama_workspace_bytes(rw::type_of<T>, shape, batch);
        std::vector<double> space(static_cast<std::size_t>(bytes) / sizeof(double) + 64, std::nan(""));
        auto* const aligned =
            reinterpret_cast<double*>((reinterpret_cast<std::uintptr_t>(space.data()) + 255) & ~255UL);
        hidden_ = test::array(rw::element_type::f32, {1, batch.tokens, 1, shape.hidden_size});
        logits_ = test::array(rw::element_type::f32, {1, sequences, 1, vocabulary});
        test::memory_log log;
        model_.watch(log);
        log.watch(hidden_), log.watch(logits_), log.watch(aligned, static_cast<std::size_t>(bytes));
        log.watch(keys_.data(), keys_.size() * sizeof(T));
        const test::host_machine<T, L> machine(log);
        const rw::Encoding encoding = rw::make_encoding({.head_dim = shape.head_dim, .layout = rw::kind_of<L>});
        llama::llama_forward(machine, shape, model_.weights, batch, caches_, encoding, test::matrix_of(hidden_),
                             test::matrix_of(logits_), {aligned, bytes});
        machine.run(llama::make_advance(batch.sequence, batch.tokens, caches_[0].k, batch.pages, past_));
        CHECK(log.problem() == "");
        CHECK(hidden_.guards_intact());
        CHECK(logits_.guards_intact());
    }

    void compare(const std::vector<std::int32_t>& starts) {
        const std::vector<double> states = hidden_.values(), logits = logits_.values();
        for (std::size_t s = 0; s < sequences; ++s) {
            CHECK(past_[s] == std::ssize(tokens_[s]));
            const rows exact = exact_states(model_, tokens_[s], rw::kind_of<L>);
            const auto count = static_cast<std::size_t>(starts[s + 1] - starts[s]),
                       width = static_cast<std::size_t>(shape.hidden_size);
            double worst = 0;
            for (std::size_t t = 0; t < count; ++t) {
                for (std::size_t i = 0; i < width; ++i)
                    worst = std::max(worst, std::fabs(states[(static_cast<std::size_t>(starts[s]) + t) * width + i] -
                                                      exact[exact.size() - count + t][i]));
            }
            if (count > 0) {
                const auto last = model_.head.times(normed(exact.back(), model_.final_norm));
                for (std::size_t i = 0; i < last.size(); ++i)
                    worst = std::max(worst, std::fabs(logits[s * last.size() + i] - last[i]));
            }
            INFO("sequence " << s << " of " << exact.size() << " tokens");
            CHECK(worst <= room_);
        }
    }

    test::random& numbers_;
    double room_;
    model model_;
    std::vector<T> keys_;
    std::vector<gpu::kv_cache> caches_;
    std::vector<std::int32_t> table_;
    std::int32_t past_[sequences] = {};
    std::vector<std::int32_t> tokens_[sequences];
    test::array hidden_, logits_;
};

template <class T, class L>
void converse(test::random& numbers, double room) {
    for (const bool by_blocks : {true, false}) {
        conversation<T, L> talk(numbers, room);
        talk.step({9, 1, 14}, by_blocks);
        talk.step({1, 1, 1}, false);
        talk.step({2, 0, 5}, !by_blocks);
        talk.step({1, 1, 1}, false);
        talk.step({1, 12, 3}, by_blocks);
    }
}

}  // namespace

TEST_CASE("prompts, chunks and single tokens are a Llama's layers", "[llama_gpu][llama]") {
    SEEDED(numbers);
    converse<float, rw::half_split>(numbers, 2e-4);
    converse<float, rw::interleaved>(numbers, 2e-4);
    converse<rw::f16, rw::half_split>(numbers, 0.03);
    converse<rw::bf16, rw::interleaved>(numbers, 0.2);
}

TEST_CASE("a Llama whose parts do not fit is refused before anything runs", "[llama_gpu][llama]") {
    SEEDED(numbers);
    model m(rw::element_type::f32, numbers);
    std::vector<float> memory(4096);
    const auto cache = gpu::nhd_cache(memory.data(), 2, 16, 2, 16);
    const std::vector<gpu::kv_cache> caches(2, {cache, cache});
    test::array hidden(rw::element_type::f32, {1, 2, 1, 48});
    llama::llama_batch batch;
    batch.tokens = 2, batch.sequence = {nullptr, nullptr, 2, 1, 0};
    test::memory_log log;
    const test::host_machine<float> machine(log);
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 16});
    const auto call = [&](std::span<const gpu::kv_cache> with, const llama::matrix_view& x,
                          const llama::matrix_view& logits = {}, std::int64_t bytes = 1 << 20) {
        llama::llama_forward(machine, shape, m.weights, batch, with, encoding, x, logits, {memory.data(), bytes});
        return 0;
    };
    const llama::matrix_view x = test::matrix_of(hidden);
    CHECK_REFUSED(call(std::span(caches).first(1), x), "2 layers", "got 1");
    CHECK_REFUSED(call(caches, llama::rows_of(x, 0, 1)), "[1, 48]", "f32 [2, 48]");
    CHECK_REFUSED(call(caches, x, x), "logits", "2 sequences", "[50, 48]");
    CHECK_REFUSED(call(caches, x, {}, 100), "workspace", "got 100");
    m.views[1].down.columns = 41;
    CHECK_REFUSED(call(caches, x), "down", "[48, 41]", "[48, 40]");
    CHECK(machine.launches == 0);
}
