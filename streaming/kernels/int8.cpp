// Linear layers with int8 weights and int8 activations, accumulated in int32: products that read a quarter of the bytes.
//
// A weight is quantised per output channel, an activation per row (never per tensor: a row's bits depend on that row
// alone). Integer sums are exact, so every instruction set gives the same bits. Weights are stored as w + 128, since
// the dot-product instructions of x86 multiply unsigned by signed bytes; 128 times the sum of a row is taken off again.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

using at::Tensor;

constexpr int PANEL = 32;  // output channels that are computed at a time
constexpr int GROUP = 4;   // products that one instruction adds up
constexpr int MAX_ROWS = 12;
constexpr int OFFSET = 128;
constexpr int AHEAD_BYTES = 4096;

const float* floats(const Tensor& x) {
    TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(), "expected a contiguous float32 tensor");
    return x.const_data_ptr<float>();
}

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The quantised values of one row or channel -> the scale that gives them back: a value is at most 127 scales.
float quantise(const float* from, int64_t count, int8_t* to) {
    float largest = 0;
    for (int64_t k = 0; k < count; k++) largest = std::max(largest, std::fabs(from[k]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int64_t k = 0; k < count; k++) to[k] = static_cast<int8_t>(std::rint(from[k] * inverse));
    return largest / 127.0f;
}

// weight (N, K) -> (panels, K / 4, 32, 4) uint8, and scales (panels * 32,); channels beyond N have scale 0.
std::tuple<Tensor, Tensor> pack(const Tensor& weight) {
    const int64_t width = weight.size(0), depth = weight.size(1), groups = rounded_up(depth, GROUP) / GROUP;
    const int64_t panels = rounded_up(width, PANEL) / PANEL;
    Tensor packed = at::full({panels, groups, PANEL, GROUP}, OFFSET, weight.options().dtype(at::kByte));
    Tensor scales = at::zeros({panels * PANEL}, weight.options());
    uint8_t* to = packed.mutable_data_ptr<uint8_t>();
    std::vector<int8_t> channel(depth);
    for (int64_t n = 0; n < width; n++) {
        scales.mutable_data_ptr<float>()[n] = quantise(floats(weight) + n * depth, depth, channel.data());
        uint8_t* panel = to + n / PANEL * groups * PANEL * GROUP + n % PANEL * GROUP;
        for (int64_t k = 0; k < depth; k++)
            panel[k / GROUP * PANEL * GROUP + k % GROUP] = static_cast<uint8_t>(channel[k] + OFFSET);
    }
    return {packed, scales};
}

// Sums (R, 32) of R rows, `depth` apart, with one panel.
using Multiply = void (*)(const int8_t* x, int64_t depth, const uint8_t* panel, int32_t* sums);

template <int R>
void multiply_plain(const int8_t* x, int64_t depth, const uint8_t* panel, int32_t* sums) {
    std::memset(sums, 0, R * PANEL * sizeof(int32_t));
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP)
        for (int r = 0; r < R; r++)
#if defined(__ARM_FEATURE_DOTPROD)
            for (int n = 0; n < PANEL; n += 4) {
                const int8x16_t w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(panel + n * GROUP), vdupq_n_u8(OFFSET)));
                int32_t four;
                std::memcpy(&four, x + r * depth + k, GROUP);
                const int8x16_t four_times = vreinterpretq_s8_s32(vdupq_n_s32(four));
                vst1q_s32(sums + r * PANEL + n, vdotq_s32(vld1q_s32(sums + r * PANEL + n), w, four_times));
            }
#else
            for (int n = 0; n < PANEL; n++)
                for (int g = 0; g < GROUP; g++)
                    sums[r * PANEL + n] += panel[n * GROUP + g] * x[r * depth + k + g];
#endif
}

#if defined(__x86_64__)

template <int R>
__attribute__((target("avx2"))) void multiply_avx2(const int8_t* x, int64_t depth, const uint8_t* panel,
                                                   int32_t* sums) {
    for (int n = 0; n < PANEL; n += 8) {  // 8 channels: 4 in each of two vectors, with two halves of a sum side by side
        __m256i low[R], high[R];
        for (int r = 0; r < R; r++) low[r] = high[r] = _mm256_setzero_si256();
        const uint8_t* from = panel + n * GROUP;
        for (int64_t k = 0; k < depth; k += GROUP, from += PANEL * GROUP) {
            const __m128i* eight = reinterpret_cast<const __m128i*>(from);
            const __m256i l = _mm256_cvtepu8_epi16(_mm_loadu_si128(eight));
            const __m256i h = _mm256_cvtepu8_epi16(_mm_loadu_si128(eight + 1));
            for (int r = 0; r < R; r++) {
                int32_t four;
                std::memcpy(&four, x + r * depth + k, GROUP);
                const __m256i wide = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(l, wide));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(h, wide));
            }
        }
        for (int r = 0; r < R; r++) {
            const __m256i mixed = _mm256_hadd_epi32(low[r], high[r]);  // channels 0 1 4 5 2 3 6 7
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * PANEL + n), _mm256_permute4x64_epi64(mixed, 0xD8));
        }
    }
}

template <int R>
__attribute__((target("avxvnni,avx2"))) void multiply_avx_vnni(const int8_t* x, int64_t depth, const uint8_t* panel,
                                                               int32_t* sums) {
    constexpr int VECTORS = 4;
    static_assert(R <= 3, "the sums must fit into 16 registers");
    __m256i sum[R][VECTORS];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) sum[r][v] = _mm256_setzero_si256();
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP)
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, x + r * depth + k, GROUP);
            const __m256i four_times = _mm256_set1_epi32(four);
            for (int v = 0; v < VECTORS; v++) {
                const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel) + v);
                sum[r][v] = _mm256_dpbusd_avx_epi32(sum[r][v], w, four_times);
            }
        }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * PANEL) + v, sum[r][v]);
}

#define AVX512_VNNI __attribute__((target("avx512f,avx512vnni")))

// Four values of a row times two vectors of weights. In assembly since GCC moves a sum that the intrinsic changes to
// another register and back.
AVX512_VNNI __attribute__((always_inline)) inline void add_products(__m512i& low, __m512i& high, const int8_t* x,
                                                                    __m512i l, __m512i h) {
    int32_t four;
    std::memcpy(&four, x, GROUP);
    const __m512i four_times = _mm512_set1_epi32(four);
    asm("vpdpbusd %1, %2, %0" : "+v"(low) : "v"(four_times), "v"(l));
    asm("vpdpbusd %1, %2, %0" : "+v"(high) : "v"(four_times), "v"(h));
}

// The rows are written out (R...), so that each sum stays in a register.
template <int... R>
AVX512_VNNI void multiply_avx512(const int8_t* x, int64_t depth, const uint8_t* panel, int32_t* sums,
                                 std::integer_sequence<int, R...>) {
    __m512i low[] = {(static_cast<void>(R), _mm512_setzero_si512())...};
    __m512i high[] = {(static_cast<void>(R), _mm512_setzero_si512())...};
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP) {
        const __m512i l = _mm512_loadu_si512(panel), h = _mm512_loadu_si512(panel + PANEL * GROUP / 2);
        _mm_prefetch(panel + AHEAD_BYTES, _MM_HINT_T0);
        _mm_prefetch(panel + AHEAD_BYTES + 64, _MM_HINT_T0);
        (add_products(low[R], high[R], x + R * depth + k, l, h), ...);
    }
    (_mm512_storeu_si512(sums + R * PANEL, low[R]), ...);
    (_mm512_storeu_si512(sums + R * PANEL + PANEL / 2, high[R]), ...);
}

template <int R>
void multiply_avx512_vnni(const int8_t* x, int64_t depth, const uint8_t* panel, int32_t* sums) {
    multiply_avx512(x, depth, panel, sums, std::make_integer_sequence<int, R>{});
}

#endif

struct Instructions {
    const char* name;
    int rows;                          // the most that are multiplied at a time
    Multiply multiply[MAX_ROWS + 1];  // by the number of rows
};

template <template <int> class By, int... R>
Instructions table(const char* name, std::integer_sequence<int, R...>) {
    return {name, sizeof...(R), {nullptr, By<R + 1>::multiply...}};
}

#define INSTRUCTIONS(Name, function)                              \
    template <int R>                                              \
    struct Name {                                                 \
        static constexpr Multiply multiply = function<R>;         \
    };
INSTRUCTIONS(Plain, multiply_plain)
#if defined(__x86_64__)
INSTRUCTIONS(Avx2, multiply_avx2)
INSTRUCTIONS(AvxVnni, multiply_avx_vnni)
INSTRUCTIONS(Avx512Vnni, multiply_avx512_vnni)
#endif

// The instruction sets of this processor that there is code for, the fastest first.
const std::vector<Instructions>& known() {
    static const std::vector<Instructions> found = [] {
        std::vector<Instructions> sets;
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512vnni"))
            sets.push_back(table<Avx512Vnni>("avx512_vnni", std::make_integer_sequence<int, MAX_ROWS>{}));
        if (__builtin_cpu_supports("avxvnni"))
            sets.push_back(table<AvxVnni>("avx_vnni", std::make_integer_sequence<int, 3>{}));
        if (__builtin_cpu_supports("avx2"))
            sets.push_back(table<Avx2>("avx2", std::make_integer_sequence<int, 4>{}));
#endif
        sets.push_back(table<Plain>("plain", std::make_integer_sequence<int, 4>{}));
        return sets;
    }();
    return found;
}

const Instructions& chosen(const std::optional<c10::string_view>& name) {
    for (const Instructions& set : known())
        if (!name || *name == set.name) return set;
    TORCH_CHECK(false, "this processor lacks the instruction set ", *name);
}

// x (..., K) -> (..., N) by a packed weight, its scales, and bias (N,). `instructions` names a set, for tests.
Tensor linear(const Tensor& input, const Tensor& packed, const Tensor& scales, const std::optional<Tensor>& bias,
              int64_t width, std::optional<c10::string_view> instructions) {
    const Instructions& by = chosen(instructions);
    const Tensor x = input.contiguous();
    const int64_t depth = x.size(-1), padded = packed.size(1) * GROUP, rows = x.numel() / depth;
    TORCH_CHECK(rounded_up(depth, GROUP) == padded, "expected rows of ", padded, " values, not of ", depth);
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = width;
    Tensor y = at::empty(sizes, x.options());
    std::vector<int8_t> quantised(rows * padded);
    std::vector<float> row_scale(rows);
    std::vector<int32_t> excess(rows);  // what the offset of the weights adds
    for (int64_t row = 0; row < rows; row++) {
        int8_t* to = &quantised[row * padded];
        row_scale[row] = quantise(floats(x) + row * depth, depth, to);
        int32_t sum = 0;
        for (int64_t k = 0; k < depth; k++) sum += to[k];
        excess[row] = OFFSET * sum;
    }
    const float *const scale = floats(scales), *const offset = bias ? floats(*bias) : nullptr;
    float* const out = y.mutable_data_ptr<float>();
    at::parallel_for(0, packed.size(0), 1, [&](int64_t begin, int64_t end) {
        int32_t sums[MAX_ROWS * PANEL];
        for (int64_t panel = begin; panel < end; panel++) {
            const uint8_t* weights = packed.const_data_ptr<uint8_t>() + panel * padded * PANEL;
            const int64_t first = panel * PANEL, count = std::min<int64_t>(PANEL, width - first);
            for (int64_t row = 0, some; row < rows; row += some) {
                const int64_t left = rows - row, turns = (left + by.rows - 1) / by.rows;
                some = (left + turns - 1) / turns;  // even shares, so that no turn is left with a single row
                by.multiply[some](&quantised[row * padded], padded, weights, sums);
                for (int64_t r = 0; r < some; r++)
                    for (int64_t n = 0; n < count; n++) {
                        const float value = static_cast<float>(sums[r * PANEL + n] - excess[row + r]);
                        const float scaled = value * (row_scale[row + r] * scale[first + n]);
                        out[(row + r) * width + first + n] = offset ? scaled + offset[first + n] : scaled;
                    }
            }
        }
    });
    return y;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Instructions& set : known()) names.emplace_back(set.name);
    return names;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(neucodec, m) {
    m.def("pack_int8(Tensor weight) -> (Tensor, Tensor)");
    m.def(
        "linear_int8(Tensor x, Tensor packed, Tensor scales, Tensor? bias, int width, str? instructions=None) "
        "-> Tensor");
    m.def("int8_instruction_sets() -> str[]", instruction_sets);
}

TORCH_LIBRARY_IMPL(neucodec, CPU, m) {
    m.impl("pack_int8", pack);
    m.impl("linear_int8", linear);
}
