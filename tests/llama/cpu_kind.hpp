/// @file  The stack of the CPU, for the cases shared by all stacks.
#pragma once

#include <utility>

#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/model.hpp>
#include <ropewalk/llama/stack.hpp>

struct stack_kind {
    using stack = ropewalk::llama::stack;
    using cache = ropewalk::llama::kv_cache;
    using decoder = ropewalk::llama::model;
    static constexpr bool checks_every_layer = true;

    static stack make_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights,
                            ropewalk::llama::rope_schedule rope) {
        return {config, weights, std::move(rope), ropewalk::dispatch::llama_kernels()};
    }
    static decoder make_decoder(const ropewalk::llama::model_config& config,
                                const ropewalk::llama::model_weights& weights, ropewalk::llama::rope_schedule rope) {
        return {config, weights, std::move(rope), ropewalk::dispatch::llama_kernels()};
    }
    static cache make_cache(const ropewalk::llama::model_config& config,
                            const ropewalk::llama::cache_options& options) {
        return cache(config, options);
    }
};
