// Linear layers and convolutions with int8 weights and int8 activations, accumulated in int32: products that read a
// quarter of the bytes.
//
// A weight is quantised per output channel, an activation per row of channels (never per tensor: a row's bits depend on
// that row alone). Integer sums are exact, so every instruction set gives the same bits. Weights are stored as w + 128,
// since the dot-product instructions of x86 multiply unsigned by signed bytes; 128 times the sum of a row is taken off
// again. A convolution is a product for each of its taps; a linear layer has one tap. One thread: a second one gained a
// fifth on an idle machine, and cost three quarters beside another program.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "int8_products.h"

namespace {

constexpr int AHEAD_BYTES = 8192;
constexpr int WIDE_ROW_BYTES = 512;

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A scale, and the sum of the quantised values.
struct Scaled {
    float scale;
    int32_t sum;
};

// The quantised values of one row or channel: a value is at most 127 scales.
Scaled quantise(const float* from, int64_t count, int8_t* to) {
    int32_t largest_bits = 0;  // floats of one sign are ordered as their bits are, and integers have vector maxima
    for (int64_t k = 0; k < count; k++) {
        int32_t bits;
        std::memcpy(&bits, from + k, sizeof(bits));
        largest_bits = std::max(largest_bits, bits & 0x7FFFFFFF);
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof(largest));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int32_t sum = 0;
    for (int64_t k = 0; k < count; k++) {
        const auto value = static_cast<int32_t>(std::rint(from[k] * inverse));
        to[k] = static_cast<int8_t>(value);
        sum += value;
    }
    return {largest / 127.0f, sum};
}

// weight (N, taps, C) -> packed (panels, taps, C / 4, 32, 4) uint8, and scales (panels * 32,); channels beyond N have
// scale 0.
void pack(const Tensor& weight, Tensor& packed, Tensor& scales) {
    const int64_t width = weight.size(0), taps = weight.size(1), depth = weight.size(2), groups = packed.size(2);
    TORCH_CHECK(packed.is_contiguous() && packed.size(0) == rounded_up(width, PANEL) / PANEL &&
                    packed.size(1) == taps && groups == rounded_up(depth, GROUP) / GROUP,
                "expected packed weights of another shape");
    uint8_t* to = packed.mutable_data_ptr<uint8_t>();
    std::memset(to, OFFSET, packed.numel());
    std::fill_n(scales.mutable_data_ptr<float>(), scales.numel(), 0.0f);
    std::vector<int8_t> channel(taps * depth);
    for (int64_t n = 0; n < width; n++) {
        scales.mutable_data_ptr<float>()[n] =
            quantise(floats(weight) + n * taps * depth, taps * depth, channel.data()).scale;
        for (int64_t tap = 0; tap < taps; tap++) {
            uint8_t* panel = to + (n / PANEL * taps + tap) * groups * PANEL * GROUP + n % PANEL * GROUP;
            for (int64_t k = 0; k < depth; k++)
                panel[k / GROUP * PANEL * GROUP + k % GROUP] = static_cast<uint8_t>(channel[tap * depth + k] + OFFSET);
        }
    }
}

// Rows of activations as int8, `bytes` apart.
struct Quantised {
    int64_t depth, bytes;
    std::unique_ptr<int8_t[]> values;
    std::unique_ptr<float[]> scale;
    std::unique_ptr<int32_t[]> excess;  // what the offset of the weights adds

    Quantised(int64_t rows, int64_t depth)
        : depth(depth),
          // Wide rows begin in different sets of the cache.
          bytes(depth < WIDE_ROW_BYTES ? rounded_up(depth, GROUP) : rounded_up(depth, LINE_BYTES) + LINE_BYTES),
          values(new int8_t[rows * bytes + LINE_BYTES]),
          scale(new float[rows]),
          excess(new int32_t[rows]) {}

    void put(int64_t row, const float* from) const {
        int8_t* to = &values[row * bytes];
        const Scaled scaled = quantise(from, depth, to);
        std::memset(to + depth, 0, rounded_up(depth, GROUP) - depth);
        scale[row] = scaled.scale;
        excess[row] = OFFSET * scaled.sum;
    }

    void put_zero(int64_t row) const {
        std::memset(&values[row * bytes], 0, rounded_up(depth, GROUP));
        scale[row] = 0;
        excess[row] = 0;
    }
};

// A layer's packed weights; bias may be null.
struct Weights {
    const uint8_t* packed;
    const float *scale, *bias;
    int64_t panels, taps, bytes, width;  // `bytes`: of a panel's tap
    bool with_silu;                      // of the outputs

    Weights(const Tensor& packed, const Tensor& scales, const std::optional<Tensor>& bias, int64_t width,
            bool with_silu = false)
        : packed(packed.const_data_ptr<uint8_t>()),
          scale(floats(scales)),
          bias(bias ? floats(*bias) : nullptr),
          panels(packed.size(0)),
          taps(packed.size(1)),
          bytes(packed.size(2) * PANEL * GROUP),
          width(width),
          with_silu(with_silu) {
        TORCH_CHECK(packed.is_contiguous(), "expected contiguous packed weights");
    }
};

// Which rows outputs read: `spans` of `length` rows, each of which gives `outputs`.
struct Walk {
    int64_t spans, length, outputs, stride, dilation;
};

// `count` outputs of one panel, from the activations' row `first` on -> out, `width` apart. It is the `turn`-th of
// `turns` with these weights, each of which reads a share of the next panel's ahead.
void multiply_some(const Instructions& by, const Weights& weights, const Quantised& x, const Walk& walk, int64_t panel,
                   int64_t first, int64_t count, int64_t turn, int64_t turns, float* out) {
    alignas(LINE_BYTES) float total[MAX_ROWS * PANEL], narrow[MAX_ROWS * PANEL], bias[PANEL] = {};
    const int64_t channels = std::min<int64_t>(PANEL, weights.width - panel * PANEL);
    if (weights.bias) std::memcpy(bias, weights.bias + panel * PANEL, channels * sizeof(float));
    const bool is_whole = channels == PANEL;
    const Outputs to{weights.scale + panel * PANEL, bias, weights.with_silu, is_whole ? out : narrow,
                     is_whole ? weights.width : PANEL};
    const int64_t panel_bytes = weights.taps * weights.bytes;
    const int64_t ahead = turns == 1 ? AHEAD_BYTES : panel_bytes + weights.bytes * turn / turns;
    for (int64_t tap = 0; tap < weights.taps; tap++) {
        const int64_t row = first + tap * walk.dilation;
        const uint8_t* packed = weights.packed + (panel * weights.taps + tap) * weights.bytes;
        by.multiply[count]({&x.values[row * x.bytes], walk.stride * x.bytes, rounded_up(x.depth, GROUP), packed,
                            &x.excess[row], &x.scale[row], walk.stride, tap == 0,
                            tap + 1 == weights.taps ? &to : nullptr,
                            packed + ahead, rounded_up(PANEL * GROUP, turns) / turns},
                           total);
    }
    for (int64_t r = 0; !is_whole && r < count; r++)
        std::memcpy(out + r * weights.width, narrow + r * PANEL, channels * sizeof(float));
}

// All outputs (spans, outputs, width); weights are read once.
void multiply_all(const Instructions& by, const Weights& weights, const Quantised& x, const Walk& walk, float* out) {
    const int64_t turns = (walk.outputs + by.rows - 1) / by.rows;  // a span
    for (int64_t panel = 0; panel < weights.panels; panel++)
        for (int64_t turn = 0; turn < walk.spans * turns; turn++) {
            const int64_t span = turn / turns, of_span = turn % turns;
            // Even shares, so that no turn is left with a single row.
            const int64_t output = walk.outputs * of_span / turns;
            const int64_t some = walk.outputs * (of_span + 1) / turns - output;
            multiply_some(by, weights, x, walk, panel, span * walk.length + output * walk.stride, some, turn,
                          walk.spans * turns, out + (span * walk.outputs + output) * weights.width + panel * PANEL);
        }
}

// x (..., C) -> (..., N) by a packed weight of one tap, its scales, and bias (N,). `instructions` names a set, for tests.
Tensor linear(const Tensor& input, const Tensor& packed, const Tensor& scales, const std::optional<Tensor>& bias,
              int64_t width, bool with_silu, std::optional<c10::string_view> instructions) {
    const Tensor x = input.contiguous();
    const int64_t depth = x.size(-1), rows = x.numel() / depth;
    const Weights weights(packed, scales, bias, width, with_silu);
    TORCH_CHECK(weights.taps == 1 && rounded_up(depth, GROUP) == packed.size(2) * GROUP, "expected rows of ",
                packed.size(2) * GROUP, " values, not of ", depth);
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = width;
    Tensor y = at::empty(sizes, x.options());
    const Quantised quantised(rows, depth);
    const float* from = floats(x);
    for (int64_t row = 0; row < rows; row++) quantised.put(row, from + row * depth);
    multiply_all(chosen(instructions), weights, quantised, {1, rows, rows, 1, 1}, y.mutable_data_ptr<float>());
    return y;
}

// x (B, T, C) -> (B, T / stride, N) with the past before it and zeros behind what exists; past (slots, left, C)
// advances. The arguments are those of native.cpp's `convolve`, but for the weight.
Tensor convolve(const Tensor& input, const Tensor& past, const Tensor& slots, const Tensor& valid, const Tensor& commit,
                int64_t unit, int64_t right, const Tensor& packed, const Tensor& scales,
                const std::optional<Tensor>& bias, int64_t width, int64_t stride, int64_t dilation,
                std::optional<c10::string_view> instructions) {
    const Tensor x = input.contiguous();
    const int64_t spans = x.size(0), length = x.size(1), channels = x.size(2), left = past.size(1);
    const Weights weights(packed, scales, bias, width);
    TORCH_CHECK(rounded_up(channels, GROUP) == packed.size(2) * GROUP, "expected ", packed.size(2) * GROUP,
                " channels, not ", channels);
    const int64_t span = left + length + right;
    const int64_t outputs = (span - (weights.taps - 1) * dilation - 1) / stride + 1;
    Tensor y = at::empty({spans, outputs, width}, x.options());
    const Quantised quantised(spans * span, channels);
    const float* const window = floats(x);
    float* const held = const_cast<float*>(floats(past));
    const int64_t *const slot = whole_numbers(slots), *const exist = whole_numbers(valid);
    for (int64_t row = 0; row < spans * span; row++) {
        const int64_t of = row / span, at = row % span - left;
        if (at < 0)
            quantised.put(row, held + (slot[of] * left + left + at) * channels);
        else if (at < std::min(exist[of] * unit, length))
            quantised.put(row, window + (of * length + at) * channels);
        else
            quantised.put_zero(row);
    }
    for (int64_t of = 0; of < spans; of++) {  // the `left` rows before the committed border
        const int64_t committed = whole_numbers(commit)[of] * unit, stay = std::max<int64_t>(0, left - committed);
        float* to = held + slot[of] * left * channels;
        std::memmove(to, to + (left - stay) * channels, stay * channels * sizeof(float));
        std::memcpy(to + stay * channels, window + (of * length + committed - (left - stay)) * channels,
                    (left - stay) * channels * sizeof(float));
    }
    multiply_all(chosen(instructions), weights, quantised, {spans, span, outputs, stride, dilation},
                 y.mutable_data_ptr<float>());
    return y;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Instructions& set : known()) names.emplace_back(set.name);
    return names;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(neucodec, m) {
    m.def("pack_int8(Tensor weight, Tensor(a!) packed, Tensor(b!) scales) -> ()");
    m.def(
        "linear_int8(Tensor x, Tensor packed, Tensor scales, Tensor? bias, int width, bool silu=False, "
        "str? instructions=None) -> Tensor");
    m.def(
        "convolve_int8(Tensor x, Tensor(a!) past, Tensor slots, Tensor valid, Tensor commit, int unit, int right, "
        "Tensor packed, Tensor scales, Tensor? bias, int width, int stride, int dilation, str? instructions=None) "
        "-> Tensor");
    m.def("int8_instruction_sets() -> str[]", instruction_sets);
}

TORCH_LIBRARY_IMPL(neucodec, CPU, m) {
    m.impl("pack_int8", pack);
    m.impl("linear_int8", linear);
    m.impl("convolve_int8", convolve);
}
