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

// Rows lie in panels of four, the numbers of which stand side by side: one stream to read, whatever is computed at once.
constexpr int PANEL = 4;

// Rows [n, width] as panels: floats [panel, width, 4], or codes [panel, width / 2, 4, 2] with for each group
// its scale and scale * sum of codes [panel, width / 32, 4].
struct Rows {
    const float* floats;
    const int16_t* codes;
    const float* scales;
    const float* sums;
};

// Round one row of `width` to codes in the place `lane` of a panel; width is a multiple of GROUP.
inline void encode(const float* x, int width, int lane, int16_t* codes, float* scales, float* sums) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int g = 0; g < width / GROUP; ++g, x += GROUP, codes += PANEL * GROUP) {
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
        alignas(32) int32_t pairs[GROUP / 2];
        for (int i = 0; i < 4; i += 2) {
            const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[i], q[i + 1]), 0b11011000);
            _mm256_store_si256(reinterpret_cast<__m256i*>(pairs + 4 * i), both);
        }
        for (int p = 0; p < GROUP / 2; ++p) std::memcpy(codes + 2 * (PANEL * p + lane), pairs + p, 4);
        scales[PANEL * g + lane] = some ? largest_of / 32767.0f : 0.0f;
        sums[PANEL * g + lane] = scales[PANEL * g + lane] * sum(_mm256_cvtepi32_ps(total));
    }
}

// Put one row of `width` floats in the place `lane` of a panel.
inline void spread(const float* x, int width, int lane, float* floats) {
    for (int k = 0; k < width; ++k) floats[size_t(PANEL) * k + lane] = x[k];
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

// Sixteen codes of a group of eight rows, two of each; `words` keeps what FOUR has read for the next ones.
template <int KIND>
inline __m256i two_codes(const uint8_t* data, int place, __m256i& words) {
    if constexpr (KIND == EIGHT)
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16 * place)));
    if (place % 4 == 0) words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + 8 * place));
    const __m256i moved = _mm256_srli_epi16(words, 4 * (place % 4));
    return place % 4 == 3 ? moved : _mm256_and_si256(moved, _mm256_set1_epi16(15));
}

// N tiles of FOUR or EIGHT share what is read of R rows of activations.
template <int KIND, int R, int N>
inline void code_tiles(const Weight& w, int tile, const Rows& x, int row, size_t ahead, __m256* out) {
    constexpr int CODES = KIND == FOUR ? 128 : 256, BYTES = KIND == FOUR ? 160 : 272;
    const int groups = w.width / GROUP;
    const size_t stride = w.tile_bytes();
    const uint8_t* data = w.data + tile * stride;
    const int16_t* codes = x.codes + size_t(row) * w.width;  // row begins a panel
    const float* scales = x.scales + size_t(row) * groups;
    const float* sums = x.sums + size_t(row) * groups;
    __m256 total[N][R];
#pragma GCC unroll 8
    for (int i = 0; i < N * R; ++i) total[i / R][i % R] = _mm256_setzero_ps();
    for (int g = 0; g < groups; ++g, data += BYTES, codes += PANEL * GROUP) {
        if (ahead)
            for (int t = 0; t < N; ++t) fetch(data + t * stride + ahead, BYTES);
        __m256i dots[N][R], words[N];
#pragma GCC unroll 8
        for (int i = 0; i < N * R; ++i) dots[i / R][i % R] = _mm256_setzero_si256();
#pragma GCC unroll 16
        for (int p = 0; p < GROUP / 2; ++p) {
            __m256i code[N];
#pragma GCC unroll 2
            for (int t = 0; t < N; ++t) code[t] = two_codes<KIND>(data + t * stride, p, words[t]);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const __m256i a = pair(codes + 2 * (PANEL * p + r));
#pragma GCC unroll 2
                for (int t = 0; t < N; ++t) {
                    dots[t][r] = add_products(dots[t][r], code[t], a);
                    asm("" : "+x"(dots[t][r]));  // or compilers move all products in front of the sums and spill them
                }
            }
        }
#pragma GCC unroll 2
        for (int t = 0; t < N; ++t) {
            const uint8_t* rest = data + t * stride + CODES;
            const __m256 scale = half_to_float(rest);
            const __m256 least = KIND == FOUR ? half_to_float(rest + 16) : _mm256_setzero_ps();
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const int at = PANEL * g + r;
                const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(scales[at]));
                total[t][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][r]), step, total[t][r]);
                if constexpr (KIND == FOUR) total[t][r] = _mm256_fmadd_ps(least, _mm256_set1_ps(sums[at]), total[t][r]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N * R; ++i) out[i] = total[i / R][i % R];
}

// N tiles of FLOAT or BRAIN share what is read of R rows of activations.
template <int KIND, int R, int N>
inline void float_tiles(const Weight& w, int tile, const Rows& x, int row, size_t ahead, __m256* out) {
    constexpr int BYTES = KIND == BRAIN ? 16 : 32;
    const size_t stride = w.tile_bytes();
    const uint8_t* data = w.data + tile * stride;
    const float* a = x.floats + size_t(row) * w.width;
    __m256 total[N][R];
#pragma GCC unroll 8
    for (int i = 0; i < N * R; ++i) total[i / R][i % R] = _mm256_setzero_ps();
    for (int k = 0; k < w.width; ++k, data += BYTES, a += PANEL) {
        if (ahead && k % (64 / BYTES) == 0)
            for (int t = 0; t < N; ++t) fetch(data + t * stride + ahead, 1);
        __m256 numbers[N];
#pragma GCC unroll 2
        for (int t = 0; t < N; ++t) {
            const uint8_t* from = data + t * stride;
            if constexpr (KIND == BRAIN) numbers[t] = bfloat_to_float(reinterpret_cast<const uint16_t*>(from));
            else numbers[t] = _mm256_loadu_ps(reinterpret_cast<const float*>(from));
            asm("" : "+x"(numbers[t]));  // or GCC reads it again for each row
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const __m256 one = _mm256_set1_ps(a[r]);
#pragma GCC unroll 2
            for (int t = 0; t < N; ++t) total[t][r] = _mm256_fmadd_ps(numbers[t], one, total[t][r]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < N * R; ++i) out[i] = total[i / R][i % R];
}

constexpr int TILES_AT_ONCE = 2;
constexpr int ROWS_IN_CACHE = 32;

using TileProduct = void (*)(const Weight& w, int tile, const Rows& x, int row, size_t ahead, __m256* out);

template <int R, int N>
TileProduct tile_product(int kind) {
    switch (kind) {
        case FOUR: return code_tiles<FOUR, R, N>;
        case EIGHT: return code_tiles<EIGHT, R, N>;
        case BRAIN: return float_tiles<BRAIN, R, N>;
        default: return float_tiles<FLOAT, R, N>;
    }
}

// The product of `rows` rows (1 to PANEL) with `tiles` tiles.
inline TileProduct tile_product(int kind, int rows, int tiles) {
    switch (2 * rows + tiles) {
        case 3: return tile_product<1, 1>(kind);
        case 4: return tile_product<1, 2>(kind);
        case 5: return tile_product<2, 1>(kind);
        case 6: return tile_product<2, 2>(kind);
        case 7: return tile_product<3, 1>(kind);
        case 8: return tile_product<3, 2>(kind);
        case 9: return tile_product<4, 1>(kind);
        default: return tile_product<4, 2>(kind);
    }
}

// Call sink(row, tile, eight outputs) for rows [0, rows) and tiles [first, last).
template <class Sink>
inline void product(const Weight& w, const Rows& x, int rows, int first, int last, Sink&& sink) {
    __m256 out[TILES_AT_ONCE * PANEL];
    const size_t ahead = TILES_AT_ONCE * w.tile_bytes();
    for (int block = 0; block < rows; block += ROWS_IN_CACHE) {
        const int end = block + ROWS_IN_CACHE < rows ? block + ROWS_IN_CACHE : rows;
        for (int tile = first, tiles; tile < last; tile += tiles) {
            tiles = last - tile < TILES_AT_ONCE ? last - tile : TILES_AT_ONCE;
            for (int row = block, count; row < end; row += count) {
                count = end - row < PANEL ? end - row : PANEL;
                tile_product(w.kind, count, tiles)(w, tile, x, row, row == block ? ahead : 0, out);
                for (int t = 0; t < tiles; ++t)
                    for (int r = 0; r < count; ++r) sink(row + r, tile + t, out[t * count + r]);
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
