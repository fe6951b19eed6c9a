"""The engines: how each is started, where its instruction set can be capped, and the process that serves its rows."""

import ctypes
import dataclasses
import importlib.util
import json
import os
import pathlib
import select
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAMS = ROOT / "build" / "peers" / "programs"
PATIENCE_S = 180  # for one answer


@dataclasses.dataclass
class Engine:
    name: str
    module: str = ""    # of engines/, for those served by serve.py
    package: str = ""   # that it imports
    program: str = ""   # in PROGRAMS
    caps: dict = dataclasses.field(default_factory=dict)  # isa -> environment that caps to it

    def absence(self):
        """Why it cannot run; "" where it can."""
        if self.program:
            return "" if (PROGRAMS / self.program).exists() else f"{self.program} was not built: its library is missing"
        if importlib.util.find_spec(self.package) is None:
            return f"the Python package {self.package} is not installed"
        return ""

    def command(self, threads):
        if self.program:
            return [str(PROGRAMS / self.program), str(threads)]
        return [sys.executable, str(HERE / "serve.py"), self.module, str(threads)]


ENGINES = [
    Engine("oneDNN", program="peer_onednn", caps={"AVX2": {"DNNL_MAX_CPU_ISA": "AVX2"}}),
    Engine("XNNPACK", program="peer_xnnpack"),
    Engine("ONNX Runtime", module="onnxruntime_engine", package="onnxruntime"),
    Engine("OpenVINO", module="openvino_engine", package="openvino"),
    Engine("PyTorch", module="torch_engine", package="torch",
           caps={"AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
                          "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}),
    Engine("ncnn", module="ncnn_engine", package="ncnn"),
    Engine("MNN", module="mnn_engine", package="MNN"),
]


def pinned(cpus):
    """For Popen: the child runs on these CPUs, and ends with its parent."""
    libc = ctypes.CDLL(None)

    def apply():
        os.sched_setaffinity(0, cpus)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    return apply


class Server:
    """One engine's process: started at its first row, started again after it died.

    Between its answers it is stopped by a signal, so that no thread of it spins while another engine is timed.
    """

    def __init__(self, engine, threads, isa, cpus):
        self.engine, self.threads, self.cpus, self.process = engine, threads, cpus, None
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads),
                                **engine.caps.get(isa, {}))

    def ask(self, row, seconds, allocations, problems, cold=False, variant="any", output="-"):
        """The answer to one request (protocol.h) as a dictionary with "us" or "refused"."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.engine.command(self.threads), stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment,
                                            preexec_fn=pinned(self.cpus), text=True, bufsize=1)
        self.process.send_signal(signal.SIGCONT)
        text = " ; ".join(str(p) for p in problems)
        try:
            self.process.stdin.write(f"{row} {seconds} {allocations} {int(cold)} {variant} {output} {text}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        if not select.select([self.process.stdout], [], [], PATIENCE_S)[0]:
            self.close()
            return {"refused": f"no answer within {PATIENCE_S} s"}
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process = None
            return {"refused": f"its process ended with {'signal' if code < 0 else 'code'} {abs(code)}"}
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
