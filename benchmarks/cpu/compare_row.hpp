// Measurement of one benchmark row.
#pragma once

#include <string>

#include <benchmark/benchmark.h>

#include "comparison.hpp"
#include "workload.hpp"

namespace bench {

/// Checks the candidates of a row, then times them. Returns false, and skips the row with the reason, where a candidate
/// is wrong or the values drifted. A row has check(), add_candidates() and result().
template <class Row>
bool compare_row(benchmark::State& state, Row& row, comparison& times) {
    std::string problem = row.check();
    if (problem.empty()) {
        row.add_candidates(times);
        for (auto _ : state) times.round();
        times.finish();
        if (!has_initial_magnitude(row.result())) problem = "the values drifted during the measurement";
    }
    if (!problem.empty()) state.SkipWithError(problem.c_str());
    return problem.empty();
}

}  // namespace bench
