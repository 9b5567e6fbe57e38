"""How a training is carried out on a machine: engine, steps, capture, memory, processes."""
