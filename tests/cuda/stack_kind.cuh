/// @file  The stack on a GPU, for the cases that every stack is tested by.
#pragma once

#include <utility>

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_stack.hpp>

struct stack_kind {
    using machine = ropewalk::attention::cuda_machine;
    using stack = ropewalk::attention::device_stack<machine>;
    using cache = ropewalk::attention::device_cache<machine>;

    static machine& device() {
        static machine one;
        return one;
    }
    /// Blocks and chunks so small that prompts have several.
    static stack make_stack(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::llama_weights& weights,
                            ropewalk::attention::rope_schedule rope) {
        return stack(device(), config, weights, std::move(rope),
                     {.block_tokens = 8, .blocks = {16, 8}, .turn_tokens = 6});
    }
    static cache make_cache(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::cache_options& chosen) {
        return cache(device(), config, chosen);
    }
};
