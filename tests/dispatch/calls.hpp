/// @file  Rotations in place by the compiled CPU kernels.
#pragma once

#include <ropewalk/cpu/machine_profile.hpp>
#include <ropewalk/dispatch.hpp>

#include "support/compare.hpp"

namespace test {

/// Options with the cache sizes of one machine, 1 MiB and 16 MiB, whichever machine runs the test.
inline ropewalk::cpu::options zen4_options() {
    ropewalk::cpu::options options;
    options.tuning = ropewalk::cpu::find_profile("zen4");
    return options;
}

inline void rotate_q(ropewalk::layout_kind layout, array& q, const ropewalk::Encoding& encoding,
                     const ropewalk::positions& positions, const ropewalk::cpu::options& options = {}) {
    ropewalk::dispatch::rotate(layout, q.tensor(), none(), q.tensor(), none(), encoding, positions, options);
}
inline void rotate_k(ropewalk::layout_kind layout, array& k, const ropewalk::Encoding& encoding,
                     const ropewalk::positions& positions, const ropewalk::cpu::options& options = {}) {
    ropewalk::dispatch::rotate(layout, none(), k.tensor(), none(), k.tensor(), encoding, positions, options);
}
inline void rotate_both(ropewalk::layout_kind layout, array& q, array& k, const ropewalk::Encoding& encoding,
                        const ropewalk::positions& positions, const ropewalk::cpu::options& options = {}) {
    ropewalk::dispatch::rotate(layout, q.tensor(), k.tensor(), q.tensor(), k.tensor(), encoding, positions, options);
}
inline void rerotate(ropewalk::layout_kind layout, array& k, const ropewalk::Encoding& source,
                     const ropewalk::positions& source_positions, const ropewalk::Encoding& target,
                     const ropewalk::positions& target_positions, int threads = 0) {
    ropewalk::dispatch::rerotate(layout, k.tensor(), k.tensor(), source, source_positions, target, target_positions,
                                 threads);
}

/// Largest error of a table [ids, columns] of one column per pair.
inline double table_error(const oracle::encoding& exact, const std::vector<oracle::place>& places,
                          const std::vector<float>& cos, const std::vector<float>& sin) {
    double worst = 0;
    const std::size_t pairs = exact.turns.size();
    for (std::size_t i = 0; i < places.size(); ++i) {
        for (std::size_t j = 0; j < pairs; ++j) {
            const oracle::unit u = oracle::cos_sin(exact.turns[j], places[i]);
            worst = std::max(worst, std::fabs(static_cast<double>(cos[i * pairs + j]) - u.cos));
            worst = std::max(worst, std::fabs(static_cast<double>(sin[i * pairs + j]) - u.sin));
        }
    }
    return worst;
}

}  // namespace test
