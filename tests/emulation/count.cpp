/* The kernels are compiled with -fsanitize=thread and linked to this file in the place of its library, so that every
 * load and store of theirs calls a function here. */
#include "emulation/count.h"

#include <stdint.h>
#include <string.h>

#include <map>
#include <string>
#include <vector>

#include "emulation/emulation.h"

namespace emulation {

enum { SECTOR = 32, FIRST_SLOTS = 1 << 12 };

/* Sectors seen since it was last cleared. */
struct sector_set {
    std::vector<uintptr_t> sectors = std::vector<uintptr_t>(FIRST_SLOTS);
    std::vector<uint32_t> epochs = std::vector<uint32_t>(FIRST_SLOTS);
    uint32_t epoch = 1;
    size_t used = 0;

    void clear() {
        epoch++;
        used = 0;
    }
    /* Whether it is new. */
    bool add(uintptr_t sector) {
        size_t mask = sectors.size() - 1, at = (sector * 0x9E3779B97F4A7C15ULL >> 20) & mask;
        for (; epochs[at] == epoch; at = (at + 1) & mask)
            if (sectors[at] == sector) return false;
        sectors[at] = sector;
        epochs[at] = epoch;
        if (++used * 2 > sectors.size()) grow();
        return true;
    }
    void grow() {
        std::vector<uintptr_t> kept;
        for (size_t i = 0; i < sectors.size(); i++)
            if (epochs[i] == epoch) kept.push_back(sectors[i]);
        sectors.assign(2 * sectors.size(), 0);
        epochs.assign(sectors.size(), 0);
        epoch = 1;
        used = 0;
        for (uintptr_t sector : kept) add(sector);
    }
};

static std::map<std::string, emulation_count> counts;
static emulation_count *now; /* of the kernel that runs */
static sector_set block_loads, block_stores, launch_loads, launch_stores;
static const allocation *last_found;

static bool is_device_memory(const char *at) {
    if (last_found && at >= last_found->at && at < last_found->at + last_found->bytes) return true;
    const allocation *a = find_allocation(at);
    if (!a || a->kind == MEMORY_PINNED) return false;
    last_found = a;
    return true;
}

static void touch(const volatile void *pointer, size_t bytes, bool store) {
    const char *at = (const char *)const_cast<const void *>(pointer);
    if (!now || bytes == 0 || !is_device_memory(at)) return;
    (store ? now->stored : now->loaded) += (double)bytes;
    for (uintptr_t sector = (uintptr_t)at / SECTOR; sector <= ((uintptr_t)at + bytes - 1) / SECTOR; sector++) {
        if (!(store ? block_stores : block_loads).add(sector)) continue;
        (store ? now->block_stored : now->block_loaded) += SECTOR;
        if ((store ? launch_stores : launch_loads).add(sector))
            (store ? now->least_stored : now->least_loaded) += SECTOR;
    }
}

} // namespace emulation

using namespace emulation;

extern "C" {

void emulation_count_reset(void) { counts.clear(); }

void emulation_count_each(void (*each)(const char *, const struct emulation_count *, void *), void *context) {
    for (auto &count : counts) each(count.first.c_str(), &count.second, context);
}

void emulation_count_begin(const char *kernel) {
    std::string name = kernel;
    if (name.size() > 2 && name.front() == '(' && name.back() == ')') name = name.substr(1, name.size() - 2);
    now = &counts[name];
    now->launches++;
    last_found = nullptr;
    launch_loads.clear();
    launch_stores.clear();
}

void emulation_count_block(void) {
    block_loads.clear();
    block_stores.clear();
}

void emulation_count_end(void) { now = nullptr; }

void emulation_count_gemm(double operations, double loaded, double stored) {
    emulation_count *gemm = &counts["gemm"];
    gemm->launches++;
    gemm->operations += operations;
    gemm->loaded += loaded, gemm->block_loaded += loaded, gemm->least_loaded += loaded;
    gemm->stored += stored, gemm->block_stored += stored, gemm->least_stored += stored;
}

#define ACCESS(bytes) \
    void __tsan_read##bytes(void *at) { touch(at, bytes, false); } \
    void __tsan_write##bytes(void *at) { touch(at, bytes, true); } \
    void __tsan_unaligned_read##bytes(void *at) { touch(at, bytes, false); } \
    void __tsan_unaligned_write##bytes(void *at) { touch(at, bytes, true); } \
    void __tsan_volatile_read##bytes(void *at) { touch(at, bytes, false); } \
    void __tsan_volatile_write##bytes(void *at) { touch(at, bytes, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_read_range(void *at, size_t bytes) { touch(at, bytes, false); }
void __tsan_write_range(void *at, size_t bytes) { touch(at, bytes, true); }
void __tsan_vptr_read(void **) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_atomic_thread_fence(int) {}

static void touch_both(const volatile void *at, size_t bytes) {
    touch(at, bytes, false);
    touch(at, bytes, true);
}

#define ATOMIC(bits, type) \
    type __tsan_atomic##bits##_load(const volatile type *at, int) { \
        touch(at, sizeof *at, false); \
        return *at; \
    } \
    void __tsan_atomic##bits##_store(volatile type *at, type x, int) { \
        touch(at, sizeof *at, true); \
        *at = x; \
    } \
    type __tsan_atomic##bits##_exchange(volatile type *at, type x, int) { \
        type was = *at; \
        touch_both(at, sizeof *at); \
        *at = x; \
        return was; \
    } \
    type __tsan_atomic##bits##_fetch_add(volatile type *at, type x, int) { \
        type was = *at; \
        touch_both(at, sizeof *at); \
        *at = (type)(was + x); \
        return was; \
    } \
    type __tsan_atomic##bits##_fetch_or(volatile type *at, type x, int) { \
        type was = *at; \
        touch_both(at, sizeof *at); \
        *at = (type)(was | x); \
        return was; \
    } \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *at, type *expected, type x, int, int) { \
        bool equal = *at == *expected; \
        touch_both(at, sizeof *at); \
        *expected = *at; \
        if (equal) *at = x; \
        return equal; \
    }
ATOMIC(8, uint8_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

/* The program is linked with --wrap for these. */
void *__real_memcpy(void *to, const void *from, size_t bytes);
void *__real_memmove(void *to, const void *from, size_t bytes);
void *__real_memset(void *to, int byte, size_t bytes);

void *__wrap_memcpy(void *to, const void *from, size_t bytes) {
    touch(from, bytes, false);
    touch(to, bytes, true);
    return __real_memcpy(to, from, bytes);
}

void *__wrap_memmove(void *to, const void *from, size_t bytes) {
    touch(from, bytes, false);
    touch(to, bytes, true);
    return __real_memmove(to, from, bytes);
}

void *__wrap_memset(void *to, int byte, size_t bytes) {
    touch(to, bytes, true);
    return __real_memset(to, byte, bytes);
}
}
