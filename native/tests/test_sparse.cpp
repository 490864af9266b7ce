// The C ABI against a plain network in double, on every instruction set that is here.
// Exit code 0 where all is well; NUCPRUNE_TEST_QUICK makes it short (emulators, sanitizers).
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "nucprune_sparse.h"
#include "reference.hpp"

namespace {

std::atomic<int> failures{0};
bool quick = false;

void check(bool good, const std::string &what) {
    if (good) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    ++failures;
}

struct Net {
    nucprune_sparse_net *handle;
    Net(const Model &model, const char *isa) {
        char why[300] = "";
        handle = nucprune_sparse_create(model.widths.data(), model.depth(), model.kernels.data(),
                                        isa, why, sizeof why);
        check(handle != nullptr, why);
    }
    ~Net() { nucprune_sparse_free(handle); }
    Net(const Net &) = delete;
    Net &operator=(const Net &) = delete;

    void load(const Model &model, int32_t threads = 1) {
        std::vector<const float *> weights, biases;
        std::vector<const uint8_t *> masks;
        for (size_t i = 0; i < model.weights.size(); ++i) {
            weights.push_back(model.weights[i].data());
            biases.push_back(model.biases[i].data());
            masks.push_back(model.masks[i].data());
        }
        check(nucprune_sparse_load(handle, weights.data(), biases.data(), masks.data(), threads) ==
                  NUCPRUNE_OK,
              "load");
    }

    std::vector<float> run(const std::vector<uint8_t> &rgb, int h, int w, int32_t threads,
                           int32_t code = NUCPRUNE_OK, const int32_t *cancel = nullptr,
                           int32_t *progress = nullptr) {
        std::vector<float> out(static_cast<size_t>(h) * w);
        const int32_t found = nucprune_sparse_run(handle, rgb.data(), 0, 3 * w, h, w, out.data(), w,
                                                  threads, cancel, progress, nullptr);
        check(found == code || code < 0, "run returns " + std::to_string(found));
        return out;
    }
};

std::vector<std::string> isas() {
    std::vector<std::string> found;
    for (const char *name : {"avx512", "avx2", "neon", "baseline"})
        if (nucprune_sparse_has_isa(name)) found.push_back(name);
    return found;
}

double difference(const std::vector<float> &a, const std::vector<double> &b) {
    double worst = 0, scale = 1;
    for (size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
        scale = std::max(scale, std::abs(b[i]));
    }
    return worst / scale;
}

void networks() {
    struct Case {
        std::vector<int32_t> widths;
        double density;
        int rows, columns;  // in cells of the pooling grid
        bool ones;
    };
    const std::vector<Case> cases = {
        {{16, 32, 64}, 0.1, 6, 11, false}, {{5, 3, 7, 2}, 0.5, 3, 4, true},
        {{1}, 1.0, 1, 1, false},           {{7}, 0.3, 9, 21, false},
        {{2, 3}, 0.05, 8, 65, false},      {{4, 8, 8, 8, 8}, 1.0, 2, 3, false},
        {{3, 4, 40, 70}, 0.02, 1, 5, true}, {{6, 5}, 0.0, 2, 2, false},
        {{17, 33}, 0.4, 5, 3, true},       {{2, 2, 2, 2, 2, 2, 2, 2}, 0.7, 1, 2, false}};
    for (size_t i = 0; i < cases.size(); ++i) {
        const Case &each = cases[i];
        const Model model(each.widths, each.density, static_cast<unsigned>(i), each.ones);
        const int h = each.rows * model.grid(), w = each.columns * model.grid();
        const auto rgb = noise(h, w, static_cast<unsigned>(i));
        const auto wanted = model.run(rgb, h, w);
        for (const std::string &isa : isas()) {
            Net net(model, isa.c_str());
            for (int32_t threads : {1, 3}) {
                net.load(model, threads);
                int32_t progress = -1;
                const auto found = net.run(rgb, h, w, threads, NUCPRUNE_OK, nullptr, &progress);
                const double error = difference(found, wanted);
                check(error < 1e-5, isa + ", case " + std::to_string(i) + ", threads " +
                                        std::to_string(threads) + ": " + std::to_string(error));
                check(progress == 1000, "progress ends at 1000");
            }
        }
    }
}

// Wide enough to be cut in x, and sizes that change from run to run.
void sizes() {
    const Model model({4, 6, 5}, 0.4, 7);
    for (const std::string &isa : isas()) {
        Net net(model, isa.c_str());
        net.load(model);
        for (auto [h, w] : {std::pair{8, 1700}, {4, 4}, {36, 132}, {12, 3204}, {200, 8}}) {
            const auto rgb = noise(h, w, 3);
            const double error = difference(net.run(rgb, h, w, 2), model.run(rgb, h, w));
            check(error < 1e-5, isa + " at " + std::to_string(h) + " x " + std::to_string(w) +
                                    ": " + std::to_string(error));
        }
    }
}

void threads() {
    const Model a({8, 16, 24}, 0.2, 1), b({5, 9}, 0.5, 2);
    for (const std::string &isa : isas()) {
        Net one(a, isa.c_str()), two(b, isa.c_str());
        one.load(a);
        two.load(b);
        const int h = 40, w = 72;
        const auto rgb = noise(h, w, 5);
        const auto wanted_one = one.run(rgb, h, w, 1), wanted_two = two.run(rgb, h, w, 1);
        std::vector<std::thread> all;
        for (int i = 0; i < 6; ++i)
            all.emplace_back([&, i] {
                for (int n = 0; n < (quick ? 3 : 20); ++n) {
                    Net &net = i % 2 ? two : one;
                    check(net.run(rgb, h, w, 1 + i % 4) == (i % 2 ? wanted_two : wanted_one),
                          isa + ": several threads at once");
                }
            });
        // Another network may be loaded meanwhile.
        Net third(b, isa.c_str());
        for (int n = 0; n < 5; ++n) third.load(b, 3);
        for (std::thread &thread : all) thread.join();
    }
}

void cancelling() {
    const Model model({16, 32, 64}, 1.0, 4);
    Net net(model, nullptr);
    net.load(model, 2);
    const int side = quick ? 256 : 768;
    const auto rgb = noise(side, side, 1);
    int32_t cancel = 1;
    net.run(rgb, side, side, 2, NUCPRUNE_CANCELLED, &cancel);
    using Clock = std::chrono::steady_clock;
    double worst = 0;
    for (int32_t threads = 1; threads <= 3; ++threads) {
        int32_t flag = 0, progress = 0;
        Clock::time_point asked;
        std::thread run([&] { net.run(rgb, side, side, threads, -1, &flag, &progress); });
        while (__atomic_load_n(&progress, __ATOMIC_RELAXED) < 300)
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        asked = Clock::now();
        __atomic_store_n(&flag, 1, __ATOMIC_RELAXED);
        run.join();
        worst = std::max(worst, std::chrono::duration<double>(Clock::now() - asked).count());
    }
    std::printf("cancelled after at most %.1f ms\n", 1e3 * worst);
    check(quick || worst < 0.05, "cancelled within 50 ms");
    const auto small = noise(64, 64, 2);
    check(difference(net.run(small, 64, 64, 2), model.run(small, 64, 64)) < 1e-5,
          "right again after a cancelled run");
}

void refusals() {
    char why[300];
    const int32_t widths[] = {4, 0}, good[] = {4, 8};
    check(!nucprune_sparse_create(widths, 2, nullptr, nullptr, why, sizeof why), "width 0");
    check(!nucprune_sparse_create(good, 9, nullptr, nullptr, why, sizeof why), "depth 9");
    const int32_t kernels[] = {5, 3, 3, 3, 3, 3, 3, 3};
    check(!nucprune_sparse_create(good, 2, kernels, nullptr, why, sizeof why), "5x5");
    check(!nucprune_sparse_create(good, 2, nullptr, "sse9", why, sizeof why), "sse9");
    check(std::strstr(why, "sse9") != nullptr, "the sentence names it");
    const Model model({4, 8}, 1.0, 1);
    Net net(model, nullptr);
    const auto rgb = noise(16, 16, 1);
    net.run(rgb, 16, 16, 1, NUCPRUNE_INVALID);  // nothing loaded
    net.load(model);
    net.run(rgb, 16, 15, 1, NUCPRUNE_INVALID);  // off the grid
    net.run(rgb, 16, 16, 0);                    // as one thread
    check(nucprune_sparse_run(net.handle, nullptr, 0, 48, 16, 16, nullptr, 16, 1, nullptr, nullptr,
                              nullptr) == NUCPRUNE_INVALID,
          "no image");
}

#if !defined(_WIN32)
void forking() {
    const Model model({4, 8}, 0.5, 6);
    Net net(model, nullptr);
    net.load(model, 3);
    const auto rgb = noise(64, 64, 1);
    const auto wanted = net.run(rgb, 64, 64, 3);
    const pid_t child = fork();
    if (child == 0) _exit(net.run(rgb, 64, 64, 3) == wanted ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child runs");
}
#endif

}  // namespace

int main() {
    quick = std::getenv("NUCPRUNE_TEST_QUICK") != nullptr;
    std::string found;
    for (const std::string &isa : isas()) found += " " + isa;
    std::printf("instruction sets:%s\n", found.c_str());
    refusals();
    networks();
    sizes();
    threads();
    cancelling();
#if !defined(_WIN32)
    if (!std::getenv("NUCPRUNE_TEST_NO_FORK")) forking();
#endif
    std::printf(failures ? "%d failures\n" : "all good\n", failures.load());
    return failures ? 1 : 0;
}
