// Attention of a window over the ring of its slot and over itself: what attention.py does with torch's operations. One
// thread; a row's bits depend on that row alone.
//
// Rings are float32 or, for int8 weights, bfloat16. With bfloat16, queries and the weights of values are rounded to it
// too, since an instruction of AVX512-BF16 then adds the products of 16 pairs; sums stay float32.

#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "common.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int KEYS = 8, VALUES = 16;  // processed together
constexpr int BLOCK = 16;             // keys of a vector
constexpr int HEADS = 4;              // whose keys and values stay in the cache together

void widen(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }

void narrow(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }

void widen(const at::BFloat16* from, int64_t count, float* to) {
    const auto* bits = reinterpret_cast<const uint16_t*>(from);
    auto* wide = reinterpret_cast<uint32_t*>(to);
    for (int64_t i = 0; i < count; i++) wide[i] = static_cast<uint32_t>(bits[i]) << 16;
}

void narrow(const float* from, int64_t count, at::BFloat16* to) {
    const auto* wide = reinterpret_cast<const uint32_t*>(from);
    auto* bits = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < count; i++)  // to the nearest, ties to even
        bits[i] = static_cast<uint16_t>((wide[i] + 0x7FFF + (wide[i] >> 16 & 1)) >> 16);
}

// `count` rows of a ring, `stride` apart -> those of `heads` heads, (heads, some, width). The rows of a head are 4 KiB
// apart in the ring, where they share few sets of the cache.
template <typename Element>
void by_head(const Element* rows, int64_t count, int64_t stride, int64_t heads, int64_t width, int64_t some, float* to) {
    for (int64_t row = 0; row < count; row++)
        for (int64_t head = 0; head < heads; head++) {
            const Element* from = rows + row * stride + head * width;
            __builtin_prefetch(from + some * stride);
            widen(from, width, to + (head * some + row) * width);
        }
}

// The scores of eight keys (8, D) for a query (D,).
Lanes score(const float* query, int64_t width, const float* keys) {
    Lanes parts[KEYS]{};
    for (int64_t d = 0; d < width; d += WIDE) {
        const Lanes q = load(query + d);
        for (int n = 0; n < KEYS; n++) parts[n] += q * load(keys + n * width + d);
    }
    return sums(parts);
}

// Scores of `count` keys -> e^(score - the highest); returns 1 / their sum. What fills the last vector weighs nothing.
float softmax(float* scores, int64_t count) {
    std::fill(scores + count, scores + (count + WIDE - 1) / WIDE * WIDE, -INFINITY);
    Lanes most = load(scores), total{};
    for (int64_t k = WIDE; k < count; k += WIDE) {
        const Lanes s = load(scores + k);
        most = s > most ? s : most;
    }
    float highest = most[0], sum = 0;
    for (int n = 1; n < WIDE; n++) highest = std::max(highest, float(most[n]));
    for (int64_t k = 0; k < count; k += WIDE) {
        const Lanes e = exponential(load(scores + k) - highest);
        store(scores + k, e);
        total += e;
    }
    for (int n = 0; n < WIDE; n++) sum += total[n];
    return 1 / sum;
}

// Values (N, D) weighed for Q queries and added to theirs, a tile of two vectors at a time.
template <int Q>
void weigh(const float* weights, int64_t weights_stride, const float* values, int64_t count, int64_t width, float* out,
           int64_t stride) {
    for (int64_t d = 0; d < width; d += 2 * WIDE) {
        Lanes low[Q], high[Q];
        for (int q = 0; q < Q; q++) {
            low[q] = load(out + q * stride + d);
            high[q] = load(out + q * stride + d + WIDE);
        }
        for (int64_t k = 0; k < count; k++) {
            const Lanes l = load(values + k * width + d), h = load(values + k * width + d + WIDE);
            for (int q = 0; q < Q; q++) {
                low[q] += l * weights[q * weights_stride + k];
                high[q] += h * weights[q * weights_stride + k];
            }
        }
        for (int q = 0; q < Q; q++) {
            store(out + q * stride + d, low[q]);
            store(out + q * stride + d + WIDE, high[q]);
        }
    }
}

#if defined(__x86_64__)
#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

// sum += the products of 16 pairs of `pairs` and the pair `one`. In assembly since GCC moves a sum that the intrinsic
// changes to another register and back.
AVX512_BF16 __attribute__((always_inline)) inline void add_pairs(__m512& sum, __m512i pairs, uint32_t one) {
    const __m512i repeated = _mm512_set1_epi32(static_cast<int32_t>(one));
    asm("vdpbf16ps %1, %2, %0" : "+v"(sum) : "v"(repeated), "v"(pairs));
}

// Transposes 16 rows of 16 pairs.
AVX512_BF16 __attribute__((always_inline)) inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            t[8 * j + i] = _mm512_shuffle_i32x4(r[8 * j + i], r[8 * j + i + 4], 0x88);
            t[8 * j + i + 4] = _mm512_shuffle_i32x4(r[8 * j + i], r[8 * j + i + 4], 0xDD);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
    }
}

// `softmax` with twice the lanes, in the same order of sums, of which only the rounded weights are kept.
AVX512_BF16 float softmax_pairs(float* scores, int64_t count, void* weights) {
    std::fill(scores + count, scores + (count + BLOCK - 1) / BLOCK * BLOCK, -INFINITY);
    __m512 most = _mm512_loadu_ps(scores);
    for (int64_t k = BLOCK; k < count; k += BLOCK) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + k));
    const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    __m256 total = _mm256_setzero_ps();
    for (int64_t k = 0; k < count; k += BLOCK) {
        const __m512 e = exponential<__m512, Integers512>(_mm512_loadu_ps(scores + k) - highest);
        total += _mm512_castps512_ps256(e);
        total += _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(e), 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights) + k / BLOCK, (__m256i)_mm512_cvtneps_pbh(e));
    }
    float sum = 0;
    for (int n = 0; n < WIDE; n++) sum += total[n];
    return 1 / sum;
}

// Scores of B blocks of 16 keys for Q queries: keys (B, D / 2, 16) pairs, queries D / 2 pairs each, `stride` pairs apart.
template <int B, int... Q>
AVX512_BF16 void score_pairs(const uint32_t* keys, int64_t pairs, const uint32_t* queries, int64_t stride, float scale,
                             float* scores, int64_t padded, std::integer_sequence<int, Q...>) {
    __m512 first[] = {(static_cast<void>(Q), _mm512_setzero_ps())...};
    __m512 second[] = {(static_cast<void>(Q), _mm512_setzero_ps())...};
    for (int64_t p = 0; p < pairs; p++) {
        const __m512i low = _mm512_loadu_si512(keys + p * BLOCK);
        const __m512i high = _mm512_loadu_si512(keys + ((B - 1) * pairs + p) * BLOCK);
        (add_pairs(first[Q], low, queries[Q * stride + p]), ...);
        if (B == 2) (add_pairs(second[Q], high, queries[Q * stride + p]), ...);
    }
    const __m512 by = _mm512_set1_ps(scale);
    (_mm512_storeu_ps(scores + Q * padded, _mm512_mul_ps(first[Q], by)), ...);
    if (B == 2) (_mm512_storeu_ps(scores + Q * padded + BLOCK, _mm512_mul_ps(second[Q], by)), ...);
}

// 32 elements of `count` values, `stride` elements apart, weighted for Q queries and added to `out` (Q rows). The next
// 32 are read into the cache meanwhile.
template <int... Q>
AVX512_BF16 void weigh_pairs(const uint32_t* weights, int64_t padded, const uint16_t* values, int64_t count,
                             int64_t stride, float* out, int64_t out_stride, std::integer_sequence<int, Q...>) {
    __m512 low[] = {(static_cast<void>(Q), _mm512_setzero_ps())...};
    __m512 high[] = {(static_cast<void>(Q), _mm512_setzero_ps())...};
    for (int64_t k = 0; k < count; k += 2) {
        const __m512i a = _mm512_loadu_si512(values + k * stride);
        const __m512i b = k + 1 < count ? _mm512_loadu_si512(values + (k + 1) * stride) : _mm512_setzero_si512();
        const __m512i l = _mm512_unpacklo_epi16(a, b), h = _mm512_unpackhi_epi16(a, b);
        _mm_prefetch(values + k * stride + 2 * BLOCK, _MM_HINT_T1);
        _mm_prefetch(values + (k + 1) * stride + 2 * BLOCK, _MM_HINT_T1);
        ((add_pairs(low[Q], l, weights[Q * padded + k / 2]), add_pairs(high[Q], h, weights[Q * padded + k / 2])), ...);
    }
    // `low` has elements 0 to 3, 8 to 11, 16 to 19 and 24 to 27, `high` the others.
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const auto add = [](float* to, __m512 more) AVX512_BF16 {
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), more));
    };
    (add(out + Q * out_stride, _mm512_permutex2var_ps(low[Q], first, high[Q])), ...);
    (add(out + Q * out_stride + BLOCK, _mm512_permutex2var_ps(low[Q], second, high[Q])), ...);
}

bool has_pairs() {
    static const bool found = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
    return found;
}
#else
float softmax_pairs(float*, int64_t, void*) { return 0; }
#endif

// Calls some(first, number) for `count` queries, ten, five or one at a time.
template <typename Some>
void in_turns(int64_t count, const Some& some) {
    int64_t f = 0;
    for (; f + 10 <= count; f += 10) some(f, std::make_integer_sequence<int, 10>{});
    for (; f + 5 <= count; f += 5) some(f, std::make_integer_sequence<int, 5>{});
    for (; f < count; f++) some(f, std::make_integer_sequence<int, 1>{});
}

// `attend` over rings of one type.
template <typename Element>
struct Attention {
    Element *keys, *values;  // (slots, entries, heads * width)
    int64_t frames, heads, width, entries;
    float scale;
    bool by_pairs;
    std::vector<float> wide_queries, scores, of_heads, by;
    std::vector<Element> queries, weights;  // (frames, heads * width), (HEADS * frames, padded)
    std::vector<int32_t> offset;

    Attention(const Tensor& keys, const Tensor& values, int64_t frames, int64_t heads, double scale)
        : keys(keys.mutable_data_ptr<Element>()),
          values(values.mutable_data_ptr<Element>()),
          frames(frames),
          heads(heads),
          width(keys.size(2) / heads),
          entries(keys.size(1)),
          scale(scale),
          by_pairs(false),
          wide_queries(frames * heads * width),
          scores(HEADS * frames * padded()),
          of_heads(HEADS * width * VALUES),
          by(HEADS * frames),
          queries(frames * heads * width),
          weights(HEADS * frames * padded()),
          offset(padded()) {
        TORCH_CHECK(keys.is_contiguous() && values.is_contiguous(), "expected contiguous rings");
#if defined(__x86_64__)
        by_pairs = std::is_same_v<Element, at::BFloat16> && width % (2 * BLOCK) == 0 && has_pairs();
#endif
    }

    int64_t all() const { return heads * width; }
    int64_t context() const { return entries - frames; }
    int64_t padded() const { return (entries + BLOCK - 1) / BLOCK * BLOCK + 3 * BLOCK; }

    // A row's frame (query, key, value) -> its place in the ring of `slot`.
    void put(const float* window, int64_t frame, int64_t slot, int64_t place) const {
        narrow(window + (3 * frame + 1) * all(), all(), keys + (slot * entries + place) * all());
        narrow(window + (3 * frame + 2) * all(), all(), values + (slot * entries + place) * all());
    }

    // Some heads of a slot; `ring` keys are in the ring, those of the window have the numbers from `start` to `end`.
    struct Some {
        int64_t first, heads, slot, ring, start, end;
    };

    // Calls step(number of the first key, count, its place) for `most` keys at a time, first those of the ring. A full
    // ring and the window are contiguous.
    template <typename Step>
    void walk(const Some& of, int64_t most, const Step& step) const {
        const int64_t here = of.slot * entries * all() + of.first * width;
        const int64_t before = of.ring == context() ? of.end : of.ring;
        for (int64_t k = 0, some; k < before; k += some) {
            some = std::min(most, before - k);
            step(k, some, here + k * all());
        }
        for (int64_t k = of.start, some; before < of.end && k < of.end; k += some) {
            some = std::min(most, of.end - k);
            step(k, some, here + (context() + k - of.start) * all());
        }
    }

    // window (F, 3 * H * D) -> to (F, H * D), zeros before, by what exists: `ring` committed keys and `exist` of the
    // window. biases (H, F, distances) or null.
    void operator()(const float* window, int64_t slot, int64_t position, int64_t ring, int64_t exist,
                    const float* biases, int64_t distances, int64_t left, float* to) {
        const int64_t start = ring == context() ? ring : (ring + BLOCK - 1) / BLOCK * BLOCK, end = start + exist;
        for (int64_t k = 0; biases && k < end; k++)  // frames from the window's first
            offset[k] = k < ring ? -1 - (position - 1 - k) % context() : k - start;
        for (int64_t f = 0; f < frames; f++) {
            narrow(window + f * 3 * all(), all(), &queries[f * all()]);
            if (!by_pairs) widen(&queries[f * all()], all(), &wide_queries[f * all()]);
        }
        for (int64_t head = 0; head < heads; head += HEADS) {
            const Some of{head, std::min<int64_t>(HEADS, heads - head), slot, ring, start, end};
            by_pairs ? score_by_pairs(of) : score(of);
            for (int64_t i = 0; i < of.heads * frames; i++) {
                float* mine = &scores[i * padded()];
                const float* bias = biases + (head * frames + i) * distances;
                for (int64_t k = 0; biases && k < end; k++)
                    mine[k] += bias[std::clamp<int64_t>(offset[k] - i % frames + left, 0, distances - 1)];
                std::fill(mine + ring, mine + start, -INFINITY);
                by[i] = by_pairs ? softmax_pairs(mine, end, &weights[i * padded()]) : softmax(mine, end);
                if (by_pairs || std::is_same_v<Element, float>) continue;
                narrow(mine, end, &weights[i * padded()]);  // rounds as bfloat16
                widen(&weights[i * padded()], end, mine);
            }
            by_pairs ? weigh_by_pairs(of, to) : weigh(of, to);
            for (int64_t i = 0; i < of.heads * frames; i++) {
                float* out = to + i % frames * all() + (head + i / frames) * width;
                for (int64_t d = 0; d < width; d++) out[d] *= by[i];
            }
        }
    }

    void score(const Some& of) {
        walk(of, KEYS, [&](int64_t k, int64_t some, int64_t row) {
            by_head(keys + row, some, all(), of.heads, width, KEYS, of_heads.data());
            for (int64_t head = 0; head < of.heads; head++)
                for (int64_t f = 0; f < frames; f++) {
                    const float* query = &wide_queries[f * all() + (of.first + head) * width];
                    const Lanes eight = ::score(query, width, &of_heads[head * KEYS * width]) * scale;
                    store(&scores[(head * frames + f) * padded() + k], eight);  // what is too many is overwritten
                }
        });
    }

    void weigh(const Some& of, float* to) {
        walk(of, VALUES, [&](int64_t k, int64_t some, int64_t row) {
            by_head(values + row, some, all(), of.heads, width, VALUES, of_heads.data());
            for (int64_t head = 0; head < of.heads; head++) {
                const float *weights = &scores[head * frames * padded() + k], *from = &of_heads[head * VALUES * width];
                float* out = to + (of.first + head) * width;
                int64_t f = 0;
                for (; f + 5 <= frames; f += 5)
                    ::weigh<5>(weights + f * padded(), padded(), from, some, width, out + f * all(), all());
                for (; f < frames; f++)
                    ::weigh<1>(weights + f * padded(), padded(), from, some, width, out + f * all(), all());
            }
        });
    }

#if defined(__x86_64__)
    // Some keys of a head, at most 2 * BLOCK -> `columns` (2, D / 2, 16). As many more are read into the cache meanwhile.
    AVX512_BF16 void transpose_keys(const Element* from, int64_t some, uint32_t* columns) const {
        for (int64_t k = 0; k < some; k += BLOCK)
            for (int64_t d = 0; d < width; d += 2 * BLOCK) {
                __m512i rows[BLOCK];
                for (int64_t i = 0; i < BLOCK; i++) {
                    const int64_t at = (k + i) * all() + d;
                    rows[i] = k + i < some ? _mm512_loadu_si512(from + at) : _mm512_setzero_si512();
                    _mm_prefetch(from + at + 2 * BLOCK * all(), _MM_HINT_T1);
                }
                transpose(rows);
                for (int64_t i = 0; i < BLOCK; i++)
                    _mm512_storeu_si512(columns + ((k * width + d * BLOCK) / 2 + i * BLOCK), rows[i]);
            }
    }

    AVX512_BF16 void score_by_pairs(const Some& of) {
        const auto* pairs = reinterpret_cast<const uint32_t*>(queries.data());
        auto* columns = reinterpret_cast<uint32_t*>(of_heads.data());
        walk(of, 2 * BLOCK, [&](int64_t k, int64_t some, int64_t row) AVX512_BF16 {
            for (int64_t head = 0; head < of.heads; head++) {
                transpose_keys(keys + row + head * width, some, columns);
                in_turns(frames, [&](int64_t f, auto number) AVX512_BF16 {
                    const uint32_t* query = pairs + (f * all() + (of.first + head) * width) / 2;
                    float* to = &scores[(head * frames + f) * padded() + k];
                    if (some > BLOCK)
                        score_pairs<2>(columns, width / 2, query, all() / 2, scale, to, padded(), number);
                    else
                        score_pairs<1>(columns, width / 2, query, all() / 2, scale, to, padded(), number);
                });
            }
        });
    }

    AVX512_BF16 void weigh_by_pairs(const Some& of, float* to) {
        const auto* pairs = reinterpret_cast<const uint32_t*>(weights.data());
        const auto* from = reinterpret_cast<const uint16_t*>(values);
        for (int64_t head = 0; head < of.heads; head++)
            for (int64_t d = 0; d < width; d += 2 * BLOCK)
                walk(of, of.end, [&](int64_t k, int64_t some, int64_t row) AVX512_BF16 {
                    in_turns(frames, [&](int64_t f, auto number) AVX512_BF16 {
                        const int64_t at = row + head * width + d;
                        weigh_pairs(pairs + ((head * frames + f) * padded() + k) / 2, padded() / 2, from + at, some,
                                    all(), to + f * all() + (of.first + head) * width + d, all(), number);
                    });
                });
    }
#else
    void score_by_pairs(const Some&) {}
    void weigh_by_pairs(const Some&, float*) {}
#endif
};

// query_key_value (B, F, 3 * H * D) -> (B, F, H * D); keys and values (slots, context + F, H * D), float32 or bfloat16,
// advance. by_distance (B, H, F, distances) is added to the scores, that of distance 0 being element `left` of it. D is
// a multiple of 16.
template <typename Element>
Tensor attend_over(const Tensor& query_key_value, const Tensor& keys, const Tensor& values, const Rows& rows,
                   int64_t heads, double scale, const std::optional<Tensor>& by_distance, int64_t left) {
    const int64_t frames = query_key_value.size(1), distances = by_distance ? by_distance->size(3) : 0;
    Attention<Element> attention(keys, values, frames, heads, scale);
    const int64_t all = attention.all(), context = attention.context();
    TORCH_CHECK(attention.width % (2 * WIDE) == 0, "expected heads of a multiple of 16, not of ", attention.width);
    const float* const biases = by_distance ? floats(*by_distance) : nullptr;
    Tensor out = at::zeros({query_key_value.size(0), frames, all}, query_key_value.options());
    for (int64_t row = 0; row < query_key_value.size(0); row++) {
        const int64_t at = rows.position[row], slot = rows.slots[row], committed = rows.commit[row];
        const float* window = floats(query_key_value) + row * frames * 3 * all;
        for (int64_t frame = 0; frame < frames; frame++) attention.put(window, frame, slot, context + frame);
        const int64_t ring = std::min(at, context);
        attention(window, slot, at, ring, std::clamp<int64_t>(rows.valid[row], 1, frames),
                  biases ? biases + row * heads * frames * distances : nullptr, distances, left,
                  out.mutable_data_ptr<float>() + row * frames * all);
        for (int64_t frame = std::max<int64_t>(0, committed - context); frame < committed; frame++)
            attention.put(window, frame, slot, (at + frame) % context);
    }
    return out;
}

Tensor attend(const Tensor& query_key_value, const Tensor& keys, const Tensor& values, const Tensor& slots,
              const Tensor& position, const Tensor& valid, const Tensor& commit, int64_t heads, double scale,
              const std::optional<Tensor>& by_distance, int64_t left) {
    const Rows rows(slots, position, valid, commit);
    const auto over = keys.scalar_type() == at::kBFloat16 ? attend_over<at::BFloat16> : attend_over<float>;
    return over(query_key_value, keys, values, rows, heads, scale, by_distance, left);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(neucodec, m) {
    m.def(
        "attend(Tensor query_key_value, Tensor(a!) keys, Tensor(b!) values, Tensor slots, Tensor position, "
        "Tensor valid, Tensor commit, int heads, float scale, Tensor? by_distance, int left) -> Tensor");
}

TORCH_LIBRARY_IMPL(neucodec, CPU, m) { m.impl("attend", attend); }
