// Rows of int8 times a panel of packed int8 weights, for each instruction set: the inner loops of int8.cpp.
//
// Sums are exact integers and what follows them is the same arithmetic, so every set gives the same bits.

#pragma once

#include <c10/util/string_view.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "common.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

constexpr int PANEL = 32;      // output channels that are computed at a time
constexpr int GROUP = 4;       // products that one instruction adds up
constexpr int MAX_ROWS = 32;   // that are multiplied at a time
constexpr int OFFSET = 128;    // of a stored weight
constexpr int LINE_BYTES = 64;

// Where the outputs of a panel go (R, 32), `width` apart, and what they are multiplied by and added to.
struct Outputs {
    const float *scale, *bias;
    bool with_silu;
    float* out;
    int64_t width;
};

// Replaces x by x / (1 + e^-x); by reference, since clang passes no AVX-512 vector by value to a function for AVX2.
template <typename Floats, typename Integers>
__attribute__((always_inline)) inline void silu(Floats& x) {
    const Floats small = exponential<Floats, Integers>(x < 0.0f ? x : -x);
    x = (x < 0.0f ? x * small : x) / (small + 1.0f);
}

// R rows of int8, `step` bytes apart, times a panel's tap. `excess` is what the offset of the weights adds to the sums
// of a row, and `scale` its scale; those of two rows are `stride` apart.
struct Product {
    const int8_t* x;
    int64_t step, depth;
    const uint8_t* panel;
    const int32_t* excess;
    const float* scale;
    int64_t stride;
    bool is_first;      // else it is added to what `total` holds
    const Outputs* to;  // of the last tap
    const uint8_t* ahead;  // weights that are read into the cache meanwhile, `ahead_step` bytes a group
    int64_t ahead_step;
};

// Computes total (R, 32), without the scales of the weights, and of the last tap the outputs instead.
using Multiply = void (*)(const Product& of, float* total);

// The functions below compute sums (R, 32), with the excess.

template <int R>
void multiply_plain(const int8_t* x, int64_t step, int64_t depth, const uint8_t* panel, int32_t* sums) {
    std::memset(sums, 0, R * PANEL * sizeof(int32_t));
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP)
        for (int r = 0; r < R; r++)
#if defined(__ARM_FEATURE_DOTPROD)
            for (int n = 0; n < PANEL; n += 4) {
                const int8x16_t w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(panel + n * GROUP), vdupq_n_u8(OFFSET)));
                int32_t four;
                std::memcpy(&four, x + r * step + k, GROUP);
                const int8x16_t four_times = vreinterpretq_s8_s32(vdupq_n_s32(four));
                vst1q_s32(sums + r * PANEL + n, vdotq_s32(vld1q_s32(sums + r * PANEL + n), w, four_times));
            }
#else
            for (int n = 0; n < PANEL; n++)
                for (int g = 0; g < GROUP; g++)
                    sums[r * PANEL + n] += panel[n * GROUP + g] * x[r * step + k + g];
#endif
}

#if defined(__x86_64__)

template <int R>
__attribute__((target("avx2"))) void multiply_avx2(const int8_t* x, int64_t step, int64_t depth, const uint8_t* panel,
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
                std::memcpy(&four, x + r * step + k, GROUP);
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
__attribute__((target("avxvnni,avx2"))) void multiply_avx_vnni(const int8_t* x, int64_t step, int64_t depth, const uint8_t* panel,
                                                               int32_t* sums) {
    constexpr int VECTORS = 4;
    static_assert(R <= 3, "the sums must fit into 16 registers");
    __m256i sum[R][VECTORS];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) sum[r][v] = _mm256_setzero_si256();
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP)
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, x + r * step + k, GROUP);
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

// `add_scaled` and `put` of 16 channels from `n` on of row `r`.
AVX512_VNNI __attribute__((always_inline)) inline void put_scaled(const Product& of, __m512i sums, int r, int n,
                                                                  float* total) {
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(of.excess[r * of.stride])));
    const __m512 by = _mm512_set1_ps(of.scale[r * of.stride]);
    total += r * PANEL + n;
    __m512 all = of.is_first ? _mm512_mul_ps(whole, by) : _mm512_fmadd_ps(whole, by, _mm512_loadu_ps(total));
    if (!of.to) {
        _mm512_storeu_ps(total, all);
        return;
    }
    all = _mm512_fmadd_ps(all, _mm512_loadu_ps(of.to->scale + n), _mm512_loadu_ps(of.to->bias + n));
    if (of.to->with_silu) silu<__m512, Integers512>(all);
    _mm512_storeu_ps(of.to->out + r * of.to->width + n, all);
}

constexpr int VNNI_ROWS = 10;  // whose sums fit into 32 registers

// The rows are written out (R...), so that each sum stays in a register.
template <int... R>
AVX512_VNNI void multiply_avx512(const Product& of, float* total, std::integer_sequence<int, R...>) {
    const int8_t* const x = of.x;
    const uint8_t* panel = of.panel;
    const int64_t step = of.step, depth = of.depth;
    __m512i low[] = {(static_cast<void>(R), _mm512_setzero_si512())...};
    __m512i high[] = {(static_cast<void>(R), _mm512_setzero_si512())...};
    if (of.to)  // or stores would wait for their lines
        ((__builtin_prefetch(of.to->out + R * of.to->width, 1),
          __builtin_prefetch(of.to->out + R * of.to->width + PANEL / 2, 1)),
         ...);
    const uint8_t* ahead = of.ahead;
    const int64_t ahead_step = of.ahead_step;
    for (int64_t k = 0; k < depth; k += GROUP, panel += PANEL * GROUP, ahead += ahead_step) {
        const __m512i l = _mm512_loadu_si512(panel), h = _mm512_loadu_si512(panel + PANEL * GROUP / 2);
        _mm_prefetch(ahead, _MM_HINT_T1);
        _mm_prefetch(ahead + LINE_BYTES, _MM_HINT_T1);
        (add_products(low[R], high[R], x + R * step + k, l, h), ...);
    }
    (put_scaled(of, low[R], R, 0, total), ...);
    (put_scaled(of, high[R], R, PANEL / 2, total), ...);
}

template <int R>
struct Avx512Vnni {
    static void multiply(const Product& of, float* total) {
        multiply_avx512(of, total, std::make_integer_sequence<int, R>{});
    }
};

#if defined(__linux__)

constexpr int TILE_ROWS = 16, TILE_BYTES = 64;  // of AMX: at most 16 rows of 64 bytes

// Whether this processor multiplies tiles of int8 (and vectors, for few rows), and the system lets this process do so.
bool has_amx_int8() {
    constexpr unsigned TILES = 1u << 24, INT8_PRODUCTS = 1u << 25;
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    unsigned a, b, c, features;
    return __builtin_cpu_supports("avx512vnni") && __get_cpuid_count(7, 0, &a, &b, &c, &features) &&
           features & TILES && features & INT8_PRODUCTS &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// Tiles 0 to 3 hold the sums of twice 16 rows and twice 16 channels, 4 and 5 the rows, 6 and 7 the weights.
__attribute__((target("amx-tile,amx-int8,avx512f,avx512vnni"))) void multiply_amx(const Product& of, int rows,
                                                                                  float* total) {
    int64_t blocks = (of.depth + TILE_BYTES - 1) / TILE_BYTES;
    while (of.depth % (blocks * GROUP)) blocks++;  // of equal size, since nothing may be read behind the last
    const int64_t bytes = of.depth / blocks;
    const bool has_upper = rows > TILE_ROWS;
    alignas(LINE_BYTES) uint8_t shapes[64] = {1};  // as LDTILECFG reads them: palette 1
    const auto shape = [&](int tile, int64_t rows, int64_t row_bytes) {
        shapes[16 + 2 * tile] = static_cast<uint8_t>(row_bytes);
        shapes[48 + tile] = static_cast<uint8_t>(rows);
    };
    for (int half = 0; half < 2; half++) {
        const int some = half ? std::max(1, rows - TILE_ROWS) : std::min(rows, TILE_ROWS);
        shape(2 * half, some, TILE_BYTES);
        shape(2 * half + 1, some, TILE_BYTES);
        shape(4 + half, some, bytes);
        shape(6 + half, bytes / GROUP, TILE_BYTES);
    }
    asm volatile("" : : "r"(shapes) : "memory");  // GCC's intrinsic declares only 8 bytes as read
    _tile_loadconfig(shapes);  // zeros all tiles
    const uint8_t *panel = of.panel, *ahead = of.ahead;
    for (int64_t k = 0; k < of.depth; k += bytes, panel += bytes * PANEL) {
        _tile_loadd(6, panel, PANEL * GROUP);
        _tile_loadd(4, of.x + k, of.step);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, panel + TILE_BYTES, PANEL * GROUP);
        _tile_dpbsud(1, 4, 7);
        if (has_upper) {
            _tile_loadd(5, of.x + k + TILE_ROWS * of.step, of.step);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
        const uint8_t* const until = ahead + bytes / GROUP * of.ahead_step;
        for (; ahead < until; ahead += LINE_BYTES) _mm_prefetch(ahead, _MM_HINT_T1);
    }
    alignas(LINE_BYTES) int32_t sums[2 * TILE_ROWS * PANEL];
    int32_t* const upper = sums + TILE_ROWS * PANEL;
    _tile_stored(0, sums, PANEL * sizeof(int32_t));
    _tile_stored(1, sums + PANEL / 2, PANEL * sizeof(int32_t));
    _tile_stored(2, upper, PANEL * sizeof(int32_t));
    _tile_stored(3, upper + PANEL / 2, PANEL * sizeof(int32_t));
    _tile_release();
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < PANEL; n += PANEL / 2)
            put_scaled(of, _mm512_load_si512(sums + r * PANEL + n), r, n, total);
}

template <int R>
struct AmxInt8 {
    static void multiply(const Product& of, float* total) {
        if constexpr (R <= TILE_ROWS / 2)  // less than the tiles' shapes cost
            Avx512Vnni<R>::multiply(of, total);
        else
            multiply_amx(of, R, total);
    }
};

#endif  // Linux
#endif  // x86

struct Instructions {
    const char* name;
    int rows;                          // the most that are multiplied at a time
    Multiply multiply[MAX_ROWS + 1];  // by the number of rows
};

template <template <int> class By, int... R>
Instructions table(const char* name, std::integer_sequence<int, R...>) {
    return {name, sizeof...(R), {nullptr, By<R + 1>::multiply...}};
}

// Sums of one row, less their excess, by its scale.
void add_scaled(const int32_t* sums, int32_t excess, float scale, bool is_first, float* total) {
    if (is_first)
        for (int n = 0; n < PANEL; n++) total[n] = static_cast<float>(sums[n] - excess) * scale;
    else
        for (int n = 0; n < PANEL; n++) total[n] += static_cast<float>(sums[n] - excess) * scale;
}

// The outputs of one row's total.
void put(const Outputs& to, float* total, float* out) {
    for (int n = 0; n < PANEL; n++) total[n] = total[n] * to.scale[n] + to.bias[n];
    for (int n = 0; to.with_silu && n < PANEL; n += WIDE) {
        Lanes some = load(total + n);
        silu<Lanes, Ints>(some);
        store(total + n, some);
    }
    std::memcpy(out, total, PANEL * sizeof(float));
}

#define INSTRUCTIONS(Name, function)                                                                              \
    template <int R>                                                                                              \
    struct Name {                                                                                                 \
        static void multiply(const Product& of, float* total) {                                                   \
            alignas(LINE_BYTES) int32_t sums[R * PANEL];                                                          \
            function<R>(of.x, of.step, of.depth, of.panel, sums);                                                 \
            for (int r = 0; r < R; r++) {                                                                         \
                add_scaled(sums + r * PANEL, of.excess[r * of.stride], of.scale[r * of.stride], of.is_first,      \
                           total + r * PANEL);                                                                    \
                if (of.to) put(*of.to, total + r * PANEL, of.to->out + r * of.to->width);                         \
            }                                                                                                     \
        }                                                                                                         \
    };
INSTRUCTIONS(Plain, multiply_plain)
#if defined(__x86_64__)
INSTRUCTIONS(Avx2, multiply_avx2)
INSTRUCTIONS(AvxVnni, multiply_avx_vnni)
#endif

// The instruction sets of this processor that there is code for, the fastest first.
const std::vector<Instructions>& known() {
    static const std::vector<Instructions> found = [] {
        std::vector<Instructions> sets;
#if defined(__x86_64__)
#if defined(__linux__)
        if (has_amx_int8()) sets.push_back(table<AmxInt8>("amx_int8", std::make_integer_sequence<int, MAX_ROWS>{}));
#endif
        if (__builtin_cpu_supports("avx512vnni"))
            sets.push_back(table<Avx512Vnni>("avx512_vnni", std::make_integer_sequence<int, VNNI_ROWS>{}));
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

}  // namespace
