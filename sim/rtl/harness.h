// C ABI of a simulated accelerator: what sim/rtl/library.py loads with ctypes. Cycles count from the harness's start.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

// The machine's surroundings; see MachineConfig for the meaning of each.
struct Settings {
    uint32_t latency;
    uint32_t shared;
    uint32_t max_reads;
    uint32_t max_writes;
};

// What happened since phonolith_begin. `*_cycle`, `*_address`, `*_kind` describe the first event of that sort.
struct Report {
    uint64_t cycle;
    uint64_t start_cycle;      // the start write was accepted
    uint64_t done_cycle;       // irq was first seen high; 0: not yet
    uint64_t last_beat_cycle;  // latest transfer on any AXI channel
    uint64_t read_beats;
    uint64_t write_beats;
    uint64_t protocol_errors;
    uint64_t protocol_kind;  // enum Protocol
    uint64_t protocol_cycle;
    uint64_t protocol_address;
    uint64_t bus_errors;  // accesses outside the memory, answered with SLVERR
    uint64_t bus_error_cycle;
    uint64_t bus_error_address;
};

// One accepted write beat. Bit b of `strobe` stands for the byte at `address` + b.
struct WriteRecord {
    uint64_t cycle;
    uint64_t address;
    uint64_t strobe;
};

// One on-chip memory: `words` elements, `stride` bytes apart, the value in the low bytes of each. It may be read and
// written between cycles while the accelerator is idle.
struct MemoryView {
    const char *name;
    void *data;
    uint64_t words;
    uint64_t stride;
};

// What the engines and the bus did in a cycle, and until the next record: see signals.py for the bits.
struct EventRecord {
    uint64_t cycle;
    uint32_t pulses;  // in this cycle only
    uint32_t levels;
};

// What goes wrong with transaction `index` (from 0 on, since phonolith_begin) of a channel. A failed write changes
// nothing; a read fails in `beat`, or in its last beat if it has fewer.
struct Fault {
    uint32_t channel;  // enum FaultChannel
    uint32_t index;
    uint32_t response;  // 2: SLVERR, 3: DECERR, kSilent: none until the next phonolith_begin
    uint32_t beat;
};

enum FaultChannel : uint32_t { kReadChannel, kWriteChannel };
enum FaultResponse : uint32_t { kSilent = 4 };

enum Protocol : uint64_t {
    kNone,
    kReadCrosses4K,
    kWriteCrosses4K,
    kReadBurstShape,
    kWriteBurstShape,
    kWriteLast,
    kReadAddressUnstable,
    kWriteAddressUnstable,
    kWriteDataUnstable,
};

enum Answer : int { kOkay = 0, kNoAnswer = 1, kErrorResponse = 2 };

void *phonolith_create(const Settings *settings);
void phonolith_destroy(void *machine);
void phonolith_reset(void *machine);
void phonolith_memory(void *machine, uint8_t *bytes, uint64_t size);
void phonolith_begin(void *machine, uint64_t stalls_seed, int log_writes);
void phonolith_fault(void *machine, const Fault *fault);
int phonolith_write(void *machine, uint32_t address, uint32_t value);
int phonolith_read(void *machine, uint32_t address, uint32_t *value);
int phonolith_run(void *machine, uint64_t cycles);  // 1: irq is high; 0: it is not after that many cycles
void phonolith_report(void *machine, Report *report);
uint64_t phonolith_log(void *machine, const WriteRecord **records);
uint64_t phonolith_events(void *machine, const EventRecord **records);  // none unless built with events
int phonolith_memory_view(void *machine, uint64_t index, MemoryView *view);  // 0: there are not that many
int phonolith_trace(void *machine, const char *path);  // 0: this build has no tracing; a null path closes the file
}
#pragma GCC visibility pop
