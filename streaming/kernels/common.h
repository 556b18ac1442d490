// Vectors of eight floats, and access to the tensors of a step: shared by the operations of this folder.
//
// slots, position, valid and commit are int64 (B,), as in step.py's StepPlan; state tensors have the slot axis first.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace {

using at::Tensor;

constexpr int WIDE = 8;
typedef float Lanes __attribute__((vector_size(WIDE * sizeof(float)), aligned(alignof(float)), may_alias));
typedef int32_t Integers512 __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(WIDE * sizeof(int32_t)), aligned(alignof(int32_t)), may_alias));

inline Lanes load(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline void store(float* p, Lanes x) { *reinterpret_cast<Lanes*>(p) = x; }

// After adding it, the last bits of a number between -2^22 and 2^22 are those of the nearest integer.
constexpr float SHIFT = 12582912.0f;
constexpr int32_t SHIFT_BITS = 0x4B400000;

// e^x for x <= 0, and no less than e^-87: 2^n times a series of the rest. `Integers` are as wide as `Floats`.
template <typename Floats = Lanes, typename Integers = Ints>
__attribute__((always_inline)) inline Floats exponential(Floats x) {
    x = x < -87.0f ? Floats{} - 87.0f : x;
    const Floats shifted = x * 1.44269504f + SHIFT, n = shifted - SHIFT;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const Integers power = (reinterpret_cast<const Integers&>(shifted) - (SHIFT_BITS - 127)) << 23;
    return p * reinterpret_cast<const Floats&>(power);
}

// The sum of each of eight vectors.
inline Lanes sums(const Lanes (&a)[8]) {
    Lanes b[4], c[2];
    for (int i = 0; i < 4; i++)
        b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int i = 0; i < 2; i++)
        c[i] = __builtin_shufflevector(b[2 * i], b[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(b[2 * i], b[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(c[0], c[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

inline const float* floats(const Tensor& x) {
    TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(), "expected a contiguous float32 tensor");
    return x.const_data_ptr<float>();
}

inline float* changed(const Tensor& x) { return const_cast<float*>(floats(x)); }

inline const int64_t* whole_numbers(const Tensor& x) {
    TORCH_CHECK(x.scalar_type() == at::kLong && x.is_contiguous(), "expected a contiguous int64 tensor");
    return x.const_data_ptr<int64_t>();
}

struct Rows {
    const int64_t *slots, *position, *valid, *commit;

    Rows(const Tensor& slots, const Tensor& position, const Tensor& valid, const Tensor& commit)
        : slots(whole_numbers(slots)),
          position(whole_numbers(position)),
          valid(whole_numbers(valid)),
          commit(whole_numbers(commit)) {}
};

}  // namespace
