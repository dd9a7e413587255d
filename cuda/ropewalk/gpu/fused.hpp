// Names of the arguments of fused calls, which the CPU has too.
#pragma once

#include "ropewalk/rotation/fused_args.hpp"

namespace ropewalk::gpu {

using ropewalk::by_mapping, ropewalk::by_page_list, ropewalk::by_page_table, ropewalk::by_sequence;
using ropewalk::cache_slots, ropewalk::cache_tensor, ropewalk::cache_type, ropewalk::cache_type_of;
using ropewalk::CacheElement, ropewalk::fusion, ropewalk::head_norm, ropewalk::hnd_cache, ropewalk::int8_scale;
using ropewalk::kv_cache, ropewalk::mla_cache, ropewalk::nhd_cache, ropewalk::qkv, ropewalk::quantised_outputs,
    ropewalk::size_of;
using ropewalk::split_qkv, ropewalk::to_string;

}  // namespace ropewalk::gpu
