/// @file  The stack of a CUDA device, for the cases of every stack.
#pragma once

#include <utility>

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_model.hpp>

struct stack_kind {
    using backend = ropewalk::llama::cuda_backend;
    using stack = ropewalk::llama::device_stack<backend>;
    using cache = ropewalk::llama::device_cache<backend>;

    static backend& device() {
        static backend device;
        return device;
    }
    /// Blocks and chunks so small that prompts have several.
    static stack make_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights,
                            ropewalk::llama::rope_schedule rope) {
        return stack(device(), config, weights, std::move(rope),
                     {.block_tokens = 8, .blocks = {16, 8}, .rerotate_tokens = 6});
    }
    static cache make_cache(const ropewalk::llama::model_config& config,
                            const ropewalk::llama::cache_options& options) {
        return cache(device(), config, options);
    }
};
