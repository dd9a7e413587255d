/// @file  The device stack, executed by the host, for the cases that every stack is tested by.
#pragma once

#include <utility>

#include <ropewalk/llama/device_model.hpp>

#include "stack_machine.hpp"

struct stack_kind {
    using stack = ropewalk::llama::device_stack<test::stack_machine>;
    using cache = ropewalk::llama::device_cache<test::stack_machine>;
    using decoder = ropewalk::llama::device_model<test::stack_machine>;

    /// Blocks and chunks so small that prompts have several.
    static constexpr ropewalk::llama::device_options small{.block_tokens = 8, .blocks = {16, 8}, .turn_tokens = 6};

    static test::stack_machine& machine() {
        static test::stack_machine one;
        return one;
    }
    static stack make_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights,
                            ropewalk::llama::rope_schedule rope) {
        return stack(machine(), config, weights, std::move(rope), small);
    }
    static decoder make_decoder(const ropewalk::llama::model_config& config,
                                const ropewalk::llama::model_weights& weights, ropewalk::llama::rope_schedule rope) {
        return decoder(machine(), config, weights, std::move(rope), small);
    }
    static cache make_cache(const ropewalk::llama::model_config& config, const ropewalk::llama::cache_options& chosen) {
        return cache(machine(), config, chosen);
    }
};
