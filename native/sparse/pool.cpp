#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <new>
#include <thread>

#if defined(_WIN32)
static int process() { return 0; }  // nothing forks
#else
#include <unistd.h>
static int process() { return static_cast<int>(getpid()); }
#endif

namespace nucprune {
namespace {

constexpr int32_t kMostThreads = 256;

struct Job {
    void (*fn)(void *, int32_t);
    void *context;
    int32_t next, tasks;
    int32_t helpers_wanted;
    int32_t helpers = 0;  // at work now
};

// Never destroyed, its threads detached: at exit a thread may still wait, and after a fork the
// parent's threads and perhaps locked mutexes must not be touched.
struct Pool {
    const int owner = process();
    Pool *const parents;  // kept reachable, so that leak checkers stay quiet
    std::mutex mutex;
    std::condition_variable work, done;
    std::list<Job *> jobs;
    int32_t threads = 0;

    explicit Pool(Pool *before) : parents(before) {}

    void help() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            Job *job = nullptr;
            for (Job *each : jobs)
                if (each->next < each->tasks && each->helpers < each->helpers_wanted) {
                    job = each;
                    break;
                }
            if (!job) {
                work.wait(lock);
                continue;
            }
            ++job->helpers;
            claim(*job, lock);
            if (--job->helpers == 0) done.notify_all();
        }
    }

    void claim(Job &job, std::unique_lock<std::mutex> &lock) {
        while (job.next < job.tasks) {
            const int32_t task = job.next++;
            lock.unlock();
            job.fn(job.context, task);
            lock.lock();
        }
    }

    void run(Job &job) {
        std::unique_lock<std::mutex> lock(mutex);
        const auto at = jobs.insert(jobs.end(), &job);
        while (threads < job.helpers_wanted && threads < kMostThreads) {
            try {
                std::thread([this] { help(); }).detach();
            } catch (const std::exception &) {
                break;  // the caller does it alone
            }
            ++threads;
        }
        for (int32_t i = 0; i < job.helpers_wanted; ++i) work.notify_one();
        claim(job, lock);
        done.wait(lock, [&] { return job.helpers == 0; });
        jobs.erase(at);
    }
};

std::atomic<Pool *> current{nullptr};

Pool &pool() {
    Pool *found = current.load(std::memory_order_acquire);
    while (!found || found->owner != process()) {
        Pool *made = new Pool(found);
        if (current.compare_exchange_strong(found, made, std::memory_order_acq_rel))
            return *made;
        delete made;
    }
    return *found;
}

}  // namespace

void parallel(int32_t tasks, int32_t threads, void (*fn)(void *, int32_t), void *context) {
    const int32_t helpers = std::min({threads, tasks, kMostThreads}) - 1;
    if (helpers > 0) {
        Job job{fn, context, 0, tasks, helpers};
        try {
            pool().run(job);
            return;
        } catch (const std::bad_alloc &) {
            // Thrown before a task was claimed; the loop below needs no memory.
        }
    }
    for (int32_t task = 0; task < tasks; ++task) fn(context, task);
}

}  // namespace nucprune
