"""The timing model: predicts the cycles of a program without simulating the hardware."""
