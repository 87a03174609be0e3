// Attention of a row's new tokens over the pages of its context.
//
// Keys are taken in blocks of 32 that begin at multiples of 32 in the context; a running maximum and sum join the blocks
// of a segment of 256, and then the segments, in order: threads may share a context by segments.
// Law: a token's result depends on its query and its context alone, whether it came in a chunk, a batch or by itself.
#pragma once

#include <cmath>

#include "simd.h"

namespace aios {

constexpr int KEYS_AT_ONCE = 32;
constexpr int SEGMENT = 8 * KEYS_AT_ONCE;
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

// One query's state: the largest score so far, the sum of weights by lanes, the weighted sum of values [dim].
struct Running {
    float most;
    alignas(32) float total[LANES];
    float* mixed;

    void clear(int dim) {
        most = -INFINITY;
        std::memset(total, 0, sizeof total);
        std::memset(mixed, 0, 4 * size_t(dim));
    }

    // Take in what the next segment gave. A state without keys changes nothing, to the bit.
    void join(const Running& next, int dim) {
        const float highest = std::fmax(most, next.most);
        const __m256 keep = exponential(_mm256_set1_ps(most - highest)), add = exponential(_mm256_set1_ps(next.most - highest));
        const auto both = [&](float* mine, const float* other) {
            _mm256_storeu_ps(mine, _mm256_fmadd_ps(add, _mm256_loadu_ps(other), _mm256_mul_ps(keep, _mm256_loadu_ps(mine))));
        };
        both(total, next.total);
        for (int d = 0; d < dim; d += LANES) both(mixed + d, next.mixed + d);
        most = highest;
    }
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

// States of a number of queries, and the place for what they point to.
struct Runs {
    std::vector<Running> runs;
    std::vector<float> mixed;

    void make(size_t count, int dim) {
        runs.resize(count);
        mixed.resize(count * dim);
        for (size_t n = 0; n < count; ++n) runs[n].mixed = mixed.data() + n * dim;
    }
};

// Scratch of one thread for attention with `shared` query heads a KV head.
struct AttentionScratch {
    std::vector<float> floats;
    Block block;
    float* queries;
    Runs part, whole;

    void make(int dim, int shared) {
        const size_t block_floats = size_t(KEYS_AT_ONCE) * dim, count = size_t(QUERIES_AT_ONCE) * shared;
        floats.resize(2 * block_floats + count * dim);
        block = {floats.data(), floats.data() + block_floats};
        queries = block.values + block_floats;
        part.make(count, dim);
        whole.make(count, dim);
    }
};

// Tokens of one row that attend together: `count` queries, the first of which sees `context` tokens, all of them
// only the last `window` if that is not 0.
struct Span {
    const int64_t* pages;
    int first, count, context, window;

    // The segments that hold what these queries see.
    int first_segment() const { return low(context) / SEGMENT; }
    int end_segment() const { return (context + count - 2) / SEGMENT + 1; }
    // The first key for a query that sees `sees` tokens.
    int low(int sees) const { return window && sees > window ? sees - window : 0; }
};

// One KV head of a layer.
struct Place {
    int layer, head, shared;
};

// Take the span's queries [tokens, stride], with the heads of this KV head side by side, times the attention's factor.
inline void take_queries(const Span& span, int shared, int dim, float factor, const float* queries, size_t stride, float* to) {
    const __m256 scale = _mm256_set1_ps(factor);
    for (int token = 0; token < span.count; ++token)
        for (int d = 0; d < shared * dim; d += LANES, to += LANES)
            _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_loadu_ps(queries + token * stride + d), scale));
}

// Let the queries in `scratch` see one segment; `runs` are their states after it.
inline void attend_segment(const Pool& pool, const Span& span, const Place& at, int segment, AttentionScratch& scratch, Running* runs) {
    const int dim = pool.dim, num = span.count * at.shared;
    for (int n = 0; n < num; ++n) runs[n].clear(dim);
    const auto within = [](int limit, int value) { return value < limit ? value : limit; };
    const int last = within((segment + 1) * SEGMENT, span.context + span.count - 1);
    int first = span.low(span.context) / KEYS_AT_ONCE * KEYS_AT_ONCE;
    if (first < segment * SEGMENT) first = segment * SEGMENT;
    for (; first < last; first += KEYS_AT_ONCE) {
        const int count = within(KEYS_AT_ONCE, last - first), after = first + count;
        copy_block(pool, span.pages, at.layer, at.head, first, count, scratch.block);
        if (after < last) fetch_block(pool, span.pages, at.layer, at.head, after, within(KEYS_AT_ONCE, last - after));
        for (int n = 0; n < num; ++n) {
            const int sees = span.context + n / at.shared;
            const int low = span.low(sees) > first ? span.low(sees) - first : 0, high = within(count, sees - first);
            if (low < high) attend_block(scratch.queries + size_t(n) * dim, dim, scratch.block, low, high, runs[n]);
        }
    }
}

// Write what the states come to, [tokens, stride] as the queries lie.
inline void write_mixed(const Span& span, int shared, int dim, const Running* runs, float* out, size_t stride) {
    for (int n = 0; n < span.count * shared; ++n) {
        float* to = out + (n / shared) * stride + size_t(n % shared) * dim;
        const __m256 over = _mm256_set1_ps(1.0f / sum(_mm256_load_ps(runs[n].total)));
        for (int d = 0; d < dim; d += LANES)
            _mm256_storeu_ps(to + d, _mm256_mul_ps(_mm256_loadu_ps(runs[n].mixed + d), over));
    }
}

}  // namespace aios
