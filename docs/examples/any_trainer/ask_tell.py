"""Ask and tell: a loop of one's own in plain Python; here "training" is a formula, so that it runs in a second."""

import math

import finestep


def train(rate, batch, length):
    """Stands for a real run: a bowl whose best rate is 6e-4 at batch 16."""
    x = math.log2(rate / 6e-4) - 0.4 * math.log2(batch / 16)
    return 2.0 * length**-0.05 * math.exp(0.004 * x * x)


loop = finestep.ask_tell(params="1B", num_rows=5000, budget_runs=4)
while proposal := loop.ask():
    loss = train(proposal.learning_rate, proposal.effective_batch_size, proposal.fidelity)
    print(f"{proposal.why}: {loss:.4f}")
    loop.tell(proposal, loss)
print(loop.answer().sentence)
