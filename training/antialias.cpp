// The anti-aliased SnakeBeta of NeuCodec and its gradients, one row (channel) at a time: see antialias.py.
//
// The doubled signal is stored as its even and odd samples, so that each 12-tap filter is a sum of six shifted copies.
// All values are float32; each call allocates only a scratch buffer of a few rows.
#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr float PI = 3.14159265358979f;
constexpr long EDGE = 3;   // reach of a filter beyond the signal, in samples at the signal's rate
constexpr long APART = 6;  // padding on both sides of a gradient, for the adjoint of a filter

struct Filter {
    float even[6], odd[6];  // taps for the even and the odd doubled samples, in time order
};

// sin(a x) and cos(a x) with the same unknown sign: only their squares and product are used.
inline void half_turn(float ax, float& sine, float& cosine) {
    const float turns = ax * (1.0f / PI);
    const float z = (turns - std::rint(turns)) * PI, w = z * z;  // |z| <= pi / 2: the Taylor series are accurate to 1e-7
    sine = z * (1.0f + w * (-1.0f / 6 + w * (1.0f / 120 + w * (-1.0f / 5040 + w * (1.0f / 362880 - w / 39916800)))));
    cosine = 1.0f + w * (-0.5f + w * (1.0f / 24 + w * (-1.0f / 720 + w * (1.0f / 40320 + w * (-1.0f / 3628800 + w / 479001600)))));
}

inline float weigh(const float* taps, const float* x) {
    return taps[0] * x[0] + taps[1] * x[1] + taps[2] * x[2] + taps[3] * x[3] + taps[4] * x[4] + taps[5] * x[5];
}

inline float weigh_back(const float* taps, const float* x) {
    return taps[5] * x[0] + taps[4] * x[1] + taps[3] * x[2] + taps[2] * x[3] + taps[1] * x[4] + taps[0] * x[5];
}

void replicate(const float* x, float* padded, long samples) {
    std::memcpy(padded + EDGE, x, samples * sizeof(float));
    for (long i = 0; i < EDGE; i++) padded[i] = x[0], padded[EDGE + samples + i] = x[samples - 1];
}

void fold(float* padded, long samples) {
    for (long i = 0; i < EDGE; i++) {
        padded[EDGE] += padded[i];
        padded[EDGE + samples - 1] += padded[EDGE + samples + i];
    }
}

Filter doubling(const float* taps) {
    Filter made;
    for (int i = 0; i < 6; i++) made.even[i] = 2.0f * taps[2 * i], made.odd[i] = 2.0f * taps[2 * i + 1];
    return made;
}

Filter halving(const float* taps) {
    Filter made;
    for (int i = 0; i < 6; i++) made.even[i] = taps[2 * i + 1], made.odd[i] = taps[2 * i];
    return made;
}

}  // namespace

extern "C" {

// x, y (rows, samples); a, inverse (channels), rows in the order of the batch; taps (12), symmetric.
void snake(const float* x, float* y, const float* a, const float* inverse, const float* taps, long rows, long channels,
           long samples) {
    const Filter up = doubling(taps), down = halving(taps);
    std::vector<float> room(3 * (samples + 2 * EDGE));
    float *padded = room.data(), *even = padded + samples + 2 * EDGE, *odd = even + samples + 2 * EDGE;
    for (long row = 0; row < rows; row++) {
        const float rate = a[row % channels], gain = inverse[row % channels];
        replicate(x + row * samples, padded, samples);
        for (long t = 0; t < samples; t++) {
            const float e = weigh(up.even, padded + t), o = weigh(up.odd, padded + t + 1);
            float sine, cosine;
            half_turn(e * rate, sine, cosine);
            even[EDGE + t] = e + gain * sine * sine;
            half_turn(o * rate, sine, cosine);
            odd[EDGE + t] = o + gain * sine * sine;
        }
        for (long i = 0; i < EDGE; i++) {
            even[i] = odd[i] = even[EDGE];
            even[EDGE + samples + i] = odd[EDGE + samples + i] = odd[EDGE + samples - 1];
        }
        float* out = y + row * samples;
        for (long t = 0; t < samples; t++) out[t] = weigh(down.even, even + t + 1) + weigh(down.odd, odd + t);
    }
}

// Gradients with respect to x (rows, samples), and per row to log alpha and log beta.
void snake_backward(const float* x, const float* grad, float* grad_x, float* grad_alpha, float* grad_beta, const float* a,
                    const float* inverse, const float* taps, long rows, long channels, long samples) {
    const Filter up = doubling(taps), down = halving(taps);
    const long wide = samples + 2 * EDGE, wider = samples + 2 * APART;
    std::vector<float> room(4 * wider + 3 * wide, 0.0f);
    float *padded = room.data(), *given = padded + wide, *even = given + wider, *odd = even + wider;
    float* spread = odd + wider;
    for (long row = 0; row < rows; row++) {
        const float rate = a[row % channels], gain = inverse[row % channels];
        replicate(x + row * samples, padded, samples);
        std::memcpy(given + APART, grad + row * samples, samples * sizeof(float));
        // even and odd start EDGE samples before the signal, at index APART - EDGE
        float *e = even + APART - EDGE, *o = odd + APART - EDGE;
        for (long t = 0; t < wide; t++) {
            e[t] = weigh_back(down.even, given + t);
            o[t] = weigh_back(down.odd, given + t + 1);
        }
        for (long i = 0; i < EDGE; i++) {
            e[EDGE] += e[i] + o[i];
            o[EDGE + samples - 1] += e[EDGE + samples + i] + o[EDGE + samples + i];
            e[i] = o[i] = e[EDGE + samples + i] = o[EDGE + samples + i] = 0.0f;
        }
        float sum_alpha = 0.0f, sum_beta = 0.0f;
        const float slope = 2.0f * rate * gain;
        for (long t = 0; t < samples; t++) {
            const float before_e = weigh(up.even, padded + t), before_o = weigh(up.odd, padded + t + 1);
            const float grad_e = even[APART + t], grad_o = odd[APART + t];
            float sine, cosine;
            half_turn(before_e * rate, sine, cosine);
            even[APART + t] = grad_e * (1.0f + slope * sine * cosine);
            sum_alpha += grad_e * sine * cosine * before_e;
            sum_beta += grad_e * sine * sine;
            half_turn(before_o * rate, sine, cosine);
            odd[APART + t] = grad_o * (1.0f + slope * sine * cosine);
            sum_alpha += grad_o * sine * cosine * before_o;
            sum_beta += grad_o * sine * sine;
        }
        grad_alpha[row] = slope * sum_alpha;
        grad_beta[row] = -gain * sum_beta;
        for (long t = 0; t < wide; t++) spread[t] = weigh_back(up.even, even + t + 1) + weigh_back(up.odd, odd + t);
        fold(spread, samples);
        std::memcpy(grad_x + row * samples, spread + EDGE, samples * sizeof(float));
    }
}
}
