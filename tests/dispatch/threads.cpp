#include <dispatch/dispatch.hpp>

#include "support/catch.hpp"
#include "support/encodings.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

TEST_CASE("any number of threads gives the same bits", "[threads]") {
    SEEDED(numbers);
    for (const char* const expression : {"linear:4", "xpos", "randomized:seed=2"}) {
        const rw::Encoding e = rw::make_encoding({.head_dim = 128}, expression);
        for (const rw::element_type type : test::all_types) {
            for (const test::order order : {test::order::bshd, test::order::bhsd}) {
                const auto layout = numbers.one_of({rw::layout_kind::half_split, rw::layout_kind::interleaved});
                test::array q(type, {2, 130, 8, 128}, numbers, order), k(type, {2, 130, 2, 128}, numbers, order);
                test::array first_q, first_k;
                for (const int threads : {1, 2, 3, 0}) {
                    test::array q_turned = q, k_turned = k;
                    rw::cpu::options options;
                    options.threads = threads;
                    dispatch::rotate(layout, q_turned.tensor(), k_turned.tensor(), q_turned.tensor(), k_turned.tensor(),
                                     e, rw::offset{0}, options);
                    if (threads == 1) {
                        first_q = q_turned, first_k = k_turned;
                        CHECK_FALSE(q_turned == q);
                    }
                    INFO(expression << ' ' << rw::to_string(type) << " threads " << threads);
                    CHECK(q_turned == first_q);
                    CHECK(k_turned == first_k);
                }
            }
        }
    }
}

TEST_CASE("tables and rerotated keys do not depend on the threads either", "[threads]") {
    SEEDED(numbers);
    const rw::Encoding from = rw::make_encoding({.head_dim = 128}, "linear:4"),
                       to = rw::make_encoding({.head_dim = 128}, "linear:8");
    std::vector<float> cos[2], sin[2];
    for (int i = 0; i < 2; ++i) {
        cos[i].resize(3000 * 64), sin[i].resize(3000 * 64);
        dispatch::cos_sin(rw::layout_kind::half_split, from, rw::offset{5}, 3000, 64, cos[i], sin[i], 1 + 2 * i);
    }
    CHECK((cos[0] == cos[1]));
    CHECK((sin[0] == sin[1]));
    test::array one(rw::element_type::bf16, {1, 700, 8, 128}, numbers), three = one;
    dispatch::rerotate(rw::layout_kind::half_split, one.tensor(), one.tensor(), from, rw::offset{0}, to, rw::offset{9},
                       1);
    dispatch::rerotate(rw::layout_kind::half_split, three.tensor(), three.tensor(), from, rw::offset{0}, to,
                       rw::offset{9}, 3);
    CHECK(one == three);
}
