// What the layers do in every step and torch has no single operation for: products of few rows, convolutions,
// anti-aliased SnakeBeta, attention over rings, GroupNorm over the stream. They compute what packed.py, conv.py,
// antialias.py, attention.py and norm.py do with torch's operations, which tests compare; float32, one thread, and a
// row's bits depend on that row alone.
//
// slots, position, valid and commit are int64 (B,), as in step.py's StepPlan; state tensors have the slot axis first.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;

constexpr int WIDE = 8;
typedef float Lanes __attribute__((vector_size(WIDE * sizeof(float)), aligned(alignof(float)), may_alias));
typedef int32_t Ints __attribute__((vector_size(WIDE * sizeof(int32_t)), aligned(alignof(int32_t)), may_alias));

Lanes load(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
void store(float* p, Lanes x) { *reinterpret_cast<Lanes*>(p) = x; }

// With it, the last bits of a number between -2^22 and 2^22 are those of the nearest whole one.
constexpr float SHIFT = 12582912.0f;
constexpr int32_t SHIFT_BITS = 0x4B400000;

// sin(x)^2, whose period is pi: x less its nearest multiple, and a series to r^11.
Lanes squared_sine(Lanes x) {
    const Lanes turns = (x * 0.318309886f + SHIFT) - SHIFT;
    const Lanes r = (x - turns * 3.14159274f) + turns * 8.74227766e-8f;
    const Lanes s = r * r;
    Lanes p = s * -2.50521084e-8f + 2.75573192e-6f;
    p = p * s - 1.98412698e-4f;
    p = p * s + 8.33333333e-3f;
    p = p * s - 1.66666667e-1f;
    const Lanes sine = r + r * s * p;
    return sine * sine;
}

// e^x for x <= 0, and no less than e^-87: 2^n times a series of the rest.
Lanes exponential(Lanes x) {
    x = x < -87.0f ? Lanes{} - 87.0f : x;
    const Lanes shifted = x * 1.44269504f + SHIFT, n = shifted - SHIFT;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const Ints power = (reinterpret_cast<const Ints&>(shifted) - (SHIFT_BITS - 127)) << 23;
    return p * reinterpret_cast<const Lanes&>(power);
}

// The sum of each of eight vectors.
Lanes sums(const Lanes (&a)[8]) {
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

const float* floats(const Tensor& x) {
    TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous(), "expected a contiguous float32 tensor");
    return x.const_data_ptr<float>();
}

float* changed(const Tensor& x) { return const_cast<float*>(floats(x)); }

const int64_t* whole_numbers(const Tensor& x) {
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

// ----------------------------------------------------------------------------------------------------- matrix products

#ifdef __AVX512F__
constexpr int TILE = 16;
#else
constexpr int TILE = 8;
#endif
constexpr int PANEL = 2 * TILE;  // columns of a product that are computed at a time
typedef float Tile __attribute__((vector_size(TILE * sizeof(float)), aligned(alignof(float)), may_alias));

// weight (N, K) -> (panels, K, PANEL), the last filled up with zeros.
Tensor pack(const Tensor& weight) {
    const int64_t width = weight.size(0), depth = weight.size(1);
    const float* from = floats(weight);
    Tensor panels = at::zeros({(width + PANEL - 1) / PANEL, depth, PANEL}, weight.options());
    float* to = panels.mutable_data_ptr<float>();
    for (int64_t n = 0; n < width; n++)
        for (int64_t k = 0; k < depth; k++) to[(n / PANEL * depth + k) * PANEL + n % PANEL] = from[n * depth + k];
    return panels;
}

// R rows of a product, one panel: x (R, K) -> out, of which the first `columns` are meant.
template <int R>
void multiply(const float* x, int64_t depth, const float* panel, const float* bias, float* out, int64_t width,
              int64_t columns) {
    const auto load = [](const float* p) { return *reinterpret_cast<const Tile*>(p); };
    Tile low[R], high[R];
    for (int r = 0; r < R; r++) {
        low[r] = load(bias);
        high[r] = load(bias + TILE);
    }
    for (int64_t k = 0; k < depth; k++) {
        const Tile l = load(panel + k * PANEL), h = load(panel + k * PANEL + TILE);
        for (int r = 0; r < R; r++) {
            low[r] += l * x[r * depth + k];
            high[r] += h * x[r * depth + k];
        }
    }
    for (int r = 0; r < R; r++) {
        if (columns >= PANEL) {
            *reinterpret_cast<Tile*>(out + r * width) = low[r];
            *reinterpret_cast<Tile*>(out + r * width + TILE) = high[r];
            continue;
        }
        float both[PANEL];
        std::memcpy(both, &low[r], sizeof(Tile));
        std::memcpy(both + TILE, &high[r], sizeof(Tile));
        std::memcpy(out + r * width, both, columns * sizeof(float));
    }
}

// x (..., K) -> (..., N) by a weight in panels and bias (N,). A row's bits do not depend on how many there are.
Tensor linear(const Tensor& input, const Tensor& panels, const std::optional<Tensor>& bias, int64_t width) {
    const Tensor x = input.contiguous();
    const int64_t depth = panels.size(1), rows = x.numel() / depth;
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = width;
    Tensor y = at::empty(sizes, x.options());
    std::vector<float> biases(panels.size(0) * PANEL);
    if (bias) std::memcpy(biases.data(), floats(*bias), width * sizeof(float));
    const float *const from = floats(x), *const weights = floats(panels);
    for (int64_t n = 0; n < width; n += PANEL) {
        const float* panel = weights + n * depth;
        float* out = y.mutable_data_ptr<float>() + n;
        int64_t row = 0;
        for (; row + 5 <= rows; row += 5)
            multiply<5>(from + row * depth, depth, panel, &biases[n], out + row * width, width, width - n);
        for (; row < rows; row++)
            multiply<1>(from + row * depth, depth, panel, &biases[n], out + row * width, width, width - n);
    }
    return y;
}

// -------------------------------------------------------------------------------------------------------- convolutions

// A row's window (T, C) with the past before it and zeros behind what exists; the past takes what is committed.
struct Joined {
    int64_t left, length, channels;
    std::vector<float> values;

    Joined(int64_t left, int64_t length, int64_t right, int64_t channels)
        : left(left), length(length), channels(channels), values((left + length + right) * channels + WIDE) {}

    void fill(const float* window, float* past, int64_t exist, int64_t committed) {
        exist = std::min(exist, length);
        std::memcpy(values.data(), past, left * channels * sizeof(float));
        std::memcpy(&values[left * channels], window, exist * channels * sizeof(float));
        std::fill(values.begin() + (left + exist) * channels, values.end(), 0);
        std::memcpy(past, &values[committed * channels], left * channels * sizeof(float));
    }
};

struct Convolution {
    const float *weight, *bias;  // (kernel, C or 1, wide) and (wide,)
    int64_t kernel, stride, dilation, channels, width, wide;
    bool depthwise;

    // N outputs in a row, of what is read from x on: (N, width). Outputs narrower than a vector are stored as one where
    // others come behind, over what it has too many.
    template <int N>
    void some(const float* x, float* out, bool others_behind) const {
        const int64_t step = stride * channels;
        for (int64_t d = 0; d < width; d += WIDE) {
            Lanes sum[N];
            for (int n = 0; n < N; n++) sum[n] = load(bias + d);
            for (int64_t k = 0; k < kernel; k++) {
                const float* at = x + k * dilation * channels;
                if (depthwise) {
                    const Lanes w = load(weight + k * wide + d);
                    for (int n = 0; n < N; n++) sum[n] += w * load(at + n * step + d);
                }
                for (int64_t c = 0; !depthwise && c < channels; c++) {
                    const Lanes w = load(weight + (k * channels + c) * wide + d);
                    for (int n = 0; n < N; n++) sum[n] += w * at[n * step + c];
                }
            }
            for (int n = 0; n < N; n++)
                if (d + WIDE <= width || (others_behind && width < WIDE))
                    store(out + n * width + d, sum[n]);
                else
                    std::memcpy(out + n * width + d, &sum[n], (width - d) * sizeof(float));
        }
    }

    void all(const float* x, int64_t outputs, float* out) const {
        int64_t o = 0;
        for (; o + 2 * 8 <= outputs; o += 8) some<8>(x + o * stride * channels, out + o * width, true);
        if (outputs >= 8) {
            some<8>(x + o * stride * channels, out + o * width, false);
            o = outputs - 8;  // some twice, to the same bits
            some<8>(x + o * stride * channels, out + o * width, false);
            return;
        }
        for (; o + 4 <= outputs; o += 4) some<4>(x + o * stride * channels, out + o * width, false);
        for (; o < outputs; o++) some<1>(x + o * stride * channels, out + o * width, false);
    }
};

// x (B, T, C) -> (B, T / stride, D); past (slots, left, C) advances. weight (kernel, C, D), or (kernel, 1, D) if
// depthwise, and bias (D,), D filled up to whole vectors with zeros.
Tensor convolve(const Tensor& input, const Tensor& past, const Tensor& slots, const Tensor& valid, const Tensor& commit,
                int64_t unit, int64_t right, const Tensor& weight, const Tensor& bias, int64_t width, int64_t stride,
                int64_t dilation) {
    const Tensor x = input.contiguous();
    const int64_t length = x.size(1), channels = x.size(2), left = past.size(1);
    const int64_t outputs = (left + length + right - (weight.size(0) - 1) * dilation - 1) / stride + 1;
    TORCH_CHECK(weight.size(2) % WIDE == 0 && weight.size(2) >= width, "expected outputs padded to whole vectors");
    const Convolution by{floats(weight), floats(bias), weight.size(0),  stride, dilation,
                         channels,       width,        weight.size(2), weight.size(1) < channels};
    Tensor y = at::empty({x.size(0), outputs, width}, x.options());
    Joined joined(left, length, right, channels);
    for (int64_t row = 0; row < x.size(0); row++) {
        const float* window = floats(x) + row * length * channels;
        float* out = y.mutable_data_ptr<float>() + row * outputs * width;
        if (left + right == 0 && !by.depthwise) {
            by.all(window, outputs, out);
            continue;
        }
        joined.fill(window, changed(past) + whole_numbers(slots)[row] * left * channels,
                    whole_numbers(valid)[row] * unit, whole_numbers(commit)[row] * unit);
        by.all(joined.values.data(), outputs, out);
    }
    return y;
}

// What each output of a convolution reads, side by side: x (B, T, C) -> (B, outputs, kernel * C); past advances.
Tensor columns(const Tensor& input, const Tensor& past, const Tensor& slots, const Tensor& valid, const Tensor& commit,
               int64_t unit, int64_t right, int64_t kernel, int64_t stride, int64_t dilation) {
    const Tensor x = input.contiguous();
    const int64_t length = x.size(1), channels = x.size(2), left = past.size(1);
    const int64_t outputs = (left + length + right - (kernel - 1) * dilation - 1) / stride + 1;
    Tensor y = at::empty({x.size(0), outputs, kernel * channels}, x.options());
    Joined joined(left, length, right, channels);
    for (int64_t row = 0; row < x.size(0); row++) {
        joined.fill(floats(x) + row * length * channels,
                    changed(past) + whole_numbers(slots)[row] * left * channels, whole_numbers(valid)[row] * unit,
                    whole_numbers(commit)[row] * unit);
        float* out = y.mutable_data_ptr<float>() + row * outputs * kernel * channels;
        const int64_t together = dilation == 1 ? kernel : 1;  // elements that lie side by side
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t k = 0; k < kernel; k += together, out += together * channels)
                std::memcpy(out, &joined.values[(o * stride + k * dilation) * channels],
                            together * channels * sizeof(float));
    }
    return y;
}

// ---------------------------------------------------------------------------------------------- anti-aliased SnakeBeta

constexpr int TAPS = 7, SIDE = 3, REACH = 6;  // the first tap or the last is 0

void repeat(float* to, const float* element, int64_t times, int64_t channels) {
    for (int64_t i = 0; i < times; i++) std::memmove(to + i * channels, element, channels * sizeof(float));
}

// x (B, T, C) -> (B, T, C); past (slots, 6, C) advances. up and down (2, 7): taps of even and odd double-rate samples.
Tensor snake(const Tensor& input, const Tensor& past, const Tensor& slots, const Tensor& position, const Tensor& valid,
             const Tensor& commit, int64_t unit, const Tensor& up, const Tensor& down, const Tensor& alpha,
             const Tensor& by_beta) {
    const Rows rows(slots, position, valid, commit);
    const Tensor x = input.contiguous();
    const int64_t length = x.size(1), channels = x.size(2), size = length * channels;
    const int64_t doubled = size + 2 * SIDE * channels;
    Tensor y = at::empty({x.size(0), length, channels}, x.options());
    std::vector<float> joined(size + 2 * REACH * channels + WIDE), even(doubled + WIDE), odd(doubled + WIDE);
    std::vector<float> alphas(channels + WIDE), betas(channels + WIDE);  // as many as a vector may begin and end in
    for (int64_t i = 0; i < channels + WIDE; i++) {
        alphas[i] = floats(alpha)[i % channels];
        betas[i] = floats(by_beta)[i % channels];
    }
    const float *u = floats(up), *d = floats(down);
    for (int64_t row = 0; row < x.size(0); row++) {
        const int64_t at = rows.position[row] * unit, exist = std::min(rows.valid[row] * unit, length);
        float* before = changed(past) + rows.slots[row] * REACH * channels;
        float* window = joined.data() + REACH * channels;
        std::memcpy(window, floats(x) + row * size, size * sizeof(float));
        if (at == 0)
            repeat(joined.data(), window, REACH, channels);
        else
            std::memcpy(joined.data(), before, REACH * channels * sizeof(float));
        std::memcpy(before, joined.data() + rows.commit[row] * unit * channels, REACH * channels * sizeof(float));
        repeat(window + exist * channels, window + (exist - 1) * channels, length + REACH - exist, channels);

        for (int64_t i = 0, phase = 0; i < doubled; i += WIDE, phase = (phase + WIDE) % channels) {
            Lanes e{}, o{};
            for (int k = 0; k < TAPS - 1; k++) {
                e += load(&joined[i + k * channels]) * u[k];
                o += load(&joined[i + (k + 1) * channels]) * u[TAPS + k + 1];
            }
            store(&even[i], e + squared_sine(e * load(&alphas[phase])) * load(&betas[phase]));
            store(&odd[i], o + squared_sine(o * load(&alphas[phase])) * load(&betas[phase]));
        }
        const int64_t first = std::clamp<int64_t>(SIDE - at, 0, SIDE), end = SIDE + exist;
        repeat(odd.data(), &even[first * channels], first, channels);
        repeat(even.data(), &even[first * channels], first, channels);
        repeat(&even[end * channels], &odd[(end - 1) * channels], length + SIDE - exist, channels);
        repeat(&odd[end * channels], &odd[(end - 1) * channels], length + SIDE - exist, channels);

        float* out = y.mutable_data_ptr<float>() + row * size;
        for (int64_t i = 0; i < size; i += WIDE) {
            Lanes sum{};
            for (int k = 0; k < TAPS - 1; k++)
                sum += load(&even[i + (k + 1) * channels]) * d[k + 1] + load(&odd[i + k * channels]) * d[TAPS + k];
            if (i + WIDE <= size)
                store(out + i, sum);
            else
                std::memcpy(out + i, &sum, (size - i) * sizeof(float));
        }
    }
    return y;
}

// ------------------------------------------------------------------------------------------------ attention over rings

constexpr int KEYS = 8, VALUES = 16;  // that are looked at together

void widen(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }

void narrow(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }

void widen(const at::Half* from, int64_t count, float* to) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + WIDE <= count; i += WIDE)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
    for (; i < count; i++) to[i] = from[i];
}

void narrow(const float* from, int64_t count, at::Half* to) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + WIDE <= count; i += WIDE)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < count; i++) to[i] = from[i];
}

// `count` rows (heads * width) of a ring -> those of each head side by side, (heads, some, width). The rows of a head
// by themselves lie 4 KiB apart, where they share few sets of the cache.
template <typename Element>
void by_head(const Element* rows, int64_t count, int64_t heads, int64_t width, int64_t some, float* to) {
    for (int64_t row = 0; row < count; row++)
        for (int64_t head = 0; head < heads; head++) {
            const Element* from = rows + (row * heads + head) * width;
            __builtin_prefetch(from + some * heads * width);
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

// `attend` over rings of one type.
template <typename Element>
struct Attention {
    Element *keys, *values;  // (slots, entries, heads * width)
    int64_t frames, heads, width, entries;
    float scale;
    std::vector<float> scores, of_heads, by;
    std::vector<int32_t> offset;

    Attention(const Tensor& keys, const Tensor& values, int64_t frames, int64_t heads, double scale)
        : keys(keys.mutable_data_ptr<Element>()),
          values(values.mutable_data_ptr<Element>()),
          frames(frames),
          heads(heads),
          width(keys.size(2) / heads),
          entries(keys.size(1)),
          scale(scale),
          scores(heads * frames * padded()),
          of_heads(heads * width * VALUES),
          by(heads * frames),
          offset(entries) {
        TORCH_CHECK(keys.is_contiguous() && values.is_contiguous(), "expected contiguous rings");
    }

    int64_t all() const { return heads * width; }
    int64_t context() const { return entries - frames; }
    int64_t padded() const { return (entries + WIDE - 1) / WIDE * WIDE + KEYS; }

    // A row's frame (query, key, value) -> its place in the ring of `slot`.
    void put(const float* window, int64_t frame, int64_t slot, int64_t place) const {
        narrow(window + (3 * frame + 1) * all(), all(), keys + (slot * entries + place) * all());
        narrow(window + (3 * frame + 2) * all(), all(), values + (slot * entries + place) * all());
    }

    // Calls step(first, count, row of the ring) for `most` of the keys at a time: first those of the ring, then those
    // of the window.
    template <typename Step>
    void walk(int64_t ring, int64_t count, int64_t slot, int64_t most, const Step& step) const {
        for (int64_t k = 0, some; k < count; k += some) {
            some = std::min(most, (k < ring ? ring : count) - k);
            step(k, some, (slot * entries + (k < ring ? k : k - ring + context())) * all());
        }
    }

    // window (F, 3 * H * D) -> to (F, H * D), by what exists: `ring` committed keys and the window's, `count` in all.
    // biases (H, F, distances) or null.
    void operator()(const float* window, int64_t slot, int64_t position, int64_t ring, int64_t count,
                    const float* biases, int64_t distances, int64_t left, float* to) {
        for (int64_t k = 0; biases && k < count; k++)  // frames from the window's first
            offset[k] = k < ring ? -1 - (position - 1 - k) % context() : k - ring;
        // All heads of some keys at a time, so that the rings are read in order.
        walk(ring, count, slot, KEYS, [&](int64_t k, int64_t some, int64_t row) {
            by_head(keys + row, some, heads, width, KEYS, of_heads.data());
            for (int64_t head = 0; head < heads; head++)
                for (int64_t f = 0; f < frames; f++) {
                    const float* query = window + f * 3 * all() + head * width;
                    const Lanes eight = score(query, width, &of_heads[head * KEYS * width]) * scale;
                    store(&scores[(head * frames + f) * padded() + k], eight);  // what is too many is overwritten
                }
        });
        for (int64_t i = 0; i < heads * frames; i++) {
            float* mine = &scores[i * padded()];
            const float* bias = biases + i * distances;
            for (int64_t k = 0; biases && k < count; k++)
                mine[k] += bias[std::clamp<int64_t>(offset[k] - i % frames + left, 0, distances - 1)];
            by[i] = softmax(mine, count);
        }
        walk(ring, count, slot, VALUES, [&](int64_t k, int64_t some, int64_t row) {
            by_head(values + row, some, heads, width, VALUES, of_heads.data());
            for (int64_t head = 0; head < heads; head++) {
                const float *weights = &scores[head * frames * padded() + k], *of = &of_heads[head * VALUES * width];
                int64_t f = 0;
                for (; f + 5 <= frames; f += 5)
                    weigh<5>(weights + f * padded(), padded(), of, some, width, to + f * all() + head * width, all());
                for (; f < frames; f++)
                    weigh<1>(weights + f * padded(), padded(), of, some, width, to + f * all() + head * width, all());
            }
        });
        for (int64_t f = 0; f < frames; f++)
            for (int64_t i = 0; i < all(); i++) to[f * all() + i] *= by[i / width * frames + f];
    }
};

// query_key_value (B, F, 3 * H * D) -> (B, F, H * D); keys and values (slots, context + F, H * D), float32 or float16,
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
        attention(window, slot, at, ring, ring + std::clamp<int64_t>(rows.valid[row], 1, frames),
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
    const auto over = keys.scalar_type() == at::kHalf ? attend_over<at::Half> : attend_over<float>;
    return over(query_key_value, keys, values, rows, heads, scale, by_distance, left);
}

// ------------------------------------------------------------------------------------------ GroupNorm over the stream

// Mean and variance of `count` groups of N in a row.
void moments(const float* x, int64_t count, int64_t width, float* mean, float* variance) {
    int64_t done = 0;
    if (width % WIDE == 0)
        for (; done + 8 <= count; done += 8) {
            const float* group = x + done * width;
            Lanes parts[8]{};
            for (int n = 0; n < 8; n++)
                for (int64_t i = 0; i < width; i += WIDE) parts[n] += load(group + n * width + i);
            const Lanes middle = sums(parts) / float(width);
            for (int n = 0; n < 8; n++) {
                parts[n] = Lanes{};
                for (int64_t i = 0; i < width; i += WIDE) {
                    const Lanes apart = load(group + n * width + i) - middle[n];
                    parts[n] += apart * apart;
                }
            }
            store(mean + done, middle);
            store(variance + done, sums(parts) / float(width));
        }
    for (; done < count; done++) {
        const float* group = x + done * width;
        float sum = 0, squares = 0;
        for (int64_t i = 0; i < width; i++) sum += group[i];
        mean[done] = sum / width;
        for (int64_t i = 0; i < width; i++) squares += (group[i] - mean[done]) * (group[i] - mean[done]);
        variance[done] = squares / width;
    }
}

// Of a prior, the past and each frame: what they have been, side by side, and what they are together.
struct Sets {
    const float *prior_mean, *prior_variance;
    float *mean, *variance;  // of the past, (G,)
    std::vector<float> &frame_means, &frame_variances;  // (F, G)
    int64_t frames, groups;

    // Moments by shares (2 + F,), each (G,).
    void pooled(const float* shares, float* new_mean, float* new_variance) const {
        for (int64_t g = 0; g < groups; g++) new_mean[g] = (prior_mean[g] - mean[g]) * shares[0];
        for (int64_t f = 0; f < frames; f++)
            for (int64_t g = 0; g < groups; g++)
                new_mean[g] += (frame_means[f * groups + g] - mean[g]) * shares[2 + f];
        const auto spread = [&](int64_t g, float of_mean, float of_variance) {
            const float apart = of_mean - mean[g] - new_mean[g];
            return apart * apart + of_variance;
        };
        for (int64_t g = 0; g < groups; g++)
            new_variance[g] = spread(g, prior_mean[g], prior_variance[g]) * shares[0] +
                              spread(g, mean[g], variance[g]) * shares[1];
        for (int64_t f = 0; f < frames; f++)
            for (int64_t g = 0; g < groups; g++) {
                const int64_t i = f * groups + g;
                new_variance[g] += spread(g, frame_means[i], frame_variances[i]) * shares[2 + f];
            }
        for (int64_t g = 0; g < groups; g++) new_mean[g] += mean[g];
    }
};

// x (B, F, C) -> (B, F, C); mean and variance (slots, G) advance. now and kept (B, 2 + F, 1): shares of the prior, the
// past and each frame in what is normalised by, and in what stays.
Tensor group_norm(const Tensor& input, const Tensor& mean, const Tensor& variance, const Tensor& slots,
                  const Tensor& valid, const Tensor& now, const Tensor& kept, const Tensor& prior_mean,
                  const Tensor& prior_variance, const Tensor& weight, const Tensor& bias, double eps) {
    const Tensor x = input.contiguous();
    const int64_t frames = x.size(1), channels = x.size(2), groups = mean.size(1), width = channels / groups;
    const float *const of_weight = floats(weight), *const of_bias = floats(bias);
    Tensor y = at::empty({x.size(0), frames, channels}, x.options());
    std::vector<float> means(frames * groups), variances(frames * groups);
    std::vector<float> now_mean(groups), now_variance(groups), kept_mean(groups), kept_variance(groups);
    std::vector<float> middle(channels), scale(channels);
    for (int64_t row = 0; row < x.size(0); row++) {
        const int64_t slot = whole_numbers(slots)[row], exist = std::min(whole_numbers(valid)[row], frames);
        const float* from = floats(x) + row * frames * channels;
        moments(from, exist * groups, width, means.data(), variances.data());
        std::fill(means.begin() + exist * groups, means.end(), 0);  // finite, and of no weight
        std::fill(variances.begin() + exist * groups, variances.end(), 0);
        float *past_mean = changed(mean) + slot * groups, *past_variance = changed(variance) + slot * groups;
        const Sets sets{floats(prior_mean), floats(prior_variance), past_mean, past_variance, means, variances,
                        frames, groups};
        sets.pooled(floats(now) + row * (2 + frames), now_mean.data(), now_variance.data());
        sets.pooled(floats(kept) + row * (2 + frames), kept_mean.data(), kept_variance.data());
        std::copy(kept_mean.begin(), kept_mean.end(), past_mean);
        std::copy(kept_variance.begin(), kept_variance.end(), past_variance);
        for (int64_t c = 0; c < channels; c++) {
            middle[c] = now_mean[c / width];
            scale[c] = of_weight[c] / std::sqrt(now_variance[c / width] + float(eps));
        }
        float* out = y.mutable_data_ptr<float>() + row * frames * channels;
        for (int64_t f = 0; f < frames; f++)
            for (int64_t c = 0; c < channels; c++) {
                const int64_t i = f * channels + c;
                out[i] = of_bias[c] + ((f < exist ? from[i] : 0) - middle[c]) * scale[c];
            }
    }
    return y;
}

// ----------------------------------------------------------------------------------------------------------- RMSNorm

// x (..., C) over the root of its mean square, times weight (C,).
Tensor rms_norm(const Tensor& input, const Tensor& weight, double eps) {
    const Tensor x = input.contiguous();
    const int64_t channels = x.size(-1), whole = channels / WIDE * WIDE;
    Tensor y = at::empty_like(x);
    const float* scale = floats(weight);
    for (int64_t row = 0; row < x.numel() / channels; row++) {
        const float* from = floats(x) + row * channels;
        float* to = y.mutable_data_ptr<float>() + row * channels;
        Lanes squares{};
        for (int64_t c = 0; c < whole; c += WIDE) squares += load(from + c) * load(from + c);
        float sum = 0;
        for (int n = 0; n < WIDE; n++) sum += squares[n];
        for (int64_t c = whole; c < channels; c++) sum += from[c] * from[c];
        const float by = 1 / std::sqrt(sum / channels + float(eps));
        for (int64_t c = 0; c < channels; c++) to[c] = from[c] * by * scale[c];
    }
    return y;
}

}  // namespace

TORCH_LIBRARY(neucodec, m) {
    m.def("pack(Tensor weight) -> Tensor");
    m.def("linear(Tensor x, Tensor panels, Tensor? bias, int width) -> Tensor");
    m.def(
        "convolve(Tensor x, Tensor(a!) past, Tensor slots, Tensor valid, Tensor commit, int unit, int right, "
        "Tensor weight, Tensor bias, int width, int stride, int dilation) -> Tensor");
    m.def(
        "columns(Tensor x, Tensor(a!) past, Tensor slots, Tensor valid, Tensor commit, int unit, int right, "
        "int kernel, int stride, int dilation) -> Tensor");
    m.def(
        "snake(Tensor x, Tensor(a!) past, Tensor slots, Tensor position, Tensor valid, Tensor commit, int unit, "
        "Tensor up, Tensor down, Tensor alpha, Tensor by_beta) -> Tensor");
    m.def(
        "attend(Tensor query_key_value, Tensor(a!) keys, Tensor(b!) values, Tensor slots, Tensor position, "
        "Tensor valid, Tensor commit, int heads, float scale, Tensor? by_distance, int left) -> Tensor");
    m.def(
        "group_norm(Tensor x, Tensor(a!) mean, Tensor(b!) variance, Tensor slots, Tensor valid, Tensor now, "
        "Tensor kept, Tensor prior_mean, Tensor prior_variance, Tensor weight, Tensor bias, float eps) -> Tensor");
    m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
}

TORCH_LIBRARY_IMPL(neucodec, CPU, m) {
    m.impl("pack", pack);
    m.impl("linear", linear);
    m.impl("convolve", convolve);
    m.impl("columns", columns);
    m.impl("snake", snake);
    m.impl("attend", attend);
    m.impl("group_norm", group_norm);
    m.impl("rms_norm", rms_norm);
}
