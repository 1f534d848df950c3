# SPDX-License-Identifier: BSD-2-Clause
"""The table at the end."""
from harness.vm import MIB

from judge import peak


def _at(samples, part):
    """The sample at a part of the time after both workloads had started."""
    running = [sample for sample in samples if sample.started] or samples
    return running[min(int(part * len(running)), len(running) - 1)]


def _count(number):
    return "?" if number is None else f"{number:,}"


def _highest(samples, name, value):
    return max((value(sample.vms[name]) or 0 for sample in samples), default=0)


def _row(guest, samples):
    name, last = guest.name, samples[-1].vms[guest.name]
    fullest = max((sample.vms[name] for sample in samples),
                  key=lambda vm: vm.stats.get("stored-pages") or 0)
    ratio = fullest.ratio
    return [name, *(f"{_at(samples, part).vms[name].ram / MIB:.0f}"
                    for part in (0, 0.25, 0.5, 0.75, 1)),
            f"{_highest(samples, name, lambda vm: vm.store) / MIB:.0f}",
            _count(last.stats.get("faults")), _count(last.stats.get("evictions")),
            _count(last.stats.get("restores")), f"{ratio:.2f}" if ratio else "-",
            _count(_highest(samples, name, lambda vm: vm.ballooned_pages)),
            _count(guest.workload.verified), _count(guest.workload.wrong)]


GROUPS = [("", 1), ("resident MiB, over time", 5), ("store", 1), ("", 1), ("", 1), ("", 1),
          ("compr.", 1), ("ballooned", 1), ("pages", 1), ("wrong", 1)]
HEAD = ["VM", "start", "1/4", "1/2", "3/4", "end", "MiB", "faults", "evictions", "restores",
        "ratio", "pages", "checked", "tags"]


def _line(cells, widths):
    first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths))
    return "  ".join([first.strip().ljust(widths[0]), *rest]).rstrip()


def _groups_line(widths):
    parts, column = [], 0
    for text, count in GROUPS:
        width = sum(widths[column:column + count]) + 2 * (count - 1)
        parts.append(text.center(width) if count > 1 else text.rjust(width))
        column += count
    return "  ".join(parts).rstrip()


def render(scene, samples):
    rows = [_row(guest, samples) for guest in scene.guests]
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(len(HEAD))]
    for column, minimum in ((6, 5), (10, 6), (11, 9), (13, 5)):
        widths[column] = max(widths[column], minimum)
    head = _line(HEAD, widths)
    return "\n".join([_groups_line(widths), head, "-" * len(head),
                      *(_line(row, widths) for row in rows)])


def render_totals(plan, samples):
    """Budget, what was used of it, and what is beside it."""
    most = peak(samples)
    if most is None:
        return "The workloads never ran at the same time."
    parts = [sum(getattr(vm, part) for vm in most.vms.values()) / MIB
             for part in ("ram", "store", "ledger")]
    return (f"At most {most.counted / MIB:.0f} of {plan.budget} MiB in use, at {most.time:.0f} s: "
            f"guest RAM {parts[0]:.0f}, stores {parts[1]:.0f}, ledgers {parts[2]:.1f}.\n"
            f"The two workloads fill {2 * plan.workload} MiB. Beside the budget: QEMU's own "
            f"memory, {most.overhead / MIB:.0f} MiB.")
