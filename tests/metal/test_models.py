#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 900
"""Processor models walk tables that the core built, and do what the core says: on Bochs (VMX
with EPT, SVM with nested paging) and on QEMU (SVM with nested paging); and without a second stage,
where guests of all modes run on shadow tables.

SEED=N repeats a run, ROUNDS=N makes it N times as long, WORLD=N runs one world alone.
What does not belong here: what the image does (main.c, rounds.c), known quirks (quirks.c).
"""
import os
import random

import models  # first: it finds the harness
from harness import tap

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
WORLD = os.environ.get("WORLD")
TOLD = 60  # lines about mismatches

# What each run has to have met, or it proves little. The rarest is met some 50 times.
ENDS = ("done 4k", "done 2m", "page-fault absent", "page-fault rights", "page-fault reserved",
        "general-protection")
STAGE2 = ("violation final", "violation guest-table", "misconfigured final",
          "misconfigured guest-table", "done cr3")
SHADOW = ("shadow fixed", "shadow injected", "guest paging-off")
GUESTS = ("guest 32-bit", "guest 32-bit-pse", "guest pae", "guest 4-level")
NEWER = ("done 1g", "guest paging-off")
NEWEST = (*NEWER, "guest 5-level", "page-fault key")


def parameters(worlds, flags=0):
    if WORLD is not None:
        return {"seed": SEED, "worlds": 1, "first_world": int(WORLD), "flags": flags}
    return {"seed": SEED, "worlds": worlds * ROUNDS, "flags": flags}


def seconds():
    return 120 + 60 * ROUNDS


def check_report(report, model, wanted):
    for line in report.problems[:TOLD]:
        tap.note(line)
    done = report.done()
    tap.check(done, f"no end: {report.problems[-1:] or report.output[-2000:]}")
    tap.check_equal(report.said["model"], model, "model")
    worlds, accesses, mismatches = done
    quirks = {what.removeprefix("quirk "): number for what, number in report.counts.items()
              if what.startswith("quirk ") and number}
    tap.note(f"{worlds} worlds, {accesses} accesses, {mismatches} mismatches; "
             f"features {report.said['features']}, quirks {quirks}")
    tap.check_equal(mismatches, 0, "mismatches")
    if WORLD is None:
        check_coverage(report, worlds, accesses, wanted)


def check_absent(report, kinds):
    """What this model cannot do was not met, so that it is the model that was meant."""
    tap.check_equal([what for what in kinds if report.counts.get(what)], [], "met")


def check_coverage(report, worlds, accesses, wanted):
    tap.check(accesses > 20 * worlds, "hardly any access was made")
    for what in (*ENDS, *GUESTS, *wanted):
        tap.check(report.counts.get(what, 0) >= 3, f"'{what}' was hardly met")


def test_bochs_vmx():
    """bochs: VMX with EPT"""
    tap.need(models.missing_bochs())
    report = models.run_bochs("corei7_skylake_x", seconds(), **parameters(200))
    check_report(report, "VMX+EPT", (*STAGE2, *NEWER))


def test_bochs_vmx_of_old():
    """bochs: VMX with EPT that has no accessed flags, no 1 GiB pages, no guest without paging"""
    tap.need(models.missing_bochs())
    report = models.run_bochs("corei5_lynnfield_750", seconds(), **parameters(80))
    check_report(report, "VMX+EPT", STAGE2)
    check_absent(report, NEWER)


def test_bochs_svm():
    """bochs: SVM with nested paging"""
    tap.need(models.missing_bochs())
    report = models.run_bochs("ryzen", seconds(), **parameters(150))
    check_report(report, "SVM+NPT", (*STAGE2, *NEWER))


def test_qemu_svm():
    """qemu: SVM with nested paging"""
    tap.need(models.missing_qemu())
    report = models.run_qemu("max,+svm,+npt", seconds(), **parameters(800))
    tap.check_equal(report.said.get("host-levels"), "4", "levels of the host")
    check_report(report, "SVM+NPT", (*STAGE2, *NEWEST))


def test_qemu_svm_host_of_five_levels():
    """qemu: SVM with nested paging of five levels"""
    tap.need(models.missing_qemu())
    report = models.run_qemu("max,+svm,+npt", seconds(), **parameters(400, models.HOST_LA57))
    tap.check_equal(report.said.get("host-levels"), "5", "levels of the host")
    check_report(report, "SVM+NPT", (*STAGE2, *NEWEST))


def test_qemu_svm_without_large_pages():
    """qemu: SVM with nested paging, on a processor without 1 GiB pages"""
    tap.need(models.missing_qemu())
    report = models.run_qemu("max,+svm,+npt,pdpe1gb=off", seconds(), **parameters(200))
    check_report(report, "SVM+NPT", STAGE2)
    check_absent(report, ["done 1g"])


def test_bochs_vmx_shadow():
    """bochs: VMX without EPT, guests on shadow tables"""
    tap.need(models.missing_bochs())
    report = models.run_bochs("corei7_skylake_x", seconds(), **parameters(80, models.SHADOW))
    check_report(report, "VMX+shadow", SHADOW)


def test_bochs_svm_shadow():
    """bochs: SVM without nested paging, guests on shadow tables"""
    tap.need(models.missing_bochs())
    report = models.run_bochs("ryzen", seconds(), **parameters(80, models.SHADOW))
    check_report(report, "SVM+shadow", SHADOW)


def test_qemu_shadow():
    """qemu: SVM without nested paging, guests on shadow tables of four and five levels"""
    tap.need(models.missing_qemu())
    report = models.run_qemu("max,+svm", seconds(), **parameters(1000, models.SHADOW))
    check_report(report, "SVM+shadow", (*SHADOW, "guest 5-level", "shadow ahead",
                                        "shadow rights emulated"))


def test_qemu_shadow_host_of_five_levels():
    """qemu: the same under a host of five levels"""
    tap.need(models.missing_qemu())
    report = models.run_qemu("max,+svm", seconds(),
                             **parameters(300, models.SHADOW | models.HOST_LA57))
    check_report(report, "SVM+shadow", (*SHADOW, "guest 5-level"))


if __name__ == "__main__":
    tap.note(f"seed: {SEED} (SEED={SEED} runs it again)")
    tap.main(test_bochs_vmx, test_bochs_vmx_of_old, test_bochs_svm, test_qemu_svm,
             test_qemu_svm_host_of_five_levels, test_qemu_svm_without_large_pages,
             test_bochs_vmx_shadow, test_bochs_svm_shadow, test_qemu_shadow,
             test_qemu_shadow_host_of_five_levels)
