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

enum { FIRST_SLOTS = 1 << 12 };
static const unsigned SECTOR = 32;

struct sector {
    uint32_t number; /* from the start of the address space that is looked at */
    uint32_t epoch;  /* when it was seen */
    uint32_t bytes;  /* a bit for each that was touched */
    uint32_t blocks; /* that touched it, 2 for more */
};

/* Sectors seen since it was last cleared. */
struct sector_set {
    std::vector<sector> slots = std::vector<sector>(FIRST_SLOTS);
    uint32_t epoch = 1;
    size_t used = 0;

    void clear() {
        epoch++;
        used = 0;
    }
    /* A new one has no bytes. */
    sector &at(uint32_t number) {
        if (used * 2 > slots.size()) grow();
        size_t mask = slots.size() - 1, i = (number * 0x9E3779B97F4A7C15ULL >> 20) & mask;
        for (; slots[i].epoch == epoch; i = (i + 1) & mask)
            if (slots[i].number == number) return slots[i];
        used++;
        slots[i] = sector{number, epoch, 0, 0};
        return slots[i];
    }
    void grow() {
        std::vector<sector> kept(2 * slots.size());
        kept.swap(slots);
        used = 0;
        for (const sector &s : kept)
            if (s.epoch == epoch) at(s.number) = s;
    }
};

static std::map<std::string, emulation_count> counts;
static emulation_count *now; /* of the kernel that runs */
static double shared_loaded; /* by the launch that runs */
static std::vector<emulation_product> products;
static sector_set block_loads, block_stores, launch_loads, launch_stores;
static const allocation *last_found;
static uintptr_t base; /* what sectors are numbered from */

static bool is_device_memory(const char *at) {
    if (last_found && at >= last_found->at && at < last_found->at + last_found->bytes) return true;
    const allocation *a = find_allocation(at);
    if (!a || a->kind == MEMORY_PINNED) return false;
    last_found = a;
    return true;
}

static void touch_sector(uint32_t number, uint32_t bytes, bool store) {
    sector &here = (store ? block_stores : block_loads).at(number);
    bytes &= ~here.bytes;
    if (!bytes) return;
    sector &all = (store ? launch_stores : launch_loads).at(number);
    if (!here.bytes) {
        (store ? now->block_stored : now->block_loaded) += SECTOR;
        if (all.blocks == 1 && !store) shared_loaded += SECTOR;
        if (all.blocks < 2) all.blocks++;
    }
    (store ? now->least_stored : now->least_loaded) += __builtin_popcount(bytes & ~all.bytes);
    here.bytes |= bytes;
    all.bytes |= bytes;
}

static void touch(const volatile void *pointer, size_t bytes, bool store) {
    const char *at = (const char *)const_cast<const void *>(pointer);
    if (!now || bytes == 0 || !is_device_memory(at)) return;
    (store ? now->stored : now->loaded) += (double)bytes;
    if (!base) base = ((uintptr_t)at - ((uintptr_t)1 << 36)) / SECTOR; /* 128 GiB around the first */
    uintptr_t first = (uintptr_t)at / SECTOR, last = ((uintptr_t)at + bytes - 1) / SECTOR;
    for (uintptr_t s = first; s <= last; s++) {
        if (s - base > UINT32_MAX) die("counts: device memory too far apart");
        unsigned from = s == first ? (uintptr_t)at % SECTOR : 0;
        unsigned to = s == last ? ((uintptr_t)at + bytes - 1) % SECTOR + 1 : SECTOR;
        touch_sector((uint32_t)(s - base), (uint32_t)((((uint64_t)1 << (to - from)) - 1) << from), store);
    }
}

} // namespace emulation

using namespace emulation;

extern "C" {

void emulation_count_reset(void) {
    counts.clear();
    products.clear();
}

void emulation_count_each(void (*each)(const char *, const struct emulation_count *, void *), void *context) {
    for (auto &count : counts) each(count.first.c_str(), &count.second, context);
}

void emulation_products_each(void (*each)(const struct emulation_product *, void *), void *context) {
    for (const emulation_product &product : products) each(&product, context);
}

/* From "const char* emulation::instance_of() [with auto Kernel = NAME]". */
static std::string name_of(const char *instance) {
    std::string name = instance;
    size_t from = name.find("Kernel = ");
    if (from != std::string::npos)
        name = name.substr(from + strlen("Kernel = "), name.size() - from - strlen("Kernel = ") - 1);
    return name;
}

void emulation_count_begin(const char *instance) {
    now = &counts[name_of(instance)];
    now->launches++;
    shared_loaded = 0;
    last_found = nullptr;
    launch_loads.clear();
    launch_stores.clear();
}

void emulation_count_block(void) {
    block_loads.clear();
    block_stores.clear();
}

void emulation_count_end(void) {
    if (shared_loaded > now->shared_loaded) now->shared_loaded = shared_loaded;
    now = nullptr;
}

void emulation_count_gemm(int64_t N, int64_t O, int64_t I, int64_t count, int factor_bytes, int result_bytes,
                          bool adds) {
    emulation_count *gemm = &counts["gemm"];
    double operations = 2.0 * (double)N * (double)O * (double)I * (double)count;
    double stored = (double)(N * O * count) * result_bytes;
    double loaded = (double)((N + O) * I * count) * factor_bytes + (adds ? stored : 0);
    products.push_back(emulation_product{N, O, I, count, factor_bytes, result_bytes, adds});
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
