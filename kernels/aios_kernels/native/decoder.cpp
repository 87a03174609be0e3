// One forward step of a decoder, all layers in one call. The interface is at the end: plain C, called through ctypes.
//
// The residual stream is float32. Every phase is cut into parts that threads take one by one; a part writes outputs of
// its own, so neither the number of threads nor that of rows shows in a result.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "attention.h"
#include "product.h"
#include "team.h"

namespace aios {
namespace {

struct Layer {
    const float *attention_norm, *feed_norm;
    const float *query_norm, *key_norm;                   // [head_dim] or null
    const float *qkv_bias;                                // or null
    const float *attention_post_norm, *feed_post_norm;    // or null
    const float *frequencies;                             // [head_dim / 2]
    Weight qkv, output, gate_up, down;
    int64_t window;                                       // 0: none
};

struct Shape {
    int32_t layers, dim, heads, kv_heads, head_dim, ff, vocab, gelu;
    float eps, embedding_scale, attention_scale, unused;
};

struct Model {
    Shape shape;
    Weight embedding, head;
    const float* norm;
    const Layer* layers;
};

// One context's part of a step: tokens [start, start + count) end a context of `context` tokens; its pages begin at
// `pages` in the step's list.
struct Row {
    int64_t start, count, context, pages;
};

struct Step {
    int64_t tokens, rows, samples, num_pages;
    const int64_t *ids, *positions, *slots;   // [tokens]
    const Row* row;
    const int64_t* pages;
    const int64_t* sample;                    // [samples]
    Pool pool;
    float* logits;                            // [samples, vocab]
};

constexpr int TILES_A_PART = 4;
constexpr int HEAD_TILES_A_PART = 16;
// At most: four to prepare, four products, two to place and attend, two norms of what is added. A step has three more.
constexpr size_t PHASES_A_LAYER = 12;
// Up to this many rows every thread prepares all of them for itself, which is quicker than waiting for each other.
constexpr int ROWS_PREPARED_ALONE = 2;
// With fewer parts of attention for each thread than this, long contexts are cut into segments.
constexpr int ITEMS_A_THREAD = 8;

int parts(int count, int size) { return (count + size - 1) / size; }

// Rows made ready for a product.
struct Prepared {
    std::vector<float> floats, scales, sums;
    std::vector<int16_t> codes;

    void make(size_t rows, size_t width) {
        const size_t places = (rows + PANEL - 1) / PANEL * PANEL;
        floats.resize(places * width);
        codes.resize(places * width);
        scales.resize(places * (width / GROUP + 1));
        sums.resize(places * (width / GROUP + 1));
    }

    Rows rows() const { return {floats.data(), codes.data(), scales.data(), sums.data()}; }

    // Take in row x [width] as products with `w` want it.
    void take(int row, const float* x, const Weight& w) {
        const size_t first = row / PANEL * PANEL, width = w.width, groups = width / GROUP;
        const int lane = row % PANEL;
        if (!w.has_codes()) return spread(x, w.width, lane, floats.data() + first * width);
        encode(x, w.width, lane, codes.data() + first * width, scales.data() + first * groups, sums.data() + first * groups);
    }
};

// What one thread has for itself.
struct Own {
    Prepared prepared;
    std::vector<float> line;
    AttentionScratch attention;
};

void normalise(const float* x, const float* weight, int width, float eps, float* out) {
    __m256 squares = _mm256_setzero_ps();
    for (int i = 0; i < width; i += LANES) {
        const __m256 v = _mm256_loadu_ps(x + i);
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    const __m256 factor = _mm256_set1_ps(1.0f / std::sqrt(sum(squares) / float(width) + eps));
    for (int i = 0; i < width; i += LANES)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor), _mm256_loadu_ps(weight + i)));
}

// Turn the adjacent pairs of one head; cosines and sines are [dim / 2].
void turn(float* x, const float* cosines, const float* sines, int dim) {
    for (int i = 0; i < dim / 2; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

class Decoder {
public:
    Decoder(const Model& model, int threads)
        : m_(model), s_(model.shape), layers_(model.layers, model.layers + model.shape.layers), team_(threads),
          own_(threads) {
        for (auto& own : own_) {
            own.prepared.make(ROWS_PREPARED_ALONE, widest());
            own.line.resize(widest());
            own.attention.make(s_.head_dim, s_.heads / s_.kv_heads);
        }
        const auto same = [](const float* a, const float* b) { return a == b; };
        for (const auto& layer : layers_) {
            size_t at = 0;
            while (at < turns_.size() && !same(turns_[at], layer.frequencies)) ++at;
            if (at == turns_.size()) turns_.push_back(layer.frequencies);
            turns_of_.push_back(at);
        }
    }

    // 0, or what is wrong with the step: nothing was written then.
    int forward(const Step& step) {
        if (const int wrong = check(step)) return wrong;
        grow(step);
        plan(step);
        counters_.reset(size_t(s_.layers) * PHASES_A_LAYER + 3);
        team_.run([&](int rank) { Worker{*this, step, rank, 0}.run(); });
        return 0;
    }

private:
    // The attention of a span's queries and one KV head, over all segments or, of several pieces, over one. The piece
    // that ends last joins all: their states lie from `runs` on, and `ended` counts them.
    struct Item {
        Span span;
        int64_t token;
        int head, segment, pieces;
        size_t runs, ended;

        int64_t work() const { return int64_t(span.context) * span.count / pieces; }
    };

    // One thread's way through a step. Every thread makes the same calls of `each`, so phases agree.
    struct Worker {
        Decoder& d;
        const Step& step;
        const int rank;
        size_t phase;

        void run() {
            const Shape& s = d.s_;
            each(int(step.tokens), [&](int t) {
                unpack_row(d.m_.embedding, int(step.ids[t]), s.embedding_scale, d.x(t));
                d.turn_angles(t, step.positions[t]);
            });
            for (int index = 0; index < s.layers; ++index) layer(d.layers_[index], index);
            head();
        }

        void layer(const Layer& l, int index) {
            const int tokens = int(step.tokens);
            Rows rows = prepare(tokens, l.qkv, [&](int t, float* line) { return d.normal(t, l.attention_norm, line); });
            multiply(l.qkv, rows, tokens, [&](int t, int tile, __m256 v) {
                if (l.qkv_bias) v = _mm256_add_ps(v, _mm256_loadu_ps(l.qkv_bias + LANES * size_t(tile)));
                _mm256_storeu_ps(d.qkv(t) + LANES * size_t(tile), v);
            });
            each(tokens, [&](int t) { d.place(l, index, step, t); });
            each(int(d.items_.size()), [&](int i) { d.attend_item(l, index, step, d.items_[i], rank); });
            rows = prepare(tokens, l.output, [&](int t, float*) { return d.mixed(t); });
            add(l.output, rows, l.attention_post_norm);
            rows = prepare(tokens, l.gate_up, [&](int t, float* line) { return d.normal(t, l.feed_norm, line); });
            feed(l, rows);
            rows = prepare(tokens, l.down, [&](int t, float*) { return d.fed(t); });
            add(l.down, rows, l.feed_post_norm);
        }

        void feed(const Layer& l, const Rows& rows) {
            const int tiles = d.s_.ff / LANES;
            const bool gelu = d.s_.gelu;
            each(parts(tiles, TILES_A_PART), [&](int part) {
                const int first = part * TILES_A_PART, last = std::min(first + TILES_A_PART, tiles);
                product(l.gate_up, rows, int(step.tokens), first, last, [&](int t, int tile, __m256 v) {
                    _mm256_storeu_ps(d.fed(t) + LANES * size_t(tile), gelu ? gelu_tanh(v) : silu(v));
                });
                product(l.gate_up, rows, int(step.tokens), tiles + first, tiles + last, [&](int t, int tile, __m256 v) {
                    float* to = d.fed(t) + LANES * size_t(tile - tiles);
                    _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_loadu_ps(to), v));
                });
            });
        }

        // Add a product to the residual stream, normalised before where the family does so.
        void add(const Weight& w, const Rows& rows, const float* norm) {
            if (!norm) {
                return multiply(w, rows, int(step.tokens), [&](int t, int tile, __m256 v) {
                    float* to = d.x(t) + LANES * size_t(tile);
                    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), v));
                });
            }
            multiply(w, rows, int(step.tokens), [&](int t, int tile, __m256 v) { _mm256_storeu_ps(d.added(t) + LANES * size_t(tile), v); });
            each(int(step.tokens), [&](int t) {
                normalise(d.added(t), norm, d.s_.dim, d.s_.eps, d.added(t));
                for (int i = 0; i < d.s_.dim; ++i) d.x(t)[i] += d.added(t)[i];
            });
        }

        void head() {
            const Shape& s = d.s_;
            const int samples = int(step.samples), tiles = d.m_.head.tiles();
            if (!samples) return;
            const Rows rows = prepare(samples, d.m_.head, [&](int i, float* line) { return d.normal(step.sample[i], d.m_.norm, line); });
            each(parts(tiles, HEAD_TILES_A_PART), [&](int part) {
                const int first = part * HEAD_TILES_A_PART, last = std::min(first + HEAD_TILES_A_PART, tiles);
                product(d.m_.head, rows, samples, first, last, [&](int i, int tile, __m256 v) {
                    float* to = step.logits + size_t(i) * s.vocab + LANES * size_t(tile);
                    if ((tile + 1) * LANES <= s.vocab) return _mm256_storeu_ps(to, v);
                    alignas(32) float few[LANES];
                    _mm256_store_ps(few, v);
                    std::memcpy(to, few, 4 * size_t(s.vocab - tile * LANES));
                });
            });
        }

        template <class Sink>
        void multiply(const Weight& w, const Rows& rows, int count, Sink&& sink) {
            const int tiles = w.tiles();
            each(parts(tiles, TILES_A_PART), [&](int part) {
                const int first = part * TILES_A_PART;
                product(w, rows, count, first, std::min(first + TILES_A_PART, tiles), sink);
            });
        }

        // Make rows ready for products with `w`; numbers(row, line) returns their floats, which it may put into `line`.
        template <class Numbers>
        Rows prepare(int rows, const Weight& w, Numbers&& numbers) {
            Own& own = d.own_[rank];
            if (rows <= ROWS_PREPARED_ALONE) {
                for (int row = 0; row < rows; ++row) own.prepared.take(row, numbers(row, own.line.data()), w);
                return own.prepared.rows();
            }
            each(rows, [&](int row) { d.shared_.take(row, numbers(row, own.line.data()), w); });
            return d.shared_.rows();
        }

        template <class Do>
        void each(int count, Do&& work) {
            for (int i; (i = d.counters_.take(phase)) < count;) work(i);
            ++phase;
            d.team_.barrier();
        }
    };

    int wide() const { return s_.heads * s_.head_dim; }
    int qkv_width() const { return (s_.heads + 2 * s_.kv_heads) * s_.head_dim; }
    size_t widest() const { return size_t(std::max({s_.dim, s_.ff, wide()})); }
    float* x(int64_t t) { return x_.data() + size_t(t) * s_.dim; }
    float* added(int64_t t) { return added_.data() + size_t(t) * s_.dim; }
    float* qkv(int64_t t) { return qkv_.data() + size_t(t) * qkv_width(); }
    float* mixed(int64_t t) { return mixed_.data() + size_t(t) * wide(); }
    float* fed(int64_t t) { return fed_.data() + size_t(t) * s_.ff; }
    const float* normal(int64_t t, const float* norm, float* line) {
        normalise(x(t), norm, s_.dim, s_.eps, line);
        return line;
    }
    float* angles(int64_t t, size_t table) { return angles_.data() + (size_t(t) * turns_.size() + table) * s_.head_dim; }

    int check(const Step& step) const {
        const Pool& pool = step.pool;
        if (pool.layers != s_.layers || pool.kv_heads != s_.kv_heads || pool.dim != s_.head_dim) return 1;
        for (int64_t t = 0; t < step.tokens; ++t) {
            if (step.ids[t] < 0 || step.ids[t] >= s_.vocab) return 2;
            if (step.positions[t] < 0) return 3;
            if (step.slots[t] < 0 || step.slots[t] >= pool.pages * pool.page_tokens) return 4;
        }
        int64_t next = 0;
        for (int64_t r = 0; r < step.rows; ++r) {
            const Row& row = step.row[r];
            if (row.start != next || row.count < 1 || row.context < row.count || row.context > INT32_MAX / 2) return 5;
            next += row.count;
            const int64_t used = (row.context + pool.page_tokens - 1) / pool.page_tokens;
            if (row.pages < 0 || used > step.num_pages - row.pages) return 6;
            for (int64_t i = 0; i < used; ++i)
                if (step.pages[row.pages + i] < 0 || step.pages[row.pages + i] >= pool.pages) return 7;
        }
        if (next != step.tokens) return 5;
        for (int64_t i = 0; i < step.samples; ++i)
            if (step.sample[i] < 0 || step.sample[i] >= step.tokens) return 8;
        return 0;
    }

    void grow(const Step& step) {
        const size_t tokens = std::max(step.tokens, step.samples);
        if (tokens <= room_) return;
        room_ = tokens;
        x_.resize(tokens * s_.dim);
        added_.resize(tokens * s_.dim);
        qkv_.resize(tokens * qkv_width());
        mixed_.resize(tokens * wide());
        fed_.resize(tokens * s_.ff);
        angles_.resize(tokens * turns_.size() * s_.head_dim);
        shared_.make(tokens, widest());
    }

    // Cut the attention of the step into parts, long ones first.
    void plan(const Step& step) {
        items_.clear();
        for (int64_t r = 0; r < step.rows; ++r) {
            const Row& row = step.row[r];
            for (int64_t first = 0; first < row.count; first += QUERIES_AT_ONCE) {
                const int count = int(std::min<int64_t>(QUERIES_AT_ONCE, row.count - first));
                const Span span{step.pages + row.pages, int(first), count, int(row.context - row.count + first + 1), 0};
                for (int head = 0; head < s_.kv_heads; ++head) items_.push_back({span, row.start + first, head, 0, 1, 0, 0});
            }
        }
        if (items_.size() < size_t(ITEMS_A_THREAD) * team_.size()) cut();
        std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) { return a.work() > b.work(); });
    }

    // Cut long items into their segments.
    void cut() {
        size_t runs = 0;
        const std::vector<Item> whole = std::move(items_);
        items_.clear();
        ended_ = std::vector<std::atomic<int>>(whole.size());
        for (size_t i = 0; i < whole.size(); ++i) {
            Item item = whole[i];
            item.pieces = item.span.end_segment();
            item.runs = runs;
            item.ended = i;
            for (item.segment = 0; item.segment < item.pieces; ++item.segment) items_.push_back(item);
            if (item.pieces > 1) runs += size_t(item.pieces) * item.span.count * (s_.heads / s_.kv_heads);
        }
        pieces_.make(runs, s_.head_dim);
    }

    void turn_angles(int64_t t, int64_t position) {
        for (size_t table = 0; table < turns_.size(); ++table) {
            float *cosines = angles(t, table), *sines = cosines + s_.head_dim / 2;
            for (int i = 0; i < s_.head_dim / 2; ++i) {
                const double angle = float(position) * turns_[table][i];
                cosines[i] = float(std::cos(angle));
                sines[i] = float(std::sin(angle));
            }
        }
    }

    // Normalise and turn a token's heads and write its key and value into the pool.
    void place(const Layer& l, int index, const Step& step, int t) {
        const int dim = s_.head_dim;
        const float *cosines = angles(t, turns_of_[index]), *sines = cosines + dim / 2;
        for (int h = 0; h < s_.heads + s_.kv_heads; ++h) {
            float* head = qkv(t) + size_t(h) * dim;
            const float* norm = h < s_.heads ? l.query_norm : l.key_norm;
            if (norm) normalise(head, norm, dim, s_.eps, head);
            turn(head, cosines, sines, dim);
        }
        const int64_t page = step.slots[t] / step.pool.page_tokens;
        const int token = int(step.slots[t] % step.pool.page_tokens);
        for (int side = 0; side < 2; ++side)
            for (int h = 0; h < s_.kv_heads; ++h)
                step.pool.store(qkv(t) + size_t(s_.heads + side * s_.kv_heads + h) * dim,
                                step.pool.at(page, index, side, h, token));
    }

    void attend_item(const Layer& l, int index, const Step& step, const Item& item, int rank) {
        const Place at{index, item.head, s_.heads / s_.kv_heads};
        const int dim = s_.head_dim;
        const size_t column = size_t(item.head) * at.shared * dim, num = size_t(item.span.count) * at.shared;
        Span span = item.span;
        span.window = int(l.window);
        AttentionScratch& scratch = own_[rank].attention;
        Running* whole = scratch.whole.runs.data();
        take_queries(span, at.shared, dim, s_.attention_scale, qkv(item.token) + column, qkv_width(), scratch.queries);
        const auto join = [&](const Running* part) {
            for (size_t n = 0; n < num; ++n) whole[n].join(part[n], dim);
        };
        if (item.pieces > 1) {
            Running* pieces = pieces_.runs.data() + item.runs;
            attend_segment(step.pool, span, at, item.segment, scratch, pieces + item.segment * num);
            if (ended_[item.ended].fetch_add(1, std::memory_order_acq_rel) + 1 < item.pieces) return;
            ended_[item.ended].store(0, std::memory_order_relaxed);
            for (size_t n = 0; n < num; ++n) whole[n].clear(dim);
            for (int piece = 0; piece < item.pieces; ++piece) join(pieces + piece * num);
        } else {
            for (size_t n = 0; n < num; ++n) whole[n].clear(dim);
            for (int segment = span.first_segment(); segment < span.end_segment(); ++segment) {
                attend_segment(step.pool, span, at, segment, scratch, scratch.part.runs.data());
                join(scratch.part.runs.data());
            }
        }
        write_mixed(span, at.shared, dim, whole, mixed(item.token) + column, wide());
    }

    const Model m_;
    const Shape s_;
    const std::vector<Layer> layers_;
    Team team_;
    Counters counters_;
    std::vector<Own> own_;
    std::vector<const float*> turns_;   // the distinct tables of frequencies
    std::vector<size_t> turns_of_;      // layer -> table
    size_t room_ = 0;
    Prepared shared_;
    std::vector<float> x_, added_, qkv_, mixed_, fed_, angles_;
    std::vector<Item> items_;
    Runs pieces_;
    std::vector<std::atomic<int>> ended_;
};

}  // namespace
}  // namespace aios

extern "C" {

void* aios_decoder_new(const aios::Model* model, int32_t threads) {
    try {
        return new aios::Decoder(*model, threads);
    } catch (...) {
        return nullptr;
    }
}

void aios_decoder_delete(void* decoder) { delete static_cast<aios::Decoder*>(decoder); }

int32_t aios_decoder_forward(void* decoder, const aios::Step* step) {
    try {
        return static_cast<aios::Decoder*>(decoder)->forward(*step);
    } catch (...) {
        return -1;
    }
}

// Rows x [rows, width] times a weight: out [rows, 8 * tiles].
int32_t aios_product(const aios::Weight* w, const float* x, int32_t rows, float* out) {
    try {
        aios::Prepared prepared;
        prepared.make(rows, w->width);
        for (int row = 0; row < rows; ++row) prepared.take(row, x + size_t(row) * w->width, *w);
        const size_t stride = size_t(w->tiles()) * aios::LANES;
        aios::product(*w, prepared.rows(), rows, 0, w->tiles(), [&](int row, int tile, __m256 v) {
            _mm256_storeu_ps(out + row * stride + aios::LANES * size_t(tile), v);
        });
        return 0;
    } catch (...) {
        return -1;
    }
}
}
