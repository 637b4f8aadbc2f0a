"""How good are the recommended learning rates, judged on measured sweeps that they were not fitted on?"""
