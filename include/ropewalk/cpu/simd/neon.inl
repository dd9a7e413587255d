// Conversion of f16 by instructions, which all AArch64 machines have. Included by generic.inl.
RW_BEGIN_INTRINSICS
#include <arm_neon.h>
RW_END_INTRINSICS

namespace ropewalk::cpu::detail {

template <class A>
inline constexpr bool converts_f16 = true;

/// Four halves as floats.
template <class A>
RW_INLINE floats<A> load_f16(const f16* source) {
    return floats<A>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&source->bits))));
}

/// Four floats as halves, rounded to nearest even.
template <class A>
RW_INLINE void store_f16(f16* target, const floats<A>& value) {
    vst1_u16(&target->bits, vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(value.data))));
}

}  // namespace ropewalk::cpu::detail
