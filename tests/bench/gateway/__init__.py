"""The parts of scripts/bench_gateway."""
