// llama.cpp as a peer: obeys the commands of benchmarks/peers/protocol.py on stdin, answers with one JSON line each.
//
//   llama_driver MODEL.gguf THREADS
//
// Linked to libllama alone. Every figure includes the greedy choice of the next token, as an engine must make it.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "ggml.h"
#include "llama.h"

namespace {

constexpr int kMostRows = 32;
constexpr int kContext = 32768;
constexpr int kStepTokens = 2048;

bool g_repacked = false;

double now_s() {
    using clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

void listen(ggml_log_level, const char *text, void *) {
    if (std::strstr(text, "REPACK")) g_repacked = true;
}

// One step of several sequences.
class Step {
  public:
    Step() : batch_(llama_batch_init(kStepTokens, 0, 1)) {}
    ~Step() { llama_batch_free(batch_); }

    void clear() { batch_.n_tokens = 0; }

    void add(llama_token token, int position, int sequence, bool wants_logits) {
        const int i = batch_.n_tokens++;
        batch_.token[i] = token;
        batch_.pos[i] = position;
        batch_.n_seq_id[i] = 1;
        batch_.seq_id[i][0] = sequence;
        batch_.logits[i] = wants_logits;
    }

    void run(llama_context *context) {
        if (llama_decode(context, batch_) != 0) {
            std::fprintf(stderr, "llama_decode failed\n");
            std::exit(1);
        }
        llama_synchronize(context);
    }

  private:
    llama_batch batch_;
};

class Peer {
  public:
    Peer(llama_model *model, llama_context *context)
        : context_(context), vocab_(llama_vocab_n_tokens(llama_model_get_vocab(model))) {}

    // Seconds to read a prompt of `tokens` tokens and choose the first token.
    double prefill(int tokens) {
        forget();
        const double began = now_s();
        read(0, tokens, 0);
        return now_s() - began;
    }

    // Seconds for `tokens` decode steps of `rows` sequences that hold `context` tokens each.
    double decode(int rows, int context, int tokens) {
        forget();
        std::vector<llama_token> next(rows);
        for (int row = 0; row < rows; ++row) next[row] = read(row, context, row);
        const double began = now_s();
        for (int i = 0; i < tokens; ++i) {
            step_.clear();
            for (int row = 0; row < rows; ++row) step_.add(next[row], context + i, row, true);
            step_.run(context_);
            for (int row = 0; row < rows; ++row) next[row] = choose(row);
        }
        return now_s() - began;
    }

  private:
    void forget() { llama_memory_clear(llama_get_memory(context_), false); }

    llama_token read(int sequence, int tokens, int salt) {
        step_.clear();
        for (int i = 0; i < tokens; ++i) step_.add(100 + (i * 7 + salt * 31) % 40000, i, sequence, i == tokens - 1);
        step_.run(context_);
        return choose(tokens - 1);
    }

    llama_token choose(int index) {
        const float *logits = llama_get_logits_ith(context_, index);
        return static_cast<llama_token>(std::max_element(logits, logits + vocab_) - logits);
    }

    llama_context *context_;
    int vocab_;
    Step step_;
};

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: llama_driver MODEL.gguf THREADS\n");
        return 2;
    }
    const double began = now_s();
    llama_log_set(listen, nullptr);
    llama_backend_init();
    llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = kContext;
    params.n_batch = params.n_ubatch = kStepTokens;
    params.n_seq_max = kMostRows;
    params.n_threads = params.n_threads_batch = std::atoi(argv[2]);
    llama_context *context = llama_init_from_model(model, params);
    if (!context) return 1;
    std::printf("{\"ready\": true, \"load_s\": %.4f, \"weights_repacked\": %s}\n", now_s() - began,
                g_repacked ? "true" : "false");
    std::fflush(stdout);
    Peer peer(model, context);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string what;
        int rows = 0, context_tokens = 0, tokens = 0;
        words >> what >> rows >> context_tokens >> tokens;
        const double seconds = what == "prefill" ? peer.prefill(context_tokens) : peer.decode(rows, context_tokens, tokens);
        std::printf("{\"seconds\": %.6f}\n", seconds);
        std::fflush(stdout);
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
