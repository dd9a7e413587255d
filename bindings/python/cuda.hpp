// Calls on a CUDA device, through ropewalk._cuda: that is imported when the first array on a device arrives.
#pragma once

#include <ropewalk/rotation/args.hpp>

#include "arguments.hpp"

namespace ropewalk::python {

/// One call on the device where an array lies: on torch's current stream for its tensors, on the legacy default stream
/// for the arrays of others, as DLPack has it. Throws, with how to get the module, where it is missing.
class device_call {
public:
    explicit device_call(const array& where);

    void rotate(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out, const Encoding& encoding,
                const token_positions& where, direction direction, const cos_sin_table& table) const;
    void rerotate(const tensor& k, const Encoding& from, const token_positions& from_where, const Encoding& to,
                  const token_positions& to_where) const;

private:
    const array& like_;
};

}  // namespace ropewalk::python
