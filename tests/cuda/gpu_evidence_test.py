"""tools/gpu_evidence on the emulated GPU: its parity step, its limits, its table.
usage: gpu_evidence_test.py EMULATED_LIBRARY"""

import pathlib
import sys
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools" / "gpu_evidence"))

import parity  # noqa: E402
import table  # noqa: E402
from library import Library  # noqa: E402
from problem import Buffers, Host, Problem, error_of, narrow, widen  # noqa: E402

LIBRARY = Library(sys.argv.pop())


class Parity(unittest.TestCase):
    def test_small_problems_agree(self):
        problems, records = parity.FIXED + parity.random_problems(12, seed=1), []
        parity.run(LIBRARY, Host(), records.append, [d for d in problems if LIBRARY.cost(d)["macs"] < 5e5])
        self.assertEqual([(r["desc"], r["implementation"], r["failure"]) for r in records if "failure" in r], [])
        self.assertGreater(sum("error" in r for r in records), 20)

    def test_every_problem_is_valid(self):
        for desc in parity.FIXED + parity.random_problems(60, seed=3):
            self.assertGreater(LIBRARY.cost(desc)["flops"], 0, desc)

    def test_errors_above_the_limits_are_errors(self):
        want = np.linspace(-3, 5, 1000, dtype=np.float32)
        for dtype, limit in parity.LIMITS.items():
            self.assertGreater(error_of(want * np.float32(1 + 2 * limit), want), limit, dtype)
        unwritten = want.copy()
        unwritten[7] = np.nan
        self.assertEqual(error_of(unwritten, want), np.inf)
        self.assertEqual(error_of(np.full(3, -np.inf), np.full(3, -np.inf)), 0)

    def test_a_byte_outside_a_tensor_is_noticed(self):
        problem = Problem(LIBRARY, "fully_connected m=3 ic=8 oc=5 y_stride=7", seed=1)
        buffers = Buffers(Host(), problem)
        y, = problem.outputs()
        self.assertEqual(buffers.results()[1], "")
        for element in (-1, 5, 3 * 7):  # before, in the gap between rows, behind
            buffers.reset()
            at = buffers.device.address(buffers.buffers[y][0]) - buffers.buffers[y][0].ctypes.data + buffers.begin[y]
            buffers.buffers[y][0][at + 4 * element] = 1
            self.assertIn("outside", buffers.results()[1], element)

    def test_narrow_rounds_to_nearest_even(self):
        values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -2.5, 65504, 1e-7], np.float32)
        np.testing.assert_array_equal(widen(narrow(values, 1), 1)[:4], np.array([1, 1, 1 + 2**-6, -2.5], np.float32))
        np.testing.assert_array_equal(narrow(values, 2), values.astype(np.float16).view(np.uint16))


class Table(unittest.TestCase):
    def test_rows_compare_like_with_like(self):
        def record(contender, us):
            return {"case": "GEMM", "dtype": "f32", "desc": "", "contender": contender, "us": us, "floor_us": 1.0}
        rows = {row[1]: row for row in table.bench_rows([
            record("cuda/implicit_gemm", 8.0), record("cuda/implicit_gemm_tf32", 2.0), record("cuBLAS f32", 4.0),
            record("cuBLAS TF32", 1.0)])}
        self.assertEqual(rows["f32"][6], 0.5)
        self.assertEqual(rows["tf32"][4:7], ("cuBLAS TF32", 1.0, 0.5))

    def test_the_whole_table(self):
        bench = {"case": "GEMM", "dtype": "f32", "desc": "", "us": 8.0, "floor_us": 1.0}
        text = table.markdown({
            "facts": {"card": "C", "driver": "580", "cuda": "13", "torch": "2", "cudnn": "9"}, "date": "D", "library": "L", "parity": {
                "conv2d f32": {"passed": 3, "failed": 1, "refused": 0}}, "failures": ["conv2d on x: wrong"],
            "sanitize": [{"tool": "memcheck", "exit": 0}],
            "benches": [{**bench, "contender": "cuda/implicit_gemm", "predicted_us": 7.0}, {**bench, "contender": "cuBLAS f32"}]})
        for line in ("| GEMM | f32 | implicit_gemm | 8.0 | cuBLAS f32 | 8.0 | 1.00 | 12% |",
                     "| GEMM | f32 | implicit_gemm 8.0 (7.0) |", "| conv2d f32 | 3 | 1 | 0 |", "conv2d on x: wrong"):
            self.assertIn(line, text)

    def test_without_a_gpu_it_says_so(self):
        self.assertIn("Not yet run", table.markdown({"facts": None}))


if __name__ == "__main__":
    unittest.main()
