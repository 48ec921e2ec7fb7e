// Stands in for the accelerator in tests of the simulation harness: same pins, same register map.
// After start it reads ARG2 beats from ARG0 in one burst, then writes them to ARG1 in one burst. ARG3 selects faults:
//   bit 0: never finish            bit 1: FIXED burst            bit 2: `wlast` one beat early
//   bit 3: issue 65 reads and accept no data for 100 cycles
//   bit 4: report error code 7 instead of done
//   bit 5: read the burst once more while writing, if it is longer than the time to its first beat
// The engine counters hold what the pins saw: load.busy = cycles from the accepted read address to the first beat,
// load.idle = cycles from the first to the last beat, array.busy = reads accepted before any data (bit 3),
// store.busy = cycles from the last write beat to the response.
module phonolith_top #(parameter BUS = 128) (
    input clk, input rst, output irq,
    input [11:0] s_axil_awaddr, input s_axil_awvalid, output s_axil_awready, input [2:0] s_axil_awprot,
    input [31:0] s_axil_wdata, input [3:0] s_axil_wstrb, input s_axil_wvalid, output s_axil_wready,
    output [1:0] s_axil_bresp, output reg s_axil_bvalid, input s_axil_bready,
    input [11:0] s_axil_araddr, input [2:0] s_axil_arprot, input s_axil_arvalid, output s_axil_arready,
    output reg [31:0] s_axil_rdata, output [1:0] s_axil_rresp, output reg s_axil_rvalid, input s_axil_rready,
    output [0:0] m_axi_awid, output [31:0] m_axi_awaddr, output [7:0] m_axi_awlen, output [2:0] m_axi_awsize,
    output [1:0] m_axi_awburst, output m_axi_awlock, output [3:0] m_axi_awcache, output [2:0] m_axi_awprot,
    output [3:0] m_axi_awqos, output m_axi_awvalid, input m_axi_awready,
    output [BUS-1:0] m_axi_wdata, output [BUS/8-1:0] m_axi_wstrb, output m_axi_wlast, output m_axi_wvalid,
    input m_axi_wready, input [0:0] m_axi_bid, input [1:0] m_axi_bresp, input m_axi_bvalid, output m_axi_bready,
    output [0:0] m_axi_arid, output [31:0] m_axi_araddr, output [7:0] m_axi_arlen, output [2:0] m_axi_arsize,
    output [1:0] m_axi_arburst, output m_axi_arlock, output [3:0] m_axi_arcache, output [2:0] m_axi_arprot,
    output [3:0] m_axi_arqos, output m_axi_arvalid, input m_axi_arready,
    input [0:0] m_axi_rid, input [BUS-1:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast,
    input m_axi_rvalid, output m_axi_rready);

localparam IDLE = 0, READ = 1, DATA = 2, WRITE = 3, RESPONSE = 4, FINISHED = 5;
localparam SIZE = $clog2(BUS / 8);

reg [2:0] state;
reg [31:0] argument [0:3];
reg [31:0] program_address, irq_enable, error_address;
reg [BUS-1:0] buffer [0:255];
reg [8:0] beat;
reg done, failed, address_sent, reread, answered;
reg [7:0] error_code;
reg [63:0] cycles;
reg [31:0] reads, waited, first_beat, last_beat, response, read_beats, write_beats, since, early_reads;

wire again = argument[3][5];
wire hang = argument[3][0], fixed = argument[3][1], early_last = argument[3][2], many = argument[3][3];
wire [8:0] count = argument[2][8:0];
wire write_fire = s_axil_awvalid && s_axil_wvalid && !s_axil_bvalid;
wire start = write_fire && s_axil_awaddr == 12'h004 && s_axil_wdata[0];
wire clear = write_fire && s_axil_awaddr == 12'h004 && s_axil_wdata[1];

assign s_axil_awready = s_axil_wvalid && !s_axil_bvalid;
assign s_axil_wready = s_axil_awvalid && !s_axil_bvalid;
assign s_axil_arready = !s_axil_rvalid;
assign s_axil_bresp = 0, s_axil_rresp = 0;
assign irq = (done || failed) && irq_enable[0];

assign m_axi_arid = 1, m_axi_awid = 0, m_axi_arsize = SIZE, m_axi_awsize = SIZE;
assign m_axi_arburst = fixed ? 0 : 1, m_axi_awburst = 1;
assign m_axi_arlock = 0, m_axi_awlock = 0, m_axi_arcache = 0, m_axi_awcache = 0;
assign m_axi_arprot = 0, m_axi_awprot = 0, m_axi_arqos = 0, m_axi_awqos = 0;
assign m_axi_araddr = argument[0], m_axi_awaddr = argument[1];
assign m_axi_arlen = count - 1, m_axi_awlen = count - 1;
assign m_axi_arvalid = state == READ || (state == WRITE && again && !reread) || (state == DATA && many && reads < 65);
assign m_axi_rready = state == WRITE || state == RESPONSE || state == DATA && !(many && waited < 100);
assign m_axi_awvalid = state == WRITE && !address_sent;
assign m_axi_wvalid = state == WRITE && beat < count;
assign m_axi_wdata = buffer[beat[7:0]];
assign m_axi_wstrb = {BUS / 8 {1'b1}};
assign m_axi_wlast = beat == (early_last ? count - 2 : count - 1);
assign m_axi_bready = 1;

always @(posedge clk) begin
    if (s_axil_bvalid && s_axil_bready) s_axil_bvalid <= 0;
    if (s_axil_rvalid && s_axil_rready) s_axil_rvalid <= 0;
    if (write_fire) begin
        s_axil_bvalid <= 1;
        case (s_axil_awaddr)
            12'h00C: program_address <= s_axil_wdata;
            12'h014: irq_enable <= s_axil_wdata;
            12'h020: argument[0] <= s_axil_wdata;
            12'h024: argument[1] <= s_axil_wdata;
            12'h028: argument[2] <= s_axil_wdata;
            12'h02C: argument[3] <= s_axil_wdata;
        endcase
    end
    if (s_axil_arvalid && s_axil_arready) begin
        s_axil_rvalid <= 1;
        case (s_axil_araddr)
            12'h000: s_axil_rdata <= 32'h50484F4E;
            12'h008: s_axil_rdata <= {16'b0, error_code, 5'b0, failed, done, state != IDLE};
            12'h00C: s_axil_rdata <= program_address;
            12'h010: s_axil_rdata <= error_address;
            12'h018: s_axil_rdata <= 32'h12345678;
            12'h040: s_axil_rdata <= cycles[31:0];
            12'h044: s_axil_rdata <= cycles[63:32];
            12'h048: s_axil_rdata <= reads;
            12'h04C: s_axil_rdata <= read_beats;
            12'h050: s_axil_rdata <= write_beats;
            12'h080: s_axil_rdata <= first_beat;
            12'h084: s_axil_rdata <= last_beat;
            12'h0A0: s_axil_rdata <= early_reads;
            12'h0E0: s_axil_rdata <= response;
            default: s_axil_rdata <= 0;
        endcase
    end
    if (clear) begin done <= 0; failed <= 0; error_code <= 0; end
    if (state != IDLE) cycles <= cycles + 1;
    since <= since + 1;
    if (m_axi_arvalid && m_axi_arready) reads <= reads + 1;
    if (m_axi_rvalid && m_axi_rready) read_beats <= read_beats + 1;
    case (state)
        IDLE: if (start) begin
            state <= count == 0 ? FINISHED : READ;
            cycles <= 1; reads <= 0; waited <= 0; beat <= 0; read_beats <= 0; write_beats <= 0; address_sent <= 0; reread <= 0; answered <= 0;
            first_beat <= 0; last_beat <= 0; response <= 0; since <= 0; done <= 0; failed <= 0; error_address <= 0;
        end
        READ: if (m_axi_arready) begin since <= 1; state <= DATA; end
        DATA: begin
            waited <= waited + 1;
            if (waited == 99) early_reads <= reads;
            if (m_axi_rvalid && m_axi_rready) begin
                buffer[beat[7:0]] <= m_axi_rdata;
                beat <= beat + 1;
                if (read_beats == 0) begin first_beat <= since; since <= 1; end
                if (m_axi_rlast) begin
                    beat <= 0;
                    last_beat <= read_beats == 0 ? 0 : since;
                    if (!many || read_beats + 1 == 65 * count) state <= WRITE;
                end
            end
        end
        WRITE: begin
            if (m_axi_awready) address_sent <= 1;
            if (m_axi_arready) reread <= 1;
            if (m_axi_wvalid && m_axi_wready) begin
                write_beats <= write_beats + 1;
                beat <= beat + 1;
                since <= 1;
            end
            if (beat == count && address_sent) state <= RESPONSE;
            if (m_axi_bvalid) begin response <= since; answered <= 1; end
        end
        RESPONSE: begin
            if (m_axi_bvalid) begin response <= since; answered <= 1; end
            if ((m_axi_bvalid || answered) && (!again || read_beats == 2 * count)) state <= FINISHED;
        end
        FINISHED: if (!hang) begin
            state <= IDLE;
            if (argument[3][4]) begin failed <= 1; error_code <= 7; error_address <= 42; end
            else done <= 1;
        end
    endcase
    if (rst) begin
        state <= IDLE; s_axil_bvalid <= 0; s_axil_rvalid <= 0; done <= 0; failed <= 0; irq_enable <= 0; error_code <= 0;
        argument[0] <= 0; argument[1] <= 0; argument[2] <= 0; argument[3] <= 0;
    end
end
endmodule
