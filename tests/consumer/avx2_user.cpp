// Calls of a program that compiles the headers for AVX2 and, in other files, for older processors.
#include <ropewalk/cpu/fused.hpp>
#include <ropewalk/ropewalk.hpp>

#include <cstdint>
#include <span>

namespace rw = ropewalk;

void rotate_for_avx2(std::span<float> q, std::span<rw::bf16> k, const rw::Encoding& encoding, std::int64_t position);

void rotate_for_avx2(std::span<float> q, std::span<rw::bf16> k, const rw::Encoding& encoding, std::int64_t position) {
    const auto q_view = rw::thd(q, 1, 8, 128);
    const auto k_view = rw::thd(k, 1, 8, 128);
    rw::cpu::rotate<rw::half_split>(q_view, encoding, rw::offset{position});
    rw::cpu::rerotate<rw::interleaved>(k_view, encoding, rw::offset{position}, encoding, rw::offset{0});
    rw::cpu::cos_sin<rw::half_split>(encoding, rw::offset{position}, 1, 64, q.first(64), q.last(64));
    auto prepared = rw::cpu::prepare<rw::half_split>(q_view, encoding);
    if (!prepared.run(q.data(), nullptr, position)) q[0] = 0;
    const std::int64_t slot = 0;
    const rw::fusion fusion{.cache = {.k = rw::nhd_cache(k.data(), 1, 1, 8, 128), .v = {}},
                            .slots = rw::by_mapping(std::span(&slot, 1))};
    rw::cpu::fused<rw::half_split, float>({q_view, q_view, {}}, {q_view, {}, {}}, fusion, encoding,
                                          rw::offset{position});
    auto call = rw::cpu::prepare_fused<rw::half_split, float>({q_view, q_view, {}}, {q_view, {}, {}}, fusion, encoding);
    if (!call.run({.q = {.in = q.data()}, .k = {.in = q.data(), .cache = k.data()}, .v = {}}, {&position, 1},
                  {&slot, 1}))
        q[0] = 0;
}
