import torch

torch.set_num_threads(1)  # more threads than cores make small networks slower, not faster
