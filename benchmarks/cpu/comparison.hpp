// Interleaved timing of candidates (A B A B …), so that a slow phase of the machine affects all of them.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

namespace bench {

class comparison {
public:
    /// Adds a candidate. `run(pass)` executes it once; passes count up, so that a factor and its inverse can alternate.
    /// A slow candidate that only gives context, like the naive twin, gets fewer samples.
    void add(std::string_view name, std::function<void(int pass)> run, bool context_only = false);

    /// Takes one sample of each candidate: as many passes as fill a millisecond, after an untimed pass. The untimed
    /// pass reloads the caches that the previous candidate evicted.
    void round();
    /// Takes further rounds: at least seven in total, and more if they are fast.
    void finish();

    /// Median seconds per pass of a candidate.
    [[nodiscard]] double median(std::string_view name) const;

    /// The smaller median of a bound with one thread and with all threads: threads slow down a small bound. `all` is
    /// unused when `threads` is 1.
    [[nodiscard]] double bound(int threads, std::string_view all, std::string_view single) const;

private:
    struct candidate {
        std::string_view name;
        std::function<void(int)> run;
        bool context_only;
        int pass = 0;
        int passes = 0;  ///< per sample; 0 until the first round measures it
        std::vector<double> samples;
    };
    static double seconds_per_pass(candidate& entry, int passes);

    std::vector<candidate> candidates_;
    int rounds_ = 0;
};

}  // namespace bench
