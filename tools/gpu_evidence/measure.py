"""Times of contenders in turns: a CUDA graph of launches that go round several sets of tensors, so that none is in L2."""

import statistics
import time

LAUNCHES = 20  # in a graph
ROUNDS = 20    # of all contenders in turn; the median counts
SECONDS = 1.5  # for one case, about


def sets_for(bytes_of_one, l2_bytes):
    """Sets of tensors that together exceed three times the L2."""
    return max(1, min(16, -(-3 * l2_bytes // max(bytes_of_one, 1))))


class GraphTimer:
    """One contender: `calls` do the same work on different sets."""

    def __init__(self, torch, stream, calls):
        self.torch, self.stream = torch, stream
        launches = max(LAUNCHES, len(calls)) // len(calls) * len(calls)
        with torch.cuda.stream(stream):
            for call in calls:  # libraries choose their kernels, compilers compile
                call()
            stream.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=stream):
                for i in range(launches):
                    calls[i % len(calls)]()
        self.launches = launches
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def microseconds(self):
        with self.torch.cuda.stream(self.stream):
            self.begin.record(self.stream)
            self.graph.replay()
            self.end.record(self.stream)
        self.end.synchronize()
        return 1e3 * self.begin.elapsed_time(self.end) / self.launches


class HostTimer:
    """The same on the host, for a dry run without a GPU."""

    def __init__(self, calls):
        self.calls = calls
        for call in calls:
            call()

    def microseconds(self):
        begin = time.perf_counter()
        for call in self.calls:
            call()
        return 1e6 * (time.perf_counter() - begin) / len(self.calls)


def in_turns(timers):
    """{name: median microseconds}; every timer once a round."""
    samples = {name: [] for name in timers}
    begin = time.perf_counter()
    for done in range(ROUNDS):
        for name, timer in timers.items():
            samples[name].append(timer.microseconds())
        if done >= 4 and time.perf_counter() - begin > SECONDS:
            break
    return {name: statistics.median(values) for name, values in samples.items()}
