/// @file  The stack on the CPU, for the cases that every stack is tested by.
#pragma once

#include <utility>

#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/llama.hpp>
#include <ropewalk/llama/stack.hpp>

struct stack_kind {
    using stack = ropewalk::attention::stack;
    using cache = ropewalk::attention::kv_cache;
    using decoder = ropewalk::attention::llama;

    static stack make_stack(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::llama_weights& weights,
                            ropewalk::attention::rope_schedule rope) {
        return {config, weights, std::move(rope), ropewalk::dispatch::llama_kernels()};
    }
    static decoder make_decoder(const ropewalk::attention::llama_config& config,
                                const ropewalk::attention::llama_weights& weights,
                                ropewalk::attention::rope_schedule rope) {
        return {config, weights, std::move(rope), ropewalk::dispatch::llama_kernels()};
    }
    static cache make_cache(const ropewalk::attention::llama_config& config,
                            const ropewalk::attention::cache_options& chosen) {
        return cache(config, chosen);
    }
};
