"""What the benchmarks see of processes below them."""

import subprocess
import sys

from benchmarks.process_tree import Process, descendants, pss_mib

PARENT = """
import subprocess
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


def test_grandchildren_are_found_until_they_are_gone():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        grandchild = int(parent.stdout.readline())

        below = descendants(parent.pid)

        assert [process.pid for process in below] == [grandchild]
        assert below[0].alive
        assert pss_mib(below) > 0
        subprocess.run(["kill", "-9", str(grandchild)], check=True)
        parent.wait(timeout=10)
    assert not below[0].alive


def test_a_later_process_of_the_same_number_is_another_one():
    with subprocess.Popen(["sleep", "60"]) as process:
        now = Process(process.pid, 0)

        assert not now.alive
        process.kill()
