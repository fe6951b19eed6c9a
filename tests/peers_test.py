#!/usr/bin/env python3
"""The arithmetic of ./do peers: ratios, means and verdicts (bench/peers/stats.py), and its targets."""

import json
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench" / "peers"))
import stats  # noqa: E402

TARGETS = json.loads((ROOT / "bench" / "peers" / "targets.json").read_text(encoding="utf-8"))
GROUP = {"name": "depthwise", "what": "", "mean": 1.5, "lowest": 1.2, "rows": ["a", "b"]}


def rows(a, b, best_us=100.0):
    return {"a": {"ratio": a, "best_us": best_us}, "b": {"ratio": b, "best_us": best_us}}


class Stats(unittest.TestCase):
    def test_a_ratio_is_the_median_of_the_rounds_ratios(self):
        figures = stats.peer_figures([10, 20, 10], [30, 40, 10])
        self.assertEqual(figures["ratio"], 2)
        self.assertEqual((figures["ratio_min"], figures["ratio_max"], figures["rounds"]), (1, 3, 3))
        self.assertEqual(figures["us"], 30)
        # Rounds that one side lacks are no rounds.
        self.assertEqual(stats.peer_figures([10, None, 10], [30, 40, None])["rounds"], 1)
        self.assertIsNone(stats.peer_figures([10], [None]))

    def test_the_best_peer_is_accurate(self):
        peers = {"fast": {"ratio": 0.5, "error": 80.0}, "wrong": {"ratio": 0.6, "error": float("nan")},
                 "sound": {"ratio": 0.9, "error": 0.1}, "unmeasured": {"ratio": 1.0, "error": None},
                 "absent": {"refused": "no"}}
        self.assertEqual(stats.best_peer(peers, 4), "sound")
        self.assertIsNone(stats.best_peer({"absent": {"refused": "no"}}, 4))

    def test_mean_and_lowest_row_must_both_be_reached(self):
        self.assertAlmostEqual(stats.geomean([1, 4]), 2)
        self.assertTrue(stats.verdict(GROUP, rows(1.5, 1.5), TARGETS)["met"])
        self.assertFalse(stats.verdict(GROUP, rows(1.1, 3.0), TARGETS)["met"])
        self.assertFalse(stats.verdict(GROUP, rows(1.49, 1.49), TARGETS)["met"])
        self.assertIsNone(stats.verdict(GROUP, {"a": None, "b": None}, TARGETS)["met"])

    def test_several_threads_lower_the_lowest_row_and_excuse_short_ones(self):
        self.assertTrue(stats.verdict(GROUP, rows(2.5, 0.97), TARGETS, threads=2)["met"])
        self.assertFalse(stats.verdict(GROUP, rows(2.5, 0.96), TARGETS, threads=2)["met"])
        self.assertTrue(stats.verdict(GROUP, rows(1.0, 1.0, best_us=39), TARGETS, threads=2)["met"])
        self.assertFalse(stats.verdict(GROUP, rows(0.99, 9.0, best_us=39), TARGETS, threads=2)["met"])

    def test_avx2_asks_for_less(self):
        self.assertEqual(stats.goals(GROUP, TARGETS, 1, "AVX2"), (1.4, 1.1))
        mean, lowest = stats.goals(dict(GROUP, name="other"), TARGETS, 1, "AVX2")
        self.assertAlmostEqual(mean, 1.45)
        self.assertAlmostEqual(lowest, 1.15)

    def test_the_targets_name_rows_of_the_suite_and_each_is_judged(self):
        suite = set(re.findall(r"^([\w.]+):", (ROOT / "bench" / "suite.txt").read_text(encoding="utf-8"), re.M))
        named = set().union(*(g["rows"] for g in TARGETS["groups"] if g["rows"] != "all"))
        self.assertEqual(named, suite)

    def test_images_in_nchw_are_judged_by_their_lowest_row(self):
        groups = {g["beside"]: g | {"rows": "all"} for g in TARGETS["nchw"]}
        self.assertEqual(set(groups), {"peers", "nhwc"})
        self.assertTrue(stats.verdict(groups["peers"], rows(1.0, 3.0), TARGETS)["met"])
        self.assertFalse(stats.verdict(groups["peers"], rows(0.99, 3.0), TARGETS)["met"])
        # Our own speed is no short row's excuse, and on several threads the goal is the same.
        own = rows(0.9, 1.1, best_us=float("inf"))
        self.assertTrue(stats.verdict(groups["nhwc"], own, TARGETS, threads=2)["met"])
        self.assertTrue(stats.verdict(groups["nhwc"], rows(0.85, 1.1), TARGETS, isa="AVX2")["met"])
        self.assertFalse(stats.verdict(groups["nhwc"], rows(0.84, 1.1), TARGETS, isa="AVX2")["met"])


if __name__ == "__main__":
    unittest.main()
