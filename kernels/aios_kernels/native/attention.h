// Attention of a row's new tokens over the pages of its context.
//
// Keys are taken in blocks of 32 that begin at multiples of 32 in the context; a running maximum and sum join the blocks.
// Law: a token's result depends on its query and its context alone, whether it came in a chunk, a batch or by itself.
#pragma once

#include <cmath>

#include "simd.h"

namespace aios {

constexpr int KEYS_AT_ONCE = 32;
constexpr int QUERIES_AT_ONCE = 16;

// The pool [page, layer, 2, kv_head, token, dim], bfloat16 or float32.
struct Pool {
    uint8_t* data;
    int64_t pages;
    int32_t layers, kv_heads, page_tokens, dim, is_bfloat, unused;

    size_t element() const { return is_bfloat ? 2 : 4; }

    // Where the vector of `token` (place within `page`) lies; side 0 is the key, 1 the value.
    uint8_t* at(int64_t page, int layer, int side, int head, int token) const {
        const size_t run = ((size_t(page) * layers + layer) * 2 + side) * kv_heads + head;
        return data + (run * page_tokens + token) * dim * element();
    }

    void load(const uint8_t* from, int tokens, float* to) const {
        for (int i = 0; i < tokens * dim; i += LANES)
            _mm256_storeu_ps(to + i, is_bfloat ? bfloat_to_float(reinterpret_cast<const uint16_t*>(from) + i)
                                               : _mm256_loadu_ps(reinterpret_cast<const float*>(from) + i));
    }

    void store(const float* from, uint8_t* to) const {
        for (int i = 0; i < dim; i += LANES) {
            const __m256 x = _mm256_loadu_ps(from + i);
            if (is_bfloat) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), float_to_bfloat(x));
            else _mm256_storeu_ps(reinterpret_cast<float*>(to) + i, x);
        }
    }
};

// One query's state: the largest score so far, the sum of weights by lanes, the weighted sum of values.
struct Running {
    float most;
    alignas(32) float total[LANES];
    float* mixed;
};

// A block of keys and values as floats, [32, dim] each.
struct Block {
    float *keys, *values;
};

// Call run(keys, values, i, tokens) for the runs of tokens [first, first + count) that lie side by side in a page.
template <class Run>
inline void each_run(const Pool& pool, const int64_t* pages, int layer, int head, int first, int count, Run&& run) {
    for (int i = 0, tokens; i < count; i += tokens) {
        const int64_t page = pages[(first + i) / pool.page_tokens];
        const int token = (first + i) % pool.page_tokens;
        tokens = pool.page_tokens - token < count - i ? pool.page_tokens - token : count - i;
        run(pool.at(page, layer, 0, head, token), pool.at(page, layer, 1, head, token), i, tokens);
    }
}

inline void fetch_block(const Pool& pool, const int64_t* pages, int layer, int head, int first, int count) {
    each_run(pool, pages, layer, head, first, count, [&](const uint8_t* keys, const uint8_t* values, int, int tokens) {
        fetch(keys, tokens * pool.dim * pool.element());
        fetch(values, tokens * pool.dim * pool.element());
    });
}

inline void copy_block(const Pool& pool, const int64_t* pages, int layer, int head, int first, int count, Block block) {
    each_run(pool, pages, layer, head, first, count, [&](const uint8_t* keys, const uint8_t* values, int i, int tokens) {
        pool.load(keys, tokens, block.keys + size_t(i) * pool.dim);
        pool.load(values, tokens, block.values + size_t(i) * pool.dim);
    });
    // Eight keys are scored together: the rest of the last eight is masked, and must be a number.
    for (int i = count; i % LANES; ++i) std::memset(block.keys + size_t(i) * pool.dim, 0, 4 * size_t(pool.dim));
}

template <int V>
inline void mix(const float* weights, int low, int high, const float* values, int dim, __m256 keep, float* mixed) {
    __m256 sum_of[V];
    for (int v = 0; v < V; ++v) sum_of[v] = _mm256_mul_ps(_mm256_loadu_ps(mixed + LANES * v), keep);
    for (int j = low; j < high; ++j) {
        const __m256 weight = _mm256_set1_ps(weights[j]);
        for (int v = 0; v < V; ++v)
            sum_of[v] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(values + size_t(j) * dim + LANES * v), sum_of[v]);
    }
    for (int v = 0; v < V; ++v) _mm256_storeu_ps(mixed + LANES * v, sum_of[v]);
}

// Take in the keys [low, high) of a block for one query (which is already multiplied by the attention's factor).
inline void attend_block(const float* query, int dim, Block block, int low, int high, Running& run) {
    alignas(32) float scores[KEYS_AT_ONCE];
    __m256 most = _mm256_set1_ps(-INFINITY);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const int begin = low / LANES * LANES;
    for (int j = begin; j < high; j += LANES) {
        __m256 dots[LANES];
        for (int i = 0; i < LANES; ++i) dots[i] = _mm256_setzero_ps();
        for (int d = 0; d < dim; d += LANES) {
            const __m256 q = _mm256_loadu_ps(query + d);
#pragma GCC unroll 8
            for (int i = 0; i < LANES; ++i)
                dots[i] = _mm256_fmadd_ps(q, _mm256_loadu_ps(block.keys + size_t(j + i) * dim + d), dots[i]);
        }
        const __m256i place = _mm256_add_epi32(lane, _mm256_set1_epi32(j));
        const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), place),
                                                _mm256_cmpgt_epi32(place, _mm256_set1_epi32(high - 1)));
        const __m256 score = _mm256_blendv_ps(sums(dots), _mm256_set1_ps(-INFINITY), _mm256_castsi256_ps(outside));
        most = _mm256_max_ps(most, score);
        _mm256_store_ps(scores + j, score);
    }
    const float highest = std::fmax(run.most, largest(most));
    const __m256 top = _mm256_set1_ps(highest);
    const __m256 keep = exponential(_mm256_sub_ps(_mm256_set1_ps(run.most), top));
    __m256 total = _mm256_mul_ps(_mm256_load_ps(run.total), keep);
    for (int j = begin; j < high; j += LANES) {
        const __m256 score = _mm256_load_ps(scores + j);
        const __m256 seen = _mm256_cmp_ps(score, _mm256_set1_ps(-INFINITY), _CMP_NEQ_OQ);
        const __m256 weight = _mm256_and_ps(exponential(_mm256_sub_ps(score, top)), seen);
        total = _mm256_add_ps(total, weight);
        _mm256_store_ps(scores + j, weight);
    }
    _mm256_store_ps(run.total, total);
    run.most = highest;
    int d = 0;
    for (; d + 64 <= dim; d += 64) mix<8>(scores, low, high, block.values + d, dim, keep, run.mixed + d);
    for (; d < dim; d += LANES) mix<1>(scores, low, high, block.values + d, dim, keep, run.mixed + d);
}

// Scratch of one thread for attention with `shared` query heads a KV head.
struct AttentionScratch {
    std::vector<float> floats;
    std::vector<Running> runs;
    Block block;
    float *queries, *mixed;

    void make(int dim, int shared) {
        const size_t block_floats = size_t(KEYS_AT_ONCE) * dim, query_floats = size_t(QUERIES_AT_ONCE) * shared * dim;
        floats.resize(2 * (block_floats + query_floats));
        runs.resize(size_t(QUERIES_AT_ONCE) * shared);
        block = {floats.data(), floats.data() + block_floats};
        queries = block.values + block_floats;
        mixed = queries + query_floats;
    }
};

// Tokens of one row that attend together: `count` queries, the first of which sees `context` tokens.
struct Span {
    const int64_t* pages;
    int first, count, context;
};

// Attend the `shared` query heads of KV head `head` of a span. queries and out are [tokens, stride] with the heads
// of this KV head side by side at their beginning.
inline void attend(const Pool& pool, const Span& span, int layer, int head, int shared, int window, float factor,
                   const float* queries, size_t query_stride, float* out, size_t out_stride, AttentionScratch& scratch) {
    const int dim = pool.dim, num = span.count * shared;
    const __m256 scale = _mm256_set1_ps(factor);
    for (int n = 0; n < num; ++n) {
        const float* query = queries + (n / shared) * query_stride + size_t(n % shared) * dim;
        for (int d = 0; d < dim; d += LANES)
            _mm256_storeu_ps(scratch.queries + size_t(n) * dim + d, _mm256_mul_ps(_mm256_loadu_ps(query + d), scale));
        scratch.runs[n] = {-INFINITY, {}, scratch.mixed + size_t(n) * dim};
        std::memset(scratch.runs[n].mixed, 0, 4 * size_t(dim));
    }
    const int last = span.context + span.count - 1;
    int first = window && span.context > window ? span.context - window : 0;
    for (first -= first % KEYS_AT_ONCE; first < last; first += KEYS_AT_ONCE) {
        const int count = last - first < KEYS_AT_ONCE ? last - first : KEYS_AT_ONCE;
        copy_block(pool, span.pages, layer, head, first, count, scratch.block);
        const int after = first + KEYS_AT_ONCE;
        if (after < last) fetch_block(pool, span.pages, layer, head, after, last - after < KEYS_AT_ONCE ? last - after : KEYS_AT_ONCE);
        for (int n = 0; n < num; ++n) {
            const int sees = span.context + n / shared;
            const int low = window && sees - window > first ? sees - window - first : 0;
            const int high = sees - first < count ? sees - first : count;
            if (low < high) attend_block(scratch.queries + size_t(n) * dim, dim, scratch.block, low, high, scratch.runs[n]);
        }
    }
    for (int n = 0; n < num; ++n) {
        float* to = out + (n / shared) * out_stride + size_t(n % shared) * dim;
        const __m256 over = _mm256_set1_ps(1.0f / sum(_mm256_load_ps(scratch.runs[n].total)));
        for (int d = 0; d < dim; d += LANES)
            _mm256_storeu_ps(to + d, _mm256_mul_ps(_mm256_loadu_ps(scratch.runs[n].mixed + d), over));
    }
}

}  // namespace aios
