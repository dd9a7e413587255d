/// @file  The stack of a simulated device, for the cases of every stack.
#pragma once

#include <utility>

#include <ropewalk/llama/device_model.hpp>

#include "simulated_device.hpp"

struct stack_kind {
    using stack = ropewalk::llama::device_stack<test::simulated_device>;
    using cache = ropewalk::llama::device_cache<test::simulated_device>;
    using decoder = ropewalk::llama::device_model<test::simulated_device>;
    static constexpr bool checks_every_layer = false;  // but finds the layer when logits are not finite

    /// Blocks and chunks so small that prompts have several.
    static constexpr ropewalk::llama::device_options small{.block_tokens = 8, .blocks = {16, 8}, .rerotate_tokens = 6};

    static test::simulated_device& device() {
        static test::simulated_device device;
        return device;
    }
    static stack make_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights,
                            ropewalk::llama::rope_schedule rope) {
        return stack(device(), config, weights, std::move(rope), small);
    }
    static decoder make_decoder(const ropewalk::llama::model_config& config,
                                const ropewalk::llama::model_weights& weights, ropewalk::llama::rope_schedule rope) {
        return decoder(device(), config, weights, std::move(rope), small);
    }
    static cache make_cache(const ropewalk::llama::model_config& config,
                            const ropewalk::llama::cache_options& options) {
        return cache(device(), config, options);
    }
};
