"""Does machine_code.py find what it is there to find? Run by ctest."""

import unittest

import machine_code


def kernel(mnemonics, registers=32, stack=0, arch="sm_80"):
    """Instructions at multiples of 16; "BRA 32" branches back to address 32."""
    made = machine_code.Kernel("k", arch, {"REG": registers, "STACK": stack})
    for i, text in enumerate(mnemonics):
        mnemonic, _, target = text.partition(" ")
        made.code.append((16 * i, mnemonic, f" 0x{int(target):x} ;" if target else ""))
    return made


class MachineCode(unittest.TestCase):
    good = ["MOV", "LDG.E.128", "FFMA", "FFMA", "BRA 32", "EXIT"]
    expected = {"registers": 32, "must": {r"LDG\.E\.128": 1}, "at_most": {"BRA": 1},
                "must_not": ["RET"], "loop": {"holds": "FFMA", "least": 2, "most": 3}}

    def fault(self, mnemonics, **resources):
        return " ".join(machine_code.faults(kernel(mnemonics, **resources), self.expected))

    def test_what_is_as_expected_has_no_fault(self):
        self.assertEqual(self.fault(self.good), "")

    def test_registers_and_local_memory(self):
        self.assertIn("33 registers", self.fault(self.good, registers=33))
        self.assertIn("8 bytes of local memory", self.fault(self.good, stack=8))
        self.assertIn("1 of LDL", self.fault(self.good + ["LDL.64"]))

    def test_instructions(self):
        self.assertIn("0 of LDG", self.fault(["LDG.E.64" if i == "LDG.E.128" else i for i in self.good]))
        self.assertIn("2 of BRA, at most 1", self.fault(self.good + ["BRA 32"]))
        self.assertIn("1 of RET", self.fault(self.good + ["RET.REL.NODEC"]))

    def test_kernels_that_may_overlap_wait_first(self):
        waits = ["PREEXIT", "ACQBULK"]
        self.assertEqual(self.fault(waits + self.good[:-2] + ["BRA 64", "EXIT"], arch="sm_90"), "")
        for late in (self.good, self.good[:2] + waits + self.good[2:], ["UTMALDG.2D"] + waits + self.good):
            self.assertIn("before it has waited", self.fault(late, arch="sm_90a"))

    def test_the_inner_loop(self):
        self.assertIn("loop of 4 instructions", self.fault(["MOV", "LDG.E.128", "FFMA", "MOV", "FFMA", "BRA 32"]))
        self.assertIn("with 1 of FFMA", self.fault(["FFMA", "LDG.E.128", "FFMA", "BRA 32"]))
        self.assertIn("with 0 of FFMA", self.fault(["FFMA", "LDG.E.128", "FFMA", "EXIT"]))

    def test_the_innermost_of_loops_that_hold_all(self):
        nested = kernel(["MOV", "FFMA", "FFMA", "BRA 16", "MOV", "BRA 0"])
        self.assertEqual([m for _, m, _ in nested.inner_loop("FFMA")], ["FFMA", "FFMA", "BRA"])

    def test_the_shortest_way_round_a_loop(self):
        # A branch round the second FFMA, one that always goes back, and a table of jumps that is no way to the store.
        code = kernel(["FFMA", "BRA 48", "FFMA", "MOV", "BRX", "STG", "MOV", "BRA 0"])
        code.predicated = {16, 64}
        self.assertEqual(code.way_round(code.code, "STG"), 7)
        code.predicated = {64}
        self.assertEqual(code.way_round(code.code, "STG"), 7)
        code.predicated = {16}
        self.assertEqual(code.way_round(code.code, "STG"), 0)
        self.assertEqual(code.way_round(code.code, "LDG"), 0)
        expected = {"registers": 32, "loop": {"holds": "FFMA", "least": 2, "most": 6, "through": "STG"}}
        self.assertIn("loop of 0", " ".join(machine_code.faults(code, expected)))
        code.predicated = {16, 64}
        self.assertIn("loop of 7", " ".join(machine_code.faults(code, expected)))


if __name__ == "__main__":
    unittest.main()
