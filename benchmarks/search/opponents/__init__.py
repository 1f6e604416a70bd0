"""What the sweep is compared with: each module has `run(meter, seed)`, which spends the meter's budget."""
