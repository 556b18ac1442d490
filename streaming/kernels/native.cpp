// What the layers do in every step and torch has no single operation for: products of few rows, convolutions,
// anti-aliased SnakeBeta, GroupNorm over the stream. They compute what packed.py, conv.py, antialias.py and norm.py do
// with torch's operations, which tests compare; float32, one thread, and a row's bits depend on that row alone.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "common.h"

namespace {

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
    m.impl("group_norm", group_norm);
    m.impl("rms_norm", rms_norm);
}
