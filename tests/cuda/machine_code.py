"""Is the machine code of the CUDA kernels what their headings promise?

usage: machine_code.py LIBRARY EXPECTATIONS CUOBJDUMP

Reads the SASS of every kernel in LIBRARY and holds it against EXPECTATIONS (machine_code.toml): registers, shared
memory, local memory, instructions that must be there, that must not, and the length of the inner loop. Kernels of
sm_90, which may start before the one before them has ended, must wait for it before they touch global memory. Every
kernel must be expected by exactly one entry, and every entry must expect a kernel. Exit code 0 when all hold.
"""

import collections
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field


@dataclass
class Kernel:
    """One kernel of one architecture: its resources, and its instructions in order as (address, mnemonic, text)."""

    name: str
    arch: str
    resources: dict = field(default_factory=dict)
    code: list = field(default_factory=list)
    predicated: set = field(default_factory=set)  # addresses of instructions that are executed under a condition

    def count(self, pattern, code=None):
        return sum(1 for _, mnemonic, _ in (self.code if code is None else code) if re.match(pattern, mnemonic))

    def loops(self):
        """Bodies of all loops: from the target of a branch backwards to the branch."""
        for address, mnemonic, text in self.code:
            target = re.search(r"\b0x([0-9a-f]+)", text)
            if mnemonic == "BRA" and target and int(target[1], 16) < address:
                first = int(target[1], 16)
                yield [line for line in self.code if first <= line[0] <= address]

    def inner_loop(self, holds):
        """The shortest of the loops that hold most of the instructions `holds`."""
        loops = list(self.loops())
        most = max((self.count(holds, body) for body in loops), default=0)
        return min((body for body in loops if most and self.count(holds, body) == most), key=len, default=[])

    def way_round(self, body, through):
        """How many instructions are the shortest way round the loop `body` by its last `through`; 0 if there is none.
        Jumps by a table are no way: code that is seldom run lies behind them."""
        place = {address: i for i, (address, _, _) in enumerate(body)}

        def following(i):
            address, mnemonic, text = body[i]
            target = re.search(r"\b0x([0-9a-f]+)", text)
            if mnemonic == "BRA" and target and int(target[1], 16) in place:
                yield place[int(target[1], 16)]
            if address in self.predicated or not re.match(r"BRA|BRX|EXIT", mnemonic):
                yield i + 1

        def shortest(first, last):
            steps, reached = 0, {first}
            while last not in reached:
                more = reached | {j for i in reached for j in following(i) if first < j < len(body)}
                if more == reached:
                    return None
                steps, reached = steps + 1, more
            return steps

        marks = [i for i, (_, mnemonic, _) in enumerate(body) if re.match(through, mnemonic)]
        ways = [shortest(0, marks[-1]), shortest(marks[-1], len(body) - 1)] if marks else [None]
        return 0 if None in ways else sum(ways) + 1


def run(cuobjdump, *arguments):
    environment = dict(os.environ, PATH=os.path.dirname(cuobjdump) + os.pathsep + os.environ.get("PATH", ""))
    return subprocess.run([cuobjdump, *arguments], env=environment, check=True, capture_output=True, text=True).stdout


def demangle(names):
    return subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True).stdout.split("\n")


def read(cuobjdump, library):
    """Every kernel of the library, by (mangled name, architecture)."""
    kernels, arch, current = {}, None, None
    for line in run(cuobjdump, "-sass", library).split("\n"):
        if match := re.match(r"\s*arch = (\S+)", line):
            arch = match[1]
        elif match := re.search(r"Function : (\S+)", line):
            current = kernels[match[1], arch] = Kernel(match[1], arch)
        elif current and (match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\S+ )?([A-Z][^\s;]*)(.*)", line)):
            current.code.append((int(match[1], 16), match[3], match[4]))
            if match[2]:
                current.predicated.add(int(match[1], 16))
    mangled = None
    for line in run(cuobjdump, "--dump-resource-usage", library).split("\n"):
        if match := re.match(r"\s*arch = (\S+)", line):
            arch = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            mangled = match[1]
        elif "REG:" in line and (mangled, arch) in kernels:
            kernels[mangled, arch].resources = {k: int(v) for k, v in re.findall(r"([A-Z]+)(?:\[\d+\])?:(\d+)", line)}
    for kernel, name in zip(kernels.values(), demangle([k.name for k in kernels.values()])):
        kernel.name = name
    return list(kernels.values())


GLOBAL_MEMORY = r"LDG|STG|LDGSTS|LD\.|ST\.|ATOM|RED|UTMALDG|UTMASTG|UBLK"


def overtakes(kernel):
    """Whether a kernel of sm_90 touches global memory without having waited (ACQBULK) for earlier kernels."""
    if not kernel.arch.startswith("sm_90"):
        return False
    waits = [address for address, mnemonic, _ in kernel.code if mnemonic == "ACQBULK"]
    touches = [address for address, mnemonic, _ in kernel.code if re.match(GLOBAL_MEMORY, mnemonic)]
    return not waits or any(address < waits[0] for address in touches)


def faults(kernel, expected):
    """What is wrong with one kernel, in sentences."""
    registers, local = kernel.resources.get("REG", -1), kernel.resources.get("STACK", 0) + kernel.resources.get("LOCAL", 0)
    if not 0 < registers <= expected["registers"]:
        yield f"has {registers} registers, at most {expected['registers']} are expected"
    if local > expected.get("local_bytes", 0):
        yield f"has {local} bytes of local memory"
    if overtakes(kernel):
        yield "touches global memory before it has waited for earlier kernels"
    for pattern, least in expected.get("must", {}).items():
        if (found := kernel.count(pattern)) < least:
            yield f"has {found} of {pattern}, at least {least} are expected"
    for pattern, most in expected.get("at_most", {}).items():
        if (found := kernel.count(pattern)) > most:
            yield f"has {found} of {pattern}, at most {most} are expected"
    forbidden = list(expected.get("must_not", [])) + ([] if expected.get("local_bytes") else ["LDL", "STL"])
    for pattern in forbidden:
        if found := kernel.count(pattern):
            yield f"has {found} of {pattern}, none is expected"
    if loop := expected.get("loop"):
        body = kernel.inner_loop(loop["holds"])
        holds = kernel.count(loop["holds"], body)
        length = kernel.way_round(body, loop["through"]) if "through" in loop else len(body)
        if holds < loop["least"] or not 0 < length <= loop["most"]:
            yield (f"has an inner loop of {length} instructions with {holds} of {loop['holds']}, "
                   f"expected at most {loop['most']} with at least {loop['least']}")


def main():
    library, table, cuobjdump = sys.argv[1:]
    with open(table, "rb") as file:
        expectations = tomllib.load(file)["kernel"]
    kernels, wrong, used = read(cuobjdump, library), 0, collections.Counter()
    for kernel in kernels:
        matching = [e for e in expectations if re.search(e["name"], kernel.name) and kernel.arch in e.get("arch", [kernel.arch])]
        found = [f"is expected by {len(matching)} entries"] if len(matching) != 1 else list(faults(kernel, matching[0]))
        used.update(e["name"] for e in matching)
        for sentence in found:
            print(f"{kernel.name} [{kernel.arch}] {sentence}")
        wrong += bool(found)
    for entry in expectations:
        if not used[entry["name"]]:
            print(f"no kernel is named {entry['name']}")
            wrong += 1
    print(f"{len(kernels)} kernels read, {wrong} of them or of their expectations wrong")
    sys.exit(1 if wrong or not kernels else 0)


if __name__ == "__main__":
    main()
