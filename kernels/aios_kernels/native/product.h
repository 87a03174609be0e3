// Rows of activations times a weight, eight of its rows (a tile) at a time.
//
// A weight is stored by tiles. FOUR and EIGHT hold codes in groups of 32 along the width; activations are rounded to
// int16 with one scale a group, so the sums are whole numbers. FLOAT and BRAIN (bfloat16) are computed in float32.
// (int8 activations as in llama.cpp are twice as quick with many rows, but their error shows in the tokens.)
// Law: an output depends on its own row and tile alone, in one order of additions, however many rows there are.
#pragma once

#include "simd.h"

namespace aios {

constexpr int GROUP = 32;
// Below this a group of activations counts as zero: the inverse of its scale would not be a number.
constexpr float LEAST_ACTIVATION = 1e-30f;
constexpr int BYTES_AHEAD = 2048;

enum Kind : int32_t { FOUR = 0, EIGHT = 1, FLOAT = 2, BRAIN = 3 };

// A weight [rows, width]; `data` holds ceil(rows / 8) tiles.
// FOUR:  per group 128 bytes of codes, 8 half scales, 8 half minima: weight = scale * code + minimum.
//        Word 2r + i of vector j (of 4) holds, for row r, codes 8j + 2n + i, n = 0 … 3, lowest bits first.
// EIGHT: per group 256 bytes of signed codes, 8 half scales: weight = scale * code. Byte 2r + i of vector j (of 16) is
//        row r, code 2j + i.
// FLOAT, BRAIN: [width, 8].
struct Weight {
    int32_t kind, rows, width, unused;
    const uint8_t* data;

    int tiles() const { return (rows + LANES - 1) / LANES; }
    bool has_codes() const { return kind == FOUR || kind == EIGHT; }
    size_t tile_bytes() const {
        switch (kind) {
            case FOUR: return size_t(width / GROUP) * 160;
            case EIGHT: return size_t(width / GROUP) * 272;
            case BRAIN: return size_t(width) * 16;
            default: return size_t(width) * 32;
        }
    }
};

// Rows [n, width], as floats and as codes with scale and scale * sum of codes for each group.
struct Rows {
    const float* floats;
    const int16_t* codes;
    const float* scales;
    const float* sums;
};

// Round one row of `width` to codes; width is a multiple of GROUP.
inline void encode(const float* x, int width, int16_t* codes, float* scales, float* sums) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int g = 0; g < width / GROUP; ++g, x += GROUP, codes += GROUP) {
        __m256 v[4], most = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_loadu_ps(x + LANES * i);
            most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v[i]));
        }
        const float largest_of = largest(most);
        const bool some = largest_of > LEAST_ACTIVATION;
        const __m256 inverse = _mm256_set1_ps(some ? 32767.0f / largest_of : 0.0f);
        __m256i q[4], total = _mm256_setzero_si256();
        for (int i = 0; i < 4; ++i) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
            total = _mm256_add_epi32(total, q[i]);
        }
        for (int i = 0; i < 4; i += 2) {
            const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[i], q[i + 1]), 0b11011000);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + LANES * i), both);
        }
        scales[g] = some ? largest_of / 32767.0f : 0.0f;
        sums[g] = scales[g] * sum(_mm256_cvtepi32_ps(total));
    }
}

inline __m256i pair(const int16_t* at) {
    int32_t both;
    std::memcpy(&both, at, 4);
    return _mm256_set1_epi32(both);
}

// dots + the sums of the products of neighbouring words.
inline __m256i add_products(__m256i dots, __m256i a, __m256i b) {
#if defined(__AVXVNNI__)
    return _mm256_dpwssd_avx_epi32(dots, a, b);
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpwssd_epi32(dots, a, b);
#else
    return _mm256_add_epi32(dots, _mm256_madd_epi16(a, b));
#endif
}

// Single rows wait for memory: fetch what comes soon, across pages too, where the processor does not on its own.
template <int R>
inline void fetch_ahead(const uint8_t* data, int bytes) {
    if constexpr (R == 1)
        for (int i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(data + BYTES_AHEAD + i), _MM_HINT_T0);
}

// N tiles share what is read of the activations.
template <int R, int N>
inline void four_tiles(const Weight& w, int tile, const Rows& x, int row, __m256 out[R * N]) {
    const int groups = w.width / GROUP;
    const size_t stride = w.tile_bytes();
    const uint8_t* data = w.data + tile * stride;
    const int16_t* codes = x.codes + size_t(row) * w.width;
    const float* scales = x.scales + size_t(row) * groups;
    const float* sums = x.sums + size_t(row) * groups;
    const __m256i nibble = _mm256_set1_epi16(15);
    __m256 total[N][R];
#pragma GCC unroll 16
    for (int i = 0; i < N * R; ++i) total[i / R][i % R] = _mm256_setzero_ps();
    for (int g = 0; g < groups; ++g, data += 160, codes += GROUP) {
        fetch_ahead<R>(data, 160);
        __m256i dots[N][R];
#pragma GCC unroll 16
        for (int i = 0; i < N * R; ++i) dots[i / R][i % R] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            __m256i words[N];
#pragma GCC unroll 2
            for (int t = 0; t < N; ++t)
                words[t] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + t * stride + 32 * j));
#pragma GCC unroll 4
            for (int n = 0; n < 4; ++n) {
                __m256i code[N];
#pragma GCC unroll 2
                for (int t = 0; t < N; ++t) {
                    const __m256i moved = _mm256_srli_epi16(words[t], 4 * n);
                    code[t] = n == 3 ? moved : _mm256_and_si256(moved, nibble);
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const __m256i a = pair(codes + size_t(r) * w.width + 8 * j + 2 * n);
#pragma GCC unroll 2
                    for (int t = 0; t < N; ++t) dots[t][r] = add_products(dots[t][r], code[t], a);
                }
            }
        }
#pragma GCC unroll 2
        for (int t = 0; t < N; ++t) {
            const __m256 scale = half_to_float(data + t * stride + 128), least = half_to_float(data + t * stride + 144);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const size_t at = size_t(r) * groups + g;
                const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(scales[at]));
                total[t][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][r]), step, total[t][r]);
                total[t][r] = _mm256_fmadd_ps(least, _mm256_set1_ps(sums[at]), total[t][r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < N * R; ++i) out[i] = total[i / R][i % R];
}

template <int R>
inline void eight_tile(const Weight& w, int tile, const Rows& x, int row, __m256 out[R]) {
    const int groups = w.width / GROUP;
    const uint8_t* data = w.data + tile * w.tile_bytes();
    const int16_t* codes = x.codes + size_t(row) * w.width;
    const float* scales = x.scales + size_t(row) * groups;
    __m256 total[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_ps();
    for (int g = 0; g < groups; ++g, data += 272, codes += GROUP) {
        fetch_ahead<R>(data, 272);
        __m256i dots[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) dots[r] = _mm256_setzero_si256();
#pragma GCC unroll 16
        for (int j = 0; j < 16; ++j) {
            const __m256i code = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16 * j)));
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
                dots[r] = add_products(dots[r], code, pair(codes + size_t(r) * w.width + 2 * j));
        }
        const __m256 scale = half_to_float(data + 256);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(scales[size_t(r) * groups + g]));
            total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), step, total[r]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) out[r] = total[r];
}

template <int R, bool BFLOAT>
inline void float_tile(const Weight& w, int tile, const Rows& x, int row, __m256 out[R]) {
    const uint8_t* data = w.data + tile * w.tile_bytes();
    const float* a = x.floats + size_t(row) * w.width;
    const auto load = [data](int k) {
        if constexpr (BFLOAT) return bfloat_to_float(reinterpret_cast<const uint16_t*>(data) + LANES * size_t(k));
        else return _mm256_loadu_ps(reinterpret_cast<const float*>(data) + LANES * size_t(k));
    };
    __m256 even[R], odd[R];  // two sums, or one row would wait for each addition
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) even[r] = odd[r] = _mm256_setzero_ps();
    int k = 0;
    for (; k + 1 < w.width; k += 2) {
        const __m256 first = load(k), second = load(k + 1);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            even[r] = _mm256_fmadd_ps(first, _mm256_set1_ps(a[size_t(r) * w.width + k]), even[r]);
            odd[r] = _mm256_fmadd_ps(second, _mm256_set1_ps(a[size_t(r) * w.width + k + 1]), odd[r]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        if (k < w.width) even[r] = _mm256_fmadd_ps(load(k), _mm256_set1_ps(a[size_t(r) * w.width + k]), even[r]);
        out[r] = _mm256_add_ps(even[r], odd[r]);
    }
}

template <int R>
inline void tile_product(const Weight& w, int tile, const Rows& x, int row, __m256 out[R]) {
    switch (w.kind) {
        case FOUR: return four_tiles<R, 1>(w, tile, x, row, out);
        case EIGHT: return eight_tile<R>(w, tile, x, row, out);
        case BRAIN: return float_tile<R, true>(w, tile, x, row, out);
        default: return float_tile<R, false>(w, tile, x, row, out);
    }
}

constexpr int ROWS_AT_ONCE = 4;
constexpr int ROWS_IN_CACHE = 32;

inline void tile_product(const Weight& w, int tile, const Rows& x, int row, int count, __m256* out) {
    switch (count) {
        case 1: return tile_product<1>(w, tile, x, row, out);
        case 2: return tile_product<2>(w, tile, x, row, out);
        case 3: return tile_product<3>(w, tile, x, row, out);
        default: return tile_product<ROWS_AT_ONCE>(w, tile, x, row, out);
    }
}

// Call sink(row, tile, eight outputs) for rows [0, rows) and tiles [first, last).
template <class Sink>
inline void product(const Weight& w, const Rows& x, int rows, int first, int last, Sink&& sink) {
    __m256 out[2 * ROWS_AT_ONCE];
    for (int block = 0; block < rows; block += ROWS_IN_CACHE) {
        const int end = block + ROWS_IN_CACHE < rows ? block + ROWS_IN_CACHE : rows;
        for (int tile = first, tiles; tile < last; tile += tiles) {
            tiles = w.kind == FOUR && tile + 1 < last ? 2 : 1;
            for (int row = block, count; row < end; row += count) {
                count = end - row < ROWS_AT_ONCE ? end - row : ROWS_AT_ONCE;
                if (tiles == 2 && count == ROWS_AT_ONCE) four_tiles<ROWS_AT_ONCE, 2>(w, tile, x, row, out);
                else for (int t = 0; t < tiles; ++t) tile_product(w, tile + t, x, row, count, out + t * count);
                for (int i = 0; i < tiles * count; ++i) sink(row + i % count, tile + i / count, out[i]);
            }
        }
    }
}

// Unpack one row of a weight: the embedding of a token.
inline void unpack_row(const Weight& w, int row, float scale_by, float* out) {
    const uint8_t* data = w.data + (row / LANES) * w.tile_bytes();
    const int lane = row % LANES;
    for (int k = 0; k < w.width; ++k) {
        const int g = k / GROUP, i = k % GROUP;
        float value;
        if (w.kind == FOUR) {
            const uint8_t* at = data + size_t(g) * 160;
            uint16_t word, scale, least;
            std::memcpy(&word, at + 32 * (i / 8) + 4 * lane + 2 * (i % 2), 2);
            const int code = word >> (4 * (i % 8 / 2)) & 15;
            std::memcpy(&scale, at + 128 + 2 * lane, 2);
            std::memcpy(&least, at + 144 + 2 * lane, 2);
            value = _cvtsh_ss(least) + float(code) * _cvtsh_ss(scale);
        } else if (w.kind == EIGHT) {
            const uint8_t* at = data + size_t(g) * 272;
            uint16_t scale;
            std::memcpy(&scale, at + 256 + 2 * lane, 2);
            value = float(int8_t(at[16 * (i / 2) + 2 * lane + i % 2])) * _cvtsh_ss(scale);
        } else if (w.kind == BRAIN) {
            uint16_t bits;
            std::memcpy(&bits, data + 2 * (LANES * size_t(k) + lane), 2);
            const uint32_t wide = uint32_t(bits) << 16;
            std::memcpy(&value, &wide, 4);
        } else {
            std::memcpy(&value, data + 4 * (LANES * size_t(k) + lane), 4);
        }
        out[k] = value * scale_by;
    }
}

}  // namespace aios
