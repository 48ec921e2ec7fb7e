// The baseline of area ratios: a plain int8 processing element for an output-stationary array.
// Signed 8x8 multiplier, 32-bit accumulator, 32-bit drain register, registered activation and weight.
module plain_pe (
    input  wire               clk,
    input  wire               first,           // the product of the registered operands starts a sum
    input  wire               last,            // the accumulator is complete: keep it for the drain
    input  wire signed  [7:0] activation_in,
    input  wire signed  [7:0] weight_in,
    output reg  signed  [7:0] activation_out,
    output reg  signed  [7:0] weight_out,
    output reg  signed [31:0] result
);
  reg signed [31:0] accumulator;
  wire signed [15:0] product = activation_out * weight_out;

  always @(posedge clk) begin
    activation_out <= activation_in;
    weight_out <= weight_in;
    accumulator <= (first ? 32'sd0 : accumulator) + product;
    if (last) result <= accumulator;
  end
endmodule
