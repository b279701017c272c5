/* Streams and events. Lazy (as it is unless asked otherwise): work runs when somebody waits for it and not before, so
 * that who forgets to wait sees what was there before. Eager: work runs as soon as it can. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "emulation/emulation.h"

namespace emulation {

struct stream {
    std::deque<std::unique_ptr<work>> queue;
    uint64_t queued = 0, done = 0;
    bool waits_for_default = true; /* and is waited for by it */
    int priority = 0;
};

struct event {
    place at = {nullptr, 0}; /* last recorded */
    std::shared_ptr<double> seconds;
    bool timed = true;
};

/* Until the process ends. First the default one; those destroyed stay, with what they have queued. */
static std::vector<stream *> &streams = *new std::vector<stream *>;
static std::set<const void *> &alive = *new std::set<const void *>; /* streams and events */
static int working;

static bool eager() {
    static int mode = -1;
    if (mode < 0) {
        const char *name = setting("VQMOE_EMULATION_STREAMS", "lazy");
        mode = strcmp(name, "eager") == 0;
        if (!mode && strcmp(name, "lazy") != 0) die("VQMOE_EMULATION_STREAMS: expected lazy or eager, found %s", name);
    }
    return mode != 0;
}

static stream *default_stream() {
    if (streams.empty()) streams.push_back(new stream);
    return streams[0];
}

static stream *stream_of(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) return default_stream();
    if (!alive.count(handle)) die("a stream that does not exist, or not any more");
    return (stream *)handle;
}

static bool exists(const void *handle) { return alive.count(handle) != 0; }

bool device_is_working() { return working > 0; }

/* True when so many pieces are done. Whoever waits for another stream takes that one along. */
static bool advance(stream *s, uint64_t number) {
    while (s->done < number) {
        if (!s->queue.front()->advance()) return false;
        s->queue.pop_front();
        s->done++;
    }
    return true;
}

/* What is stuck waits for another process, which may wait for any of our streams: then all go on. */
static bool go_on(place place) {
    if (place.on->done >= place.number) return true;
    if (working++ == 0) open_device_memory();
    bool done = advance(place.on, place.number);
    if (!done) {
        for (size_t i = 0; i < streams.size(); i++) advance(streams[i], streams[i]->queued);
        done = advance(place.on, place.number);
    }
    if (--working == 0) close_device_memory();
    return done;
}

void wait_for(place place) {
    while (!go_on(place)) sched_yield();
}

void wait_for_all() {
    for (size_t i = 0; i < streams.size(); i++) wait_for({streams[i], streams[i]->queued});
}

struct wait_work : work {
    place until;
    explicit wait_work(place given) : until(given) {}
    bool advance() override { return emulation::advance(until.on, until.number); }
};

static void push(stream *s, work *work) {
    s->queue.emplace_back(work);
    s->queued++;
}

static void push_wait(stream *s, place until) {
    if (until.on != s && until.on->done < until.number) push(s, new wait_work(until));
}

static void run_if_eager(stream *s) {
    if (!eager() || working > 0) return;
    if (working++ == 0) open_device_memory();
    advance(s, s->queued);
    if (--working == 0) close_device_memory();
}

void enqueue(cudaStream_t handle, work *work) {
    stream *s = stream_of(handle), *none = default_stream();
    if (s == none) {
        for (stream *other : streams)
            if (other->waits_for_default) push_wait(s, {other, other->queued});
    } else if (s->waits_for_default)
        push_wait(s, {none, none->queued});
    push(s, work);
    run_if_eager(s);
}

place place_of(cudaStream_t handle) {
    stream *s = stream_of(handle);
    return {s, s->queued};
}

void enqueue_wait(cudaStream_t handle, place place) {
    if (!place.on) return;
    push_wait(stream_of(handle), place);
    run_if_eager(stream_of(handle));
}

struct record_work : work {
    std::shared_ptr<double> seconds;
    explicit record_work(std::shared_ptr<double> given) : seconds(given) {}
    bool advance() override {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
        return true;
    }
};

} // namespace emulation

using namespace emulation;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
    first_use();
    default_stream();
    stream *s = new stream;
    s->waits_for_default = !(flags & cudaStreamNonBlocking);
    s->priority = priority;
    streams.push_back(s);
    alive.insert(s);
    *out = (cudaStream_t)s;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    return cudaStreamCreateWithPriority(out, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithPriority(out, cudaStreamDefault, 0); }

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
    *priority = stream_of(handle)->priority;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    alive.erase(handle);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    wait_for(place_of(handle));
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) { return go_on(place_of(handle)) ? cudaSuccess : cudaErrorNotReady; }

cudaError_t cudaDeviceSynchronize() {
    first_use();
    wait_for_all();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    first_use();
    event *e = new event;
    e->timed = !(flags & cudaEventDisableTiming);
    alive.insert(e);
    *out = (cudaEvent_t)e;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    alive.erase(handle);
    delete (event *)handle;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    event *e = (event *)handle;
    e->seconds = std::make_shared<double>(0);
    enqueue(on, new record_work(e->seconds));
    e->at = place_of(on);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t on, cudaEvent_t handle, unsigned) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    enqueue_wait(on, ((event *)handle)->at);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    event *e = (event *)handle;
    return !e->at.on || go_on(e->at) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    if (!exists(handle)) return report(cudaErrorInvalidResourceHandle);
    event *e = (event *)handle;
    if (e->at.on) wait_for(e->at);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    if (!exists(start) || !exists(end)) return report(cudaErrorInvalidResourceHandle);
    event *first = (event *)start, *last = (event *)end;
    if (!first->timed || !last->timed || !first->at.on || !last->at.on) return report(cudaErrorInvalidResourceHandle);
    if (!go_on(first->at) || !go_on(last->at)) return cudaErrorNotReady;
    *milliseconds = (float)((*last->seconds - *first->seconds) * 1e3);
    return cudaSuccess;
}
