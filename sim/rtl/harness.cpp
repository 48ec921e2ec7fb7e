// One accelerator, its clock, its AXI4-Lite host and its DRAM. A cycle begins with the rising edge at which the inputs
// set before it (through the registers of harness_top.v) and the accelerator's registers change; when that has been
// evaluated, the outputs of the cycle have settled and every handshake of the cycle can be seen.
#include "harness.h"

#include <algorithm>
#include <vector>

#include "Vtop.h"
#include "Vtop___024root.h"
#include "dram.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

#if !VM_TRACE
void Vtop___024root___eval(Vtop___024root *root);
#endif

namespace {

constexpr unsigned kBusBytes = sizeof(std::remove_reference_t<decltype(Vtop::m_axi_rdata)>);
constexpr uint64_t kLiteTimeout = 10000;
constexpr int kResetCycles = 4;
constexpr int kReadBit = 28;  // behind four engines' causes

// Whether this build makes events: the table then names the signals.
constexpr bool kEvents = false
#define SIGNAL(word, bit, member) || true
#include "signals.inc"
#undef SIGNAL
    ;

template <class Word, std::size_t kWords>
MemoryView view_of(const char *name, VlUnpacked<Word, kWords> &memory) {
    return {name, &memory[0], kWords, sizeof(Word)};
}

class Machine {
public:
    explicit Machine(const Settings &settings) : top_(&context_), dram_(settings) {
        top_.clk = 0;
        top_.s_axil_awvalid = top_.s_axil_wvalid = top_.s_axil_arvalid = 0;
        top_.s_axil_bready = top_.s_axil_rready = 0;
#define MEMORY(name, member) memories_.push_back(view_of(name, top_.rootp->member));
#include "memories.inc"
#undef MEMORY
        reset();
    }

    ~Machine() {
        trace(nullptr);
        top_.final();
    }

    Machine(const Machine &) = delete;
    Machine &operator=(const Machine &) = delete;

    Dram<kBusBytes> &dram() { return dram_; }
    const std::vector<MemoryView> &memories() const { return memories_; }
    const std::vector<EventRecord> &events() const { return events_; }

    void reset() {
        dram_.reset();
        top_.rst = 1;
        top_.clk = 0;
        top_.eval();
        for (int i = 0; i < kResetCycles; ++i) clock_idle();
        top_.rst = 0;
    }

    void begin(uint64_t stalls_seed, bool log_writes) {
        dram_.begin(log_writes);
        dram_.stalls.seed(stalls_seed);
        events_.clear();
        read_beats_ = write_beats_ = 0;
    }

    int write(uint32_t address, uint32_t value) {
        bool sent_address = false, sent_data = false, answered = false;
        uint32_t response = 0;
        top_.s_axil_awaddr = address;
        top_.s_axil_wdata = value;
        for (uint64_t i = 0; i < kLiteTimeout && !answered; ++i) {
            top_.s_axil_awvalid = !sent_address && (top_.s_axil_awvalid || !hold_lite());
            top_.s_axil_wvalid = !sent_data && (top_.s_axil_wvalid || !hold_lite());
            top_.s_axil_bready = !hold_lite();
            step([&] {
                bool before = sent_address && sent_data;
                sent_address |= top_.s_axil_awvalid && top_.s_axil_awready;
                sent_data |= top_.s_axil_wvalid && top_.s_axil_wready;
                if (sent_address && sent_data && !before) dram_.report.start_cycle = cycle_;
                answered = top_.s_axil_bvalid && top_.s_axil_bready;
                response = top_.s_axil_bresp;
            });
        }
        top_.s_axil_awvalid = top_.s_axil_wvalid = top_.s_axil_bready = 0;
        return answer(answered, response);
    }

    int read(uint32_t address, uint32_t *value) {
        bool sent = false, answered = false;
        uint32_t response = 0;
        top_.s_axil_araddr = address;
        for (uint64_t i = 0; i < kLiteTimeout && !answered; ++i) {
            top_.s_axil_arvalid = !sent && (top_.s_axil_arvalid || !hold_lite());
            top_.s_axil_rready = !hold_lite();
            step([&] {
                sent |= top_.s_axil_arvalid && top_.s_axil_arready;
                answered = top_.s_axil_rvalid && top_.s_axil_rready;
                *value = top_.s_axil_rdata;
                response = top_.s_axil_rresp;
            });
        }
        top_.s_axil_arvalid = top_.s_axil_rready = 0;
        return answer(answered, response);
    }

    bool run(uint64_t cycles) {
        for (uint64_t i = 0; i < cycles && !dram_.report.done_cycle; ++i) step([] {});
        return dram_.report.done_cycle != 0;
    }

    const Report &report() {
        dram_.report.cycle = cycle_;
        return dram_.report;
    }

    bool trace(const char *path) {
#if VM_TRACE
        if (!path) {
            if (vcd_) vcd_->close();
            vcd_.reset();
            return true;
        }
        context_.traceEverOn(true);
        vcd_ = std::make_unique<VerilatedVcdC>();
        top_.trace(vcd_.get(), 99);
        vcd_->open(path);
        return vcd_->isOpen();
#else
        return path == nullptr;
#endif
    }

private:
    static int answer(bool answered, uint32_t response) {
        return !answered ? kNoAnswer : response ? kErrorResponse : kOkay;
    }

    bool hold_lite() { return dram_.stalls.hold(Stalls::kLite); }

    // One cycle; `lite` looks at the AXI4-Lite pins when they have settled.
    template <class Lite>
    void step(Lite &&lite) {
        dram_.drive(cycle_);
        drive_pins();
        clock();
        lite();
        observe_pins();
        if constexpr (kEvents) sample();
        ++cycle_;
    }

    void sample() {
        uint32_t pulses = 0, levels = 0;
#define SIGNAL(word, bit, member) word |= uint32_t(top_.rootp->member) << bit;
#include "signals.inc"
#undef SIGNAL
        levels |= uint32_t(dram_.report.read_beats != read_beats_) << kReadBit;
        levels |= uint32_t(dram_.report.write_beats != write_beats_) << (kReadBit + 1);
        read_beats_ = dram_.report.read_beats;
        write_beats_ = dram_.report.write_beats;
        if (pulses || events_.empty() || levels != events_.back().levels) events_.push_back({cycle_, pulses, levels});
    }

    void clock() {
        top_.clk = 1;
#if VM_TRACE
        top_.eval();
        dump(0);
        top_.clk = 0;
        top_.eval();
        dump(1);
#else
        // What eval() does for one thread, after its first call. Nothing waits for the falling edge, so Verilator need
        // only know that there was one.
        Vtop___024root___eval(top_.rootp);
        top_.rootp->__Vtrigprevexpr___TOP__clk__0 = 0;
#endif
    }

    void clock_idle() {
        top_.m_axi_arready = top_.m_axi_rvalid = 0;
        top_.m_axi_awready = top_.m_axi_wready = top_.m_axi_bvalid = 0;
        clock();
        ++cycle_;
    }

    void drive_pins() {
        top_.m_axi_arready = dram_.arready;
        top_.m_axi_awready = dram_.awready;
        top_.m_axi_wready = dram_.wready;
        top_.m_axi_rvalid = dram_.rvalid;
        if (dram_.rdata_changed) {
            std::memcpy(&top_.m_axi_rdata, dram_.rdata, kBusBytes);
            top_.m_axi_rlast = dram_.rlast;
            top_.m_axi_rresp = dram_.rresp;
            top_.m_axi_rid = dram_.rid;
            dram_.rdata_changed = false;
        }
        top_.m_axi_bvalid = dram_.bvalid;
        if (dram_.bvalid) {
            top_.m_axi_bresp = dram_.bresp;
            top_.m_axi_bid = dram_.bid;
        }
    }

    void observe_pins() {
        if (top_.irq && !dram_.report.done_cycle) dram_.report.done_cycle = cycle_;
        dram_.observe_read(cycle_, {bool(top_.m_axi_arvalid), top_.m_axi_araddr, top_.m_axi_arlen, top_.m_axi_arsize,
                                    top_.m_axi_arburst, top_.m_axi_arid}, top_.m_axi_rready);
        dram_.observe_write(cycle_, {bool(top_.m_axi_awvalid), top_.m_axi_awaddr, top_.m_axi_awlen, top_.m_axi_awsize,
                                     top_.m_axi_awburst, top_.m_axi_awid}, top_.m_axi_bready);
        dram_.observe_data(cycle_, top_.m_axi_wvalid, &top_.m_axi_wdata, top_.m_axi_wstrb, top_.m_axi_wlast);
    }

    void dump([[maybe_unused]] uint64_t half) {
#if VM_TRACE
        if (vcd_) vcd_->dump(2 * cycle_ + half);
#endif
    }

    VerilatedContext context_;
    Vtop top_;
    Dram<kBusBytes> dram_;
    std::vector<MemoryView> memories_;
    std::vector<EventRecord> events_;
    uint64_t read_beats_ = 0, write_beats_ = 0;
    uint64_t cycle_ = 1;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif
};

Machine &cast(void *machine) { return *static_cast<Machine *>(machine); }

}  // namespace

void *phonolith_create(const Settings *settings) { return new Machine(*settings); }
void phonolith_destroy(void *machine) { delete static_cast<Machine *>(machine); }
void phonolith_reset(void *machine) { cast(machine).reset(); }
void phonolith_memory(void *machine, uint8_t *bytes, uint64_t size) { cast(machine).dram().memory(bytes, size); }
void phonolith_begin(void *machine, uint64_t seed, int log_writes) { cast(machine).begin(seed, log_writes != 0); }
void phonolith_fault(void *machine, const Fault *fault) { cast(machine).dram().fault(*fault); }
int phonolith_write(void *machine, uint32_t address, uint32_t value) { return cast(machine).write(address, value); }
int phonolith_read(void *machine, uint32_t address, uint32_t *value) { return cast(machine).read(address, value); }
int phonolith_run(void *machine, uint64_t cycles) { return cast(machine).run(cycles); }
void phonolith_report(void *machine, Report *report) { *report = cast(machine).report(); }
int phonolith_trace(void *machine, const char *path) { return cast(machine).trace(path); }

uint64_t phonolith_events(void *machine, const EventRecord **records) {
    *records = cast(machine).events().data();
    return cast(machine).events().size();
}

int phonolith_memory_view(void *machine, uint64_t index, MemoryView *view) {
    const auto &memories = cast(machine).memories();
    if (index >= memories.size()) return 0;
    *view = memories[index];
    return 1;
}

uint64_t phonolith_log(void *machine, const WriteRecord **records) {
    *records = cast(machine).dram().log.data();
    return cast(machine).dram().log.size();
}
