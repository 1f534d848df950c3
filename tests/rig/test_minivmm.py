#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 1500
"""examples/minivmm on hardware KVM (nested, under QEMU): Debian's kernel with Linux's balloon
driver and with ours, against the library's device; each effect seen from host and guest."""
import json
import os
import re
import subprocess

from harness import paths, tap
from harness.nested import MINIVMM, nested_host

MIB = 1 << 20
MEMORY = 256 * MIB

# Up to where the driver is there; then what the host has it do, a line of input each.
GUEST = """
complaints() {{ dmesg | grep -cE 'BUG|WARNING|Oops'; }}
# QEMU's model of the processor has one about XSAVE, long before.
before=$(complaints)
{driver}
echo "ready total=$(awk '/^MemTotal/{{print $2}}' /proc/meminfo)"
state() {{
	echo "state $1 $(awk '/^MemFree/{{print "free=" $2}}' /proc/meminfo)" \\
		"$(awk '/^balloon_|^oom_kill /{{printf "%s=%s ", $1, $2}}' /proc/vmstat)" \\
		"complaints=$(($(complaints) - before))"
}}
while read -r line; do
	$line
	echo "done $line"
done
"""

HOST = """
start --memory 256 --limit 256 {features}
said "ready total"
until numbers | grep -q '"guest_total_bytes": *[0-9]'; do sleep 0.1; done
segment ready

set_balloon 167772160
reach 167772160
sleep 1
segment inflated
tell "state inflated"; said "done state inflated"
set_balloon null
reach 268435456
segment deflated
tell "state deflated"; said "done state deflated"
{more}
tell "reboot -f"
ended
"""

# In pages, as the device counts.
COUNTERS = """
count() { ask query-device | sed "s/.*\\"$1\\":\\([0-9]*\\).*/\\1/"; }
"""

REPORTING = COUNTERS + """
tell "dd if=/dev/urandom of=/tmp/file bs=1M count=64"; said "done dd"
segment filled
before=$(count reported)
tell "rm /tmp/file"; said "done rm"
until [ $(count reported) -gt $((before + 12288)) ]; do sleep 0.2; done
segment reported
"""

HINTING = """
echo "rig: hint-start $(ask hint-start)"
until [ $(count hinted) -gt 4096 ]; do sleep 0.2; done
device hinted
echo "rig: hint-stop $(ask hint-stop)"
"""

# What is left to the guest is far less than it then uses.
OOM = """
set_balloon 125829120
reach 125829120
segment squeezed
tell "workload mib=80 hot=8 seconds=2 cold=500 seed=3"; said "done workload"
tell "state squeezed"; said "done state squeezed"
segment relieved
"""


def segment(vm, tag, seconds=400):
    """What was published at that point, by the segment's names."""
    text = vm.wait_line(rf"^rig: segment {tag} (.*)", seconds).group(1)
    return json.loads(text)["vms"][0]["segment"]


def run(name, driver, features="", more=""):
    """The VM, to be used in a `with` statement."""
    return nested_host(name, HOST.format(features=features, more=more),
                       GUEST.format(driver=driver))


def inner_state(vm, tag):
    """What the guest said of itself; after the end of minivmm."""
    line = vm.wait_line(rf"^rig: inner: state {tag} (.*)", 30).group(1)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


def check_end(vm):
    status = vm.wait_line(r"^rig: minivmm ended with (\d+)", 120).group(1)
    tap.check_equal(status, "0", "minivmm's status")


def check_balloon(vm):
    """Inflated by 96 MiB and deflated: what the host has, what the guest has, what it says."""
    ready, inflated, deflated = (segment(vm, tag) for tag in ("ready", "inflated", "deflated"))
    fell = ready["resident_bytes"] - inflated["resident_bytes"]
    tap.note(f"resident {ready['resident_bytes'] // MIB} MiB, inflated "
             f"{inflated['resident_bytes'] // MIB}, given up {inflated['discarded_bytes'] // MIB}")
    tap.check(inflated["discarded_bytes"] >= 96 * MIB, "not given up on the host")
    # What the guest had never touched was never resident.
    tap.check(fell >= 0 or inflated["resident_bytes"] < ready["resident_bytes"] + 8 * MIB,
              f"residency rose by {-fell}")
    tap.check_equal(deflated["balloon_actual_bytes"], MEMORY, "deflated")
    for name in ("total", "free", "available", "disk_cache"):
        value = ready[f"guest_{name}_bytes"]
        tap.check(value is not None and value < MEMORY, f"guest_{name}_bytes: {value}")
    # Linux's driver says more from 6.12 on.
    for name in ("major_faults", "minor_faults", "swap_in_bytes", "swap_out_bytes"):
        tap.check(ready[f"guest_{name}"] is not None, f"guest_{name} unknown")


def check_guest(vm):
    total = int(vm.wait_line(r"^rig: inner: ready total=(\d+)", 30).group(1)) * 1024
    tap.check_equal(segment(vm, "ready")["guest_total_bytes"], total, "the guest's total")
    inflated, deflated = inner_state(vm, "inflated"), inner_state(vm, "deflated")
    tap.check(inflated["balloon_inflate"] >= 96 * 256, f"{inflated}")
    tap.check(deflated["balloon_deflate"] >= 96 * 256, f"{deflated}")
    tap.check(deflated["free"] > inflated["free"] + 80 * 1024, "the guest has not got it back")
    tap.check_equal((deflated["complaints"], deflated["oom_kill"]), (0, 0), "complaints, kills")


def check_oom(vm):
    squeezed, relieved = segment(vm, "squeezed"), segment(vm, "relieved")
    tap.check(relieved["balloon_actual_bytes"] > squeezed["balloon_actual_bytes"],
              "the balloon did not give way")
    state = inner_state(vm, "squeezed")
    tap.check_equal((state["oom_kill"], state["complaints"]), (0, 0), "kills, complaints")
    summary = vm.wait_line(r"^rig: inner: workload: summary (.*)", 30).group(1)
    tap.check("wrong=0" in summary, summary)


def test_linux_driver():
    """minivmm: Linux's driver: inflate, deflate, statistics, reporting, hinting, OOM deflation"""
    with run("mini-linux", "linux_driver", more=REPORTING + HINTING + OOM) as vm:
        check_balloon(vm)
        filled, reported = segment(vm, "filled"), segment(vm, "reported")
        tap.note(f"filled {filled['resident_bytes'] // MIB} MiB resident, after reporting "
                 f"{reported['resident_bytes'] // MIB}")
        tap.check(filled["resident_bytes"] - reported["resident_bytes"] >= 48 * MIB,
                  "reporting did not lower what is resident")
        hinted = json.loads(vm.wait_line(r"^rig: device hinted (.*)", 120).group(1))["return"]
        tap.check_equal((hinted["broken"], hinted["ignored"]), (0, 0), "broken, ignored")
        tap.check_equal(json.loads(vm.wait_line(r"^rig: hint-stop (.*)", 30).group(1)),
                        {"return": {}}, "hint-stop")
        check_end(vm)
        check_guest(vm)
        check_oom(vm)


def test_packed():
    """minivmm: Linux's driver over packed rings"""
    with run("mini-packed", "linux_driver", features="--features 0x53000003f") as vm:
        check_balloon(vm)
        check_end(vm)
        check_guest(vm)


def test_our_driver():
    """minivmm: our driver against our device: inflate, deflate, statistics, OOM deflation"""
    with run("mini-ours", "our_driver", more=OOM) as vm:
        check_balloon(vm)
        check_end(vm)
        check_guest(vm)
        check_oom(vm)


def test_limit():
    """minivmm: a guest that works with twice what may be resident loses nothing"""
    host = """
start --memory 256 --limit 96
said "ready total"
tell "workload mib=144 hot=8 seconds=2 cold=500 seed=5"; said "done workload"
segment worked
tell "reboot -f"
ended
"""
    with nested_host("mini-limit", host, GUEST.format(driver="")) as vm:
        worked = segment(vm, "worked")
        tap.note({name: worked[name] for name in ("resident_bytes", "stored_pages", "evictions",
                                                  "restores", "poisoned", "over_limit")})
        tap.check(worked["resident_bytes"] <= 100 * MIB, "above its limit")
        tap.check(0 < worked["active_bytes"] <= worked["resident_bytes"] + MIB,
                  f"active {worked['active_bytes']}")
        tap.check(worked["restores"] > 0 and worked["evictions"] > 0, "nothing was paged")
        check_end(vm)
        summary = vm.wait_line(r"^rig: inner: workload: summary (.*)", 30).group(1)
        tap.check(" wrong=0 " in summary, summary)


def test_governed():
    """minivmm: memvirt govern keeps it within a budget, by limit and balloon, without QMP"""
    host = f"""
start --memory 256
said "ready total"
/rig/memvirt govern --budget 180M --floor 32M --interval 0.5 --run-dir /run/memvirt >/tmp/govern 2>&1 &
until grep -q "balloon" /tmp/govern && grep -q "limit" /tmp/govern; do sleep 0.2; done
sleep 4
segment governed
kill $!
sed 's/^/rig: govern: /' /tmp/govern
tell "reboot -f"
ended
"""
    with nested_host("mini-govern", host, GUEST.format(driver="linux_driver"),
                     programs=[paths.MEMVIRT]) as vm:
        governed = segment(vm, "governed")
        used = sum(governed[name] for name in ("resident_bytes", "store_memory_bytes",
                                               "overhead_bytes"))
        tap.note(f"used {used // MIB} MiB, limit {governed['limit_bytes'] // MIB}, balloon "
                 f"{governed['balloon_actual_bytes'] // MIB}")
        tap.check(used <= 180 * MIB, "above the budget")
        tap.check(governed["balloon_actual_bytes"] < MEMORY, "no balloon")
        check_end(vm)


def run_payload(*arguments):
    payload = paths.BUILD / "tests" / "rig" / "payload.bin"
    return subprocess.run([str(MINIVMM), "--payload", str(payload), *arguments], timeout=120,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_payload():
    """minivmm: on this host's own KVM, a payload in a quarter of its memory loses nothing"""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        tap.need("this host has no KVM that we may use")
    for limit in ([], ["--limit", "16"]):
        done = run_payload("--memory", "64", *limit)
        tap.check_equal((done.returncode, done.stderr), (0, ""), "status")
        # 60 MiB of pages, in five rounds.
        tap.check_equal(done.stdout, f"payload: pages={60 * 256 * 5} wrong=0\n", "what it says")


def test_usage():
    """minivmm: help, and what cannot be is refused before anything is made"""
    done = subprocess.run([str(MINIVMM), "--help"], capture_output=True, text=True)
    tap.check_equal((done.returncode, done.stderr), (0, ""), "--help")
    for line in done.stdout.splitlines():
        tap.check(len(line) <= 80, line)
    for arguments in ([], ["--kernel", "a", "--payload", "b"], ["--kernel", "a", "--memory", "x"],
                      ["--kernel", "a", "--memory", "8"], ["--kernel", "a", "--name", "n"],
                      ["--nonsense"]):
        done = subprocess.run([str(MINIVMM), *arguments], capture_output=True, text=True)
        tap.check_equal(done.returncode, 2, f"{arguments}")
        tap.check(done.stderr, f"{arguments}: no message")
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        done = subprocess.run([str(MINIVMM), "--kernel", "/dev/null"], capture_output=True,
                              text=True)
        tap.check_equal(done.returncode, 1, "status for no kernel")
        tap.check("is no Linux kernel" in done.stderr or "no interrupt controllers" in done.stderr,
                  done.stderr)


def main():
    reason = paths.missing_tools() or paths.missing_guest()
    if not reason and not MINIVMM.exists():
        reason = "examples/minivmm is not built"
    if reason:
        print(f"1..1\nok 1 - minivmm # SKIP {reason}")
        return
    tap.main(test_usage, test_payload, test_linux_driver, test_packed, test_our_driver, test_limit, test_governed)


if __name__ == "__main__":
    main()
