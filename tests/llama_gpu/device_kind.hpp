/// @file  The device stack, executed by the host, for the cases that every stack is tested by.
#pragma once

#include <utility>

#include <ropewalk/llama/device_llama.hpp>

#include "stack_machine.hpp"

struct stack_kind {
    using stack = ropewalk::attention::device_stack<test::stack_machine>;
    using cache = ropewalk::attention::device_cache<test::stack_machine>;
    using decoder = ropewalk::attention::device_llama<test::stack_machine>;

    /// Blocks and chunks so small that prompts have several.
    static constexpr ropewalk::attention::device_options small{.block_tokens = 8, .blocks = {16, 8}, .turn_tokens = 6};

    static test::stack_machine& machine() {
        static test::stack_machine one;
        return one;
    }
    static stack make_stack(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::llama_weights& weights,
                            ropewalk::attention::rope_schedule rope) {
        return stack(machine(), config, weights, std::move(rope), small);
    }
    static decoder make_decoder(const ropewalk::attention::llama_config& config,
                                const ropewalk::attention::llama_weights& weights,
                                ropewalk::attention::rope_schedule rope) {
        return decoder(machine(), config, weights, std::move(rope), small);
    }
    static cache make_cache(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::cache_options& chosen) {
        return cache(machine(), config, chosen);
    }
};
