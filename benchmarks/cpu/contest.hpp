// Times candidates in turn (A B A B …), so that whatever slows the machine down slows all of them.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

namespace bench {

class contest {
public:
    /// `run(pass)` does the work once; passes count up, so that a factor and its inverse can alternate. A candidate
    /// that is slow and only there for context (the naive twin) may be left out of the later rounds.
    void add(std::string_view name, std::function<void(int pass)> run, bool context_only = false);

    /// One sample of each candidate: as many passes as fill a millisecond, behind an untimed one which brings the data
    /// back into the cache from which the candidate before has driven it.
    void round();
    /// Further rounds, so that there are at least seven; more where they are cheap.
    void finish();

    /// Seconds a pass.
    [[nodiscard]] double median(std::string_view name) const;

    /// The faster of one thread and all: threads may slow a small ceiling down, and then it is none. With one thread
    /// there is no candidate `team`.
    [[nodiscard]] double ceiling(int threads, std::string_view team, std::string_view alone) const;

private:
    struct candidate {
        std::string_view name;
        std::function<void(int)> run;
        bool context_only;
        int pass = 0;
        int passes = 0;  ///< a sample; 0 until the first round measures it
        std::vector<double> samples;
    };
    static double seconds(candidate& one, int passes);

    std::vector<candidate> candidates_;
    int rounds_ = 0;
};

}  // namespace bench
