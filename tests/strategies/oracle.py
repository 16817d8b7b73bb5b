"""Independent subnet training written a second time, in NumPy and float64, neuron by neuron.

Knows the MLP and its loss, and shares nothing with the package but the partition of the neurons.
"""

import numpy as np


def forward_backward(kernels, biases, x, y, norm):
    """Loss and gradients of one subnet: lists of kernels and biases (None where there is none)."""
    inputs, hats, scales = [x], [], []
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        z = inputs[-1] @ kernel + (0 if bias is None else bias)
        scale = 1.0
        if norm == "standardize":
            scale = 1 / np.sqrt(z.var(0) + 1e-5)
            z = (z - z.mean(0)) * scale
        hats.append(z)
        scales.append(scale)
        inputs.append(np.maximum(z, 0))
    logits = inputs[-1] @ kernels[-1] + biases[-1]
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(y))
    delta = np.exp(log_p)
    delta[rows, y] -= 1
    delta /= len(y)
    kernel_grads, bias_grads = [], []
    for i in reversed(range(len(kernels))):
        kernel_grads.insert(0, inputs[i].T @ delta)
        bias_grads.insert(0, None if biases[i] is None else delta.sum(0))
        if i:
            delta = (delta @ kernels[i].T) * (hats[i - 1] > 0)
            if norm == "standardize":
                hat = hats[i - 1]
                centred = delta - delta.mean(0) - hat * (delta * hat).mean(0)
                delta = centred * scales[i - 1]
    return -log_p[rows, y].mean(), kernel_grads, bias_grads


class SGD:
    """Plain gradient descent."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def start(self, array):
        return ()

    def step(self, array, gradient, state, count):
        return array - self.learning_rate * gradient, ()


class Adam:
    """Kingma and Ba, with the bias corrections of their Algorithm 1."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def start(self, array):
        return (np.zeros_like(array), np.zeros_like(array))

    def step(self, array, gradient, state, count):
        m = 0.9 * state[0] + 0.1 * gradient
        v = 0.999 * state[1] + 0.001 * gradient**2
        m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.999**count)
        return array - self.learning_rate * m_hat / (np.sqrt(v_hat) + 1e-8), (m, v)


class Nesterov:
    """PyTorch's SGD with Nesterov's momentum: m = b m + g, and a step along g + b m."""

    def __init__(self, learning_rate, momentum):
        self.learning_rate, self.momentum = learning_rate, momentum

    def round(self, before, after, momenta, still):
        """Arrays and momenta after a round; what did not change is left alone if `still`."""
        new, new_momenta = [], []
        for old, trained, m in zip(before, after, momenta, strict=True):
            if old is None:
                new.append(None)
                new_momenta.append(None)
                continue
            delta = old - trained
            faster = self.momentum * m + delta
            stepped = old - self.learning_rate * (delta + self.momentum * faster)
            moves = delta != 0 if still else np.ones_like(delta, bool)
            new.append(np.where(moves, stepped, old))
            new_momenta.append(np.where(moves, faster, m))
        return new, new_momenta


def train_one(arrays, depth, state, count, optimizer, batches, x, y, norm):
    """A worker's steps: its arrays, its optimiser's states, and its mean loss."""
    arrays, state, total = list(arrays), list(state), 0.0
    for step, batch in enumerate(batches):
        loss, kernel_grads, bias_grads = forward_backward(
            arrays[:depth], arrays[depth:], x[batch], y[batch], norm
        )
        total += loss / len(batches)
        for i, gradient in enumerate([*kernel_grads, *bias_grads]):
            if gradient is not None:
                arrays[i], state[i] = optimizer.step(
                    arrays[i], gradient, state[i], count + step + 1
                )
    return arrays, state, total


def mean_of(lists):
    """The mean of lists of arrays, entry by entry."""
    return [None if a[0] is None else np.mean(a, axis=0) for a in zip(*lists, strict=True)]


def diloco_round(
    arrays, depth, own, counts, momenta, inner, outer, x, y, order, norm, present=None
):
    """One round of DiLoCo: `own` are each worker's optimiser states, `counts` their steps."""
    present = range(len(order)) if present is None else present
    own, counts, losses, ends = list(own), list(counts), {}, []
    for worker in present:
        end, own[worker], losses[worker] = train_one(
            arrays, depth, own[worker], counts[worker], inner, order[worker], x, y, norm
        )
        counts[worker] += len(order[worker])
        ends.append(end)
    arrays, momenta = outer.round(arrays, mean_of(ends), momenta, still=False)
    mean = np.mean([*losses.values()])
    return arrays, own, counts, momenta, [losses.get(w, mean) for w in range(len(order))]


def ist_round(
    kernels, biases, states, count, optimizer, parts, x, y, order, norm, carry, present=None
):
    """One round. `parts`: for every hidden layer the list of each worker's neurons, which may
    overlap.

    `states`: optimiser states like [*kernels, *biases], full size. `present`: who takes part, all
    by default. Returns the same three things after the round, and each worker's mean loss.
    """
    workers, depth = len(order), len(kernels)
    arrays = [*kernels, *biases]
    results, losses = [], {}
    for worker in range(workers) if present is None else present:
        rows = [None, *(part[worker] for part in parts), None]
        index = []
        for i in range(depth):
            shape = kernels[i].shape
            both = [
                np.arange(size) if row is None else row
                for size, row in zip(shape, (rows[i], rows[i + 1]), strict=True)
            ]
            index.append(np.ix_(*both))
        index += [
            None if b is None else np.ix_(np.arange(len(b)) if rows[i + 1] is None else rows[i + 1])
            for i, b in enumerate(biases)
        ]
        own = [None if a is None else a[ix] for a, ix in zip(arrays, index, strict=True)]
        state = [
            None if a is None else (tuple(s[ix] for s in full) if carry else optimizer.start(a))
            for a, full, ix in zip(own, states, index, strict=True)
        ]
        own, state, losses[worker] = train_one(
            own, depth, state, count if carry else 0, optimizer, order[worker], x, y, norm
        )
        results.append((index, own, state))
    new = [None if a is None else a.copy() for a in arrays]
    new_states = [
        None if a is None else tuple(s.copy() for s in f)
        for a, f in zip(arrays, states, strict=True)
    ]
    for i, array in enumerate(arrays):
        if array is None:
            continue
        if i == len(arrays) - 1:  # the output bias is on every worker: averaged
            new[i] = np.mean([own[i] for _, own, _ in results], axis=0)
            new_states[i] = tuple(
                np.mean(s, axis=0) for s in zip(*(state[i] for _, _, state in results), strict=True)
            )
            continue
        held = np.zeros(array.shape)  # by how many workers: their mean is taken
        for index, _, _ in results:
            held[index[i]] += 1
        for full, pieces in (
            (new[i], [own[i] for _, own, _ in results]),
            *((f, [state[i][j] for _, _, state in results]) for j, f in enumerate(new_states[i])),
        ):
            full[held > 0] = 0
            for (index, _, _), piece in zip(results, pieces, strict=True):
                full[index[i]] += piece / held[index[i]]
    mean = np.mean([*losses.values()])
    losses = [losses.get(worker, mean) for worker in range(workers)]
    return new[:depth], new[depth:], new_states, losses
