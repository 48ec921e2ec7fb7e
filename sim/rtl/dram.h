// The DRAM behind the accelerator's AXI4 port.
//
// A read address accepted in cycle t gives its first beat in cycle t + latency, or as soon as the beats before it have
// gone; then one beat per cycle. A response comes `latency` cycles after the last write beat (or after its address, if
// that is later). Everything stays in order. Data are read when the address is accepted and written when the response
// is given, so a program that reads what it has not waited for gets the old bytes, always.
//
// Each cycle: drive() decides the memory's side from its state alone, then, when the accelerator's outputs have
// settled, observe() takes what was transferred.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "harness.h"

// A queue in a fixed ring of `capacity` elements.
template <class T>
class Ring {
public:
    explicit Ring(size_t capacity) : items_(capacity) {}
    bool empty() const { return size_ == 0; }
    size_t size() const { return size_; }
    T &front() { return items_[head_]; }
    T &push() {
        size_t at = head_ + size_++;
        return items_[at < items_.size() ? at : at - items_.size()];
    }
    void pop() {
        --size_;
        if (++head_ == items_.size()) head_ = 0;
    }
    void clear() { head_ = size_ = 0; }

private:
    std::vector<T> items_;
    size_t head_ = 0;
    size_t size_ = 0;
};

// The accelerator's outputs of one cycle.
struct AddressPins {
    bool valid;
    uint32_t address;
    uint32_t length;
    uint32_t size;
    uint32_t burst;
    uint32_t id;

    bool operator==(const AddressPins &o) const {
        return address == o.address && length == o.length && size == o.size && burst == o.burst && id == o.id;
    }
};

// Which channels may be held up in a cycle, at random; deterministic for a seed, 0 meaning never.
class Stalls {
public:
    enum Channel { kAr, kR, kAw, kW, kB, kLite };

    void seed(uint64_t seed) {
        state_ = seed * 0x9E3779B97F4A7C15ull;
        if (seed != 0 && state_ == 0) state_ = 1;
        enabled_ = seed != 0;
        for (auto &threshold : thresholds_) threshold = kLevels[enabled_ ? next() >> 62 : 0];
        if (enabled_) mode_until_ = 0;
    }
    bool enabled() const { return enabled_; }
    bool hold(Channel channel) { return enabled_ && (next() >> 56) < thresholds_[channel]; }
    // Every few hundred cycles other channels are the slow ones.
    void advance(uint64_t cycle) {
        if (!enabled_ || cycle < mode_until_) return;
        mode_until_ = cycle + 64 + (next() >> 56);
        for (auto &threshold : thresholds_) threshold = kLevels[next() >> 62];
    }

private:
    static constexpr uint32_t kLevels[4] = {0, 48, 128, 224};  // of 256

    uint64_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_;
    }

    uint64_t state_ = 0;
    uint64_t mode_until_ = 0;
    uint32_t thresholds_[6] = {};
    bool enabled_ = false;
};

template <unsigned kBytes>
class Dram {
public:
    static constexpr unsigned kMaxBeats = 256;

    // The memory's side of the pins in this cycle.
    bool arready = false, rvalid = false, rlast = false, awready = false, wready = false, bvalid = false;
    uint8_t rresp = 0, bresp = 0;
    uint32_t rid = 0, bid = 0;
    const uint8_t *rdata = nullptr;
    bool rdata_changed = false;

    Report report = {};
    std::vector<WriteRecord> log;
    bool logging = false;
    Stalls stalls;

    // A new run: counts from 0, no faults; what was left without an answer gets one.
    void begin(bool log_writes) {
        report = {};
        log.clear();
        logging = log_writes;
        faults_.clear();
        reads_accepted_ = writes_accepted_ = 0;
        silent_ = false;
    }

    void fault(const Fault &fault) {
        faults_.push_back(fault);
        silent_ |= fault.response == kSilent;
    }

    explicit Dram(const Settings &settings)
        : settings_(settings), reads_(settings.max_reads), addresses_(settings.max_writes),
          bursts_(settings.max_writes), beats_(power_of_two((settings.max_writes + 2) * kMaxBeats)),
          read_data_(new uint8_t[size_t{settings.max_reads} * kMaxBeats * kBytes]) {}

    void memory(uint8_t *bytes, uint64_t size) {
        memory_ = bytes;
        size_ = size;
    }

    void reset() {
        reads_.clear();
        addresses_.clear();
        bursts_.clear();
        beats_written_ = beats_filled_ = 0;
        rvalid = bvalid = false;
        skip_ = false;
        stalled_ar_.valid = stalled_aw_.valid = stalled_w_ = false;
    }

    void drive(uint64_t cycle) {
        stalls.advance(cycle);
        bool beat_allowed = !skip_;
        skip_ = false;
        arready = reads_.size() < settings_.max_reads && !stalls.hold(Stalls::kAr);
        awready = addresses_.size() < settings_.max_writes && !stalls.hold(Stalls::kAw);
        wready = bursts_.size() < settings_.max_writes && beat_allowed && !stalls.hold(Stalls::kW);
        drive_read(cycle, beat_allowed);
        drive_response(cycle);
    }

    void observe_read(uint64_t cycle, const AddressPins &ar, bool rready) {
        check_stable(stalled_ar_, ar, kReadAddressUnstable, cycle);
        if (ar.valid) {
            if (arready) accept_read(cycle, ar);
            else stalled_ar_ = ar;
        }
        read_beat_ = rvalid && rready;
        if (read_beat_) finish_read_beat(cycle);
    }

    void observe_write(uint64_t cycle, const AddressPins &aw, bool bready) {
        check_stable(stalled_aw_, aw, kWriteAddressUnstable, cycle);
        if (aw.valid) {
            if (awready) accept_write(cycle, aw);
            else stalled_aw_ = aw;
        }
        if (bvalid && bready) {
            bvalid = false;
            report.last_beat_cycle = cycle;
        }
    }

    void observe_data(uint64_t cycle, bool wvalid, const void *data, uint32_t strobe, bool last) {
        if (stalled_w_ && !(wvalid && same_beat(data, strobe, last))) protocol(kWriteDataUnstable, cycle, 0);
        stalled_w_ = false;
        if (!wvalid) return;
        Beat &beat = at(beats_filled_);
        std::memcpy(beat.data, data, kBytes);
        beat.strobe = strobe;
        beat.last = last;
        beat.cycle = cycle;
        if (!wready) {
            stalled_w_ = true;
            return;
        }
        accept_beat(cycle, last);
    }

private:
    struct Read {
        uint64_t first_cycle;
        uint64_t address;
        uint32_t beats, sent, id, slot;
        Fault fault;
    };
    struct Address {
        uint64_t cycle, address;
        uint32_t beats, id, response;
    };
    struct Burst {
        uint64_t last_cycle;
        size_t first;
        uint32_t beats;
    };
    struct Beat {
        uint8_t data[kBytes];
        uint32_t strobe;
        bool last;
        uint64_t cycle;
    };

    void drive_read(uint64_t cycle, bool beat_allowed) {
        if (rvalid || reads_.empty() || !beat_allowed) return;
        Read &read = reads_.front();
        if (cycle < read.first_cycle || stalls.hold(Stalls::kR)) return;
        bool faulty = read.fault.response && read.sent == std::min(read.fault.beat, read.beats - 1);
        if (faulty && read.fault.response == kSilent && silent_) return;
        rvalid = true;
        rid = read.id;
        rlast = read.sent + 1 == read.beats;
        rresp = faulty ? read.fault.response & 3 : inside(read.address + uint64_t{read.sent} * kBytes) ? 0 : 2;
        rdata = slot(read.slot) + read.sent * kBytes;
        rdata_changed = true;
    }

    void drive_response(uint64_t cycle) {
        if (bvalid || bursts_.empty() || addresses_.empty()) return;
        uint64_t complete = std::max(bursts_.front().last_cycle, addresses_.front().cycle);
        if (cycle < complete + settings_.latency || stalls.hold(Stalls::kB)) return;
        uint32_t response = addresses_.front().response;
        if (response == kSilent && silent_) return;
        bvalid = true;
        bid = addresses_.front().id;
        bresp = response & 3 ? response : commit(addresses_.front(), bursts_.front()) ? 0 : 2;
        addresses_.pop();
        bursts_.pop();
        if (bursts_.empty()) rewind_beats();
    }

    // Nothing is buffered: start again at the front, so that short writes stay in the same cache lines.
    void rewind_beats() {
        if (beats_filled_ == beats_written_ && !stalled_w_) beats_written_ = beats_filled_ = 0;
    }

    static size_t power_of_two(size_t least) {
        size_t size = 1;
        while (size < least) size *= 2;
        return size;
    }

    Beat &at(size_t index) { return beats_[index & (beats_.size() - 1)]; }
    const Beat &at(size_t index) const { return beats_[index & (beats_.size() - 1)]; }

    // The fault planned for transaction `index` of a channel; response 0 when there is none.
    Fault planned(uint32_t channel, uint32_t index) const {
        for (const Fault &fault : faults_)
            if (fault.channel == channel && fault.index == index) return fault;
        return {};
    }

    void accept_read(uint64_t cycle, const AddressPins &ar) {
        check_burst(ar, kReadCrosses4K, kReadBurstShape, cycle);
        Read &read = reads_.push();
        read = {cycle + settings_.latency, aligned(ar.address), ar.length + 1, 0, ar.id, next_slot_,
                planned(kReadChannel, reads_accepted_++)};
        if (++next_slot_ == settings_.max_reads) next_slot_ = 0;
        uint8_t *to = slot(read.slot);
        for (uint32_t i = 0; i < read.beats; ++i) fetch(read.address + uint64_t{i} * kBytes, to + i * kBytes, cycle);
        report.last_beat_cycle = cycle;
    }

    void finish_read_beat(uint64_t cycle) {
        rvalid = false;
        ++report.read_beats;
        report.last_beat_cycle = cycle;
        Read &read = reads_.front();
        if (++read.sent == read.beats) reads_.pop();
    }

    void accept_write(uint64_t cycle, const AddressPins &aw) {
        check_burst(aw, kWriteCrosses4K, kWriteBurstShape, cycle);
        addresses_.push() = {cycle, aligned(aw.address), aw.length + 1, aw.id,
                             planned(kWriteChannel, writes_accepted_++).response};
        report.last_beat_cycle = cycle;
    }

    void accept_beat(uint64_t cycle, bool last) {
        ++report.write_beats;
        report.last_beat_cycle = cycle;
        if (settings_.shared && read_beat_) skip_ = true;
        ++beats_filled_;
        auto count = static_cast<uint32_t>(beats_filled_ - beats_written_);
        if (!last && count < kMaxBeats) return;
        bursts_.push() = {cycle, beats_written_, count};
        beats_written_ = beats_filled_;
    }

    bool commit(const Address &address, const Burst &burst) {
        if (burst.beats != address.beats) protocol(kWriteLast, burst.last_cycle, address.address);
        bool okay = true;
        for (uint32_t i = 0; i < burst.beats; ++i) {
            const Beat &beat = at(burst.first + i);
            uint64_t to = address.address + uint64_t{i} * kBytes;
            if (logging && beat.strobe) log.push_back({beat.cycle, to, beat.strobe});
            if (inside(to)) {
                put(memory_ + to, beat);
            } else {
                okay = false;
                bus_error(to, beat.cycle);
            }
        }
        return okay;
    }

    static void put(uint8_t *to, const Beat &beat) {
        constexpr uint32_t kAll = kBytes == 32 ? 0xFFFFFFFFu : (1u << (kBytes % 32)) - 1;
        if (beat.strobe == kAll) {
            std::memcpy(to, beat.data, kBytes);
            return;
        }
        for (unsigned b = 0; b < kBytes; ++b)
            if (beat.strobe >> b & 1) to[b] = beat.data[b];
    }

    void fetch(uint64_t address, uint8_t *to, uint64_t cycle) {
        if (inside(address)) {
            std::memcpy(to, memory_ + address, kBytes);
            return;
        }
        std::memset(to, 0, kBytes);
        bus_error(address, cycle);
    }

    void check_burst(const AddressPins &pins, Protocol crosses, Protocol shape, uint64_t cycle) {
        uint64_t end = aligned(pins.address) + uint64_t{pins.length + 1} * kBytes;
        if ((pins.address ^ (end - 1)) >> 12) protocol(crosses, cycle, pins.address);
        if (pins.burst != 1 || 1u << pins.size != kBytes) protocol(shape, cycle, pins.address);
    }

    void check_stable(AddressPins &stalled, const AddressPins &now, Protocol kind, uint64_t cycle) {
        if (!stalled.valid) return;
        if (!now.valid || !(stalled == now)) protocol(kind, cycle, stalled.address);
        stalled.valid = false;
    }

    bool same_beat(const void *data, uint32_t strobe, bool last) const {
        const Beat &held = at(beats_filled_);
        return held.strobe == strobe && held.last == last && std::memcmp(held.data, data, kBytes) == 0;
    }

    void protocol(Protocol kind, uint64_t cycle, uint64_t address) {
        if (report.protocol_errors++ != 0) return;
        report.protocol_kind = kind;
        report.protocol_cycle = cycle;
        report.protocol_address = address;
    }

    void bus_error(uint64_t address, uint64_t cycle) {
        if (report.bus_errors++ != 0) return;
        report.bus_error_address = address;
        report.bus_error_cycle = cycle;
    }

    bool inside(uint64_t address) const { return address + kBytes <= size_; }
    static uint64_t aligned(uint64_t address) { return address & ~uint64_t{kBytes - 1}; }
    uint8_t *slot(uint32_t index) { return read_data_.get() + size_t{index} * kMaxBeats * kBytes; }

    Settings settings_;
    uint8_t *memory_ = nullptr;
    uint64_t size_ = 0;
    Ring<Read> reads_;
    Ring<Address> addresses_;
    Ring<Burst> bursts_;
    std::vector<Beat> beats_;
    size_t beats_written_ = 0;  // beats before this one belong to whole bursts; modulo the buffer
    size_t beats_filled_ = 0;
    std::unique_ptr<uint8_t[]> read_data_;
    uint32_t next_slot_ = 0;
    bool read_beat_ = false;
    bool skip_ = false;  // shared beats: a read and a write went in one cycle, so the next gets none
    AddressPins stalled_ar_ = {}, stalled_aw_ = {};
    bool stalled_w_ = false;
    std::vector<Fault> faults_;
    uint32_t reads_accepted_ = 0, writes_accepted_ = 0;
    bool silent_ = false;  // transactions that are to get no answer get none
};
