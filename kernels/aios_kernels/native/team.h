// Threads that work on one step together.
//
// Between steps they sleep; inside a step they wait for one another by a short spin, then by yielding, then asleep, so
// a processor that others need is given away soon. Which thread does which part never shows in a result.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace aios {

class Team {
public:
    explicit Team(int size) : size_(size) {
        for (int rank = 1; rank < size; ++rank) threads_.emplace_back([this, rank] { live(rank); });
    }

    ~Team() {
        job_ = nullptr;
        start();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Run `job(rank)` on every thread, the caller's being rank 0; returns when all have returned.
    void run(const std::function<void(int)>& job) {
        job_ = &job;
        if (size_ > 1) start();
        job(0);
        barrier();
    }

    // Wait until every thread of the job is here.
    void barrier() {
        if (size_ == 1) return;
        const uint32_t round = round_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            round_.notify_all();
            return;
        }
        for (int i = 0; i < SPINS; ++i) {
            if (round_.load(std::memory_order_acquire) != round) return;
            _mm_pause();
        }
        for (int i = 0; i < YIELDS; ++i) {
            if (round_.load(std::memory_order_acquire) != round) return;
            sched_yield();
        }
        round_.wait(round, std::memory_order_acquire);
    }

private:
    static constexpr int SPINS = 1000;
    static constexpr int YIELDS = 100;

    void start() {
        steps_.fetch_add(1, std::memory_order_release);
        steps_.notify_all();
    }

    void live(int rank) {
        for (uint32_t seen = 0;;) {
            steps_.wait(seen, std::memory_order_acquire);
            seen = steps_.load(std::memory_order_acquire);
            if (!job_) return;
            (*job_)(rank);
            barrier();
        }
    }

    const int size_;
    const std::function<void(int)>* job_ = nullptr;
    alignas(64) std::atomic<uint32_t> steps_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> round_{0};
    std::vector<std::thread> threads_;
};

// Hands out the parts of one phase after another, each part once.
class Counters {
public:
    // Call outside the job.
    void reset(size_t phases) {
        if (counters_.size() < phases) counters_ = std::vector<Counter>(phases);
        for (auto& counter : counters_) counter.next.store(0, std::memory_order_relaxed);
    }

    int take(size_t phase) { return counters_[phase].next.fetch_add(1, std::memory_order_relaxed); }

private:
    struct alignas(64) Counter {
        std::atomic<int> next{0};
        Counter() = default;
        Counter(const Counter&) {}
    };
    std::vector<Counter> counters_;
};

}  // namespace aios
