/// @file  The stack on a GPU, for the cases that every stack is tested by.
#pragma once

#include <utility>

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_stack.hpp>

struct stack_kind {
    using machine = ropewalk::llama::cuda_machine;
    using stack = ropewalk::llama::device_stack<machine>;
    using cache = ropewalk::llama::device_cache<machine>;

    static machine& device() {
        static machine one;
        return one;
    }
    /// Blocks and chunks so small that prompts have several.
    static stack make_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights,
                            ropewalk::llama::rope_schedule rope) {
        return stack(device(), config, weights, std::move(rope),
                     {.block_tokens = 8, .blocks = {16, 8}, .turn_tokens = 6});
    }
    static cache make_cache(const ropewalk::llama::model_config& config, const ropewalk::llama::cache_options& chosen) {
        return cache(device(), config, chosen);
    }
};
