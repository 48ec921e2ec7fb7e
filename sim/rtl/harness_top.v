// The accelerator with a register in front of each input, for Verilator's sake: values that the harness sets take
// effect at the next rising edge of clk together with the accelerator's own registers, so one evaluation per cycle
// settles everything, and no logic hangs on pins that change between edges.
module harness_top #(parameter BUS = 128) (
    input clk, input rst, output irq,
    input [11:0] s_axil_awaddr, input s_axil_awvalid, output s_axil_awready,
    input [31:0] s_axil_wdata, input s_axil_wvalid, output s_axil_wready,
    output [1:0] s_axil_bresp, output s_axil_bvalid, input s_axil_bready,
    input [11:0] s_axil_araddr, input s_axil_arvalid, output s_axil_arready,
    output [31:0] s_axil_rdata, output [1:0] s_axil_rresp, output s_axil_rvalid, input s_axil_rready,
    output m_axi_awid, output [31:0] m_axi_awaddr, output [7:0] m_axi_awlen, output [2:0] m_axi_awsize,
    output [1:0] m_axi_awburst, output m_axi_awvalid, input m_axi_awready,
    output [BUS-1:0] m_axi_wdata, output [BUS/8-1:0] m_axi_wstrb, output m_axi_wlast, output m_axi_wvalid,
    input m_axi_wready, input m_axi_bid, input [1:0] m_axi_bresp, input m_axi_bvalid, output m_axi_bready,
    output m_axi_arid, output [31:0] m_axi_araddr, output [7:0] m_axi_arlen, output [2:0] m_axi_arsize,
    output [1:0] m_axi_arburst, output m_axi_arvalid, input m_axi_arready,
    input m_axi_rid, input [BUS-1:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast,
    input m_axi_rvalid, output m_axi_rready);

reg rst_q = 1;
reg [11:0] awaddr, araddr;
reg [31:0] lite_wdata;
reg awvalid, wvalid, bready, arvalid, rready;
reg m_awready, m_wready, m_bid, m_bvalid, m_arready, m_rid, m_rlast, m_rvalid;
reg [1:0] m_bresp, m_rresp;
reg [BUS-1:0] m_rdata;

always @(posedge clk) begin
    rst_q <= rst;
    awaddr <= s_axil_awaddr;
    awvalid <= s_axil_awvalid;
    lite_wdata <= s_axil_wdata;
    wvalid <= s_axil_wvalid;
    bready <= s_axil_bready;
    araddr <= s_axil_araddr;
    arvalid <= s_axil_arvalid;
    rready <= s_axil_rready;
    m_awready <= m_axi_awready;
    m_wready <= m_axi_wready;
    m_bid <= m_axi_bid;
    m_bresp <= m_axi_bresp;
    m_bvalid <= m_axi_bvalid;
    m_arready <= m_axi_arready;
    m_rid <= m_axi_rid;
    m_rdata <= m_axi_rdata;
    m_rresp <= m_axi_rresp;
    m_rlast <= m_axi_rlast;
    m_rvalid <= m_axi_rvalid;
end

phonolith_top phonolith_top (
    .clk(clk), .rst(rst_q), .irq(irq),
    .s_axil_awaddr(awaddr), .s_axil_awprot(3'b0), .s_axil_awvalid(awvalid), .s_axil_awready(s_axil_awready),
    .s_axil_wdata(lite_wdata), .s_axil_wstrb(4'hF), .s_axil_wvalid(wvalid), .s_axil_wready(s_axil_wready),
    .s_axil_bresp(s_axil_bresp), .s_axil_bvalid(s_axil_bvalid), .s_axil_bready(bready),
    .s_axil_araddr(araddr), .s_axil_arprot(3'b0), .s_axil_arvalid(arvalid), .s_axil_arready(s_axil_arready),
    .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp), .s_axil_rvalid(s_axil_rvalid), .s_axil_rready(rready),
    .m_axi_awid(m_axi_awid), .m_axi_awaddr(m_axi_awaddr), .m_axi_awlen(m_axi_awlen), .m_axi_awsize(m_axi_awsize),
    .m_axi_awburst(m_axi_awburst), .m_axi_awlock(), .m_axi_awcache(), .m_axi_awprot(), .m_axi_awqos(),
    .m_axi_awvalid(m_axi_awvalid), .m_axi_awready(m_awready),
    .m_axi_wdata(m_axi_wdata), .m_axi_wstrb(m_axi_wstrb), .m_axi_wlast(m_axi_wlast), .m_axi_wvalid(m_axi_wvalid),
    .m_axi_wready(m_wready),
    .m_axi_bid(m_bid), .m_axi_bresp(m_bresp), .m_axi_bvalid(m_bvalid), .m_axi_bready(m_axi_bready),
    .m_axi_arid(m_axi_arid), .m_axi_araddr(m_axi_araddr), .m_axi_arlen(m_axi_arlen), .m_axi_arsize(m_axi_arsize),
    .m_axi_arburst(m_axi_arburst), .m_axi_arlock(), .m_axi_arcache(), .m_axi_arprot(), .m_axi_arqos(),
    .m_axi_arvalid(m_axi_arvalid), .m_axi_arready(m_arready),
    .m_axi_rid(m_rid), .m_axi_rdata(m_rdata), .m_axi_rresp(m_rresp), .m_axi_rlast(m_rlast), .m_axi_rvalid(m_rvalid),
    .m_axi_rready(m_axi_rready));
endmodule
