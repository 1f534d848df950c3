# SPDX-License-Identifier: BSD-2-Clause
"""The plot: memory in use against time, as SVG, with nothing but the standard library.

Stacked from below: each VM's RAM, then the stores with the ledgers. Above it the budget, and
what the workloads fill.
"""
from html import escape

from harness.vm import MIB

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 84, 64
FILLS = ["#3b76af", "#7fb2dd"]
STORE, BUDGET, WANTED, INK, FAINT = "#e3a34f", "#c0392b", "#5b6770", "#2b3238", "#dde2e6"
STYLE = f"""
text {{ font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: {INK}; }}
.title {{ font-size: 18px; font-weight: 600; }}
.faint {{ fill: {WANTED}; }}
.grid {{ stroke: {FAINT}; stroke-width: 1; }}
.axis {{ stroke: {INK}; stroke-width: 1.2; }}
.mark {{ stroke: {WANTED}; stroke-width: 1; stroke-dasharray: 2 4; }}
.budget {{ stroke: {BUDGET}; stroke-width: 2; stroke-dasharray: 9 5; }}
.wanted {{ stroke: {WANTED}; stroke-width: 1.6; stroke-dasharray: 3 4; }}
"""


def _step(highest, most):
    """A round step that gives at most so many intervals."""
    for base in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if highest / base <= most:
            return base
    return highest


class Plot:
    """Lines of SVG, and where a value lies on the paper."""

    def __init__(self, seconds, mib):
        self.seconds = max(seconds, 1)
        self.mib = mib
        self.lines = []

    def x(self, seconds):
        return round(LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds, 1)

    def y(self, mib):
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * mib / self.mib, 1)

    def add(self, line):
        self.lines.append(line)

    def text(self, x, y, text, anchor="start", kind=""):
        self.add(f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">'
                 f'{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, kind):
        self.add(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>')

    def area(self, times, low, high, fill):
        upper = [f"{self.x(t)},{self.y(v)}" for t, v in zip(times, high)]
        lower = [f"{self.x(t)},{self.y(v)}" for t, v in zip(reversed(times), reversed(low))]
        self.add(f'<polygon points="{" ".join(upper + lower)}" fill="{fill}"/>')

    def grid(self):
        step = _step(self.mib, 8)
        for mib in range(0, int(self.mib) + 1, step):
            self.line(LEFT, self.y(mib), WIDTH - RIGHT, self.y(mib), "grid")
            self.text(LEFT - 10, self.y(mib) + 4, str(mib), "end")

    def axes(self):
        step = _step(self.seconds, 12)
        bottom = HEIGHT - BOTTOM
        for second in range(0, int(self.seconds) + 1, step):
            self.line(self.x(second), bottom, self.x(second), bottom + 5, "axis")
            self.text(self.x(second), bottom + 21, str(second), "middle")
        self.line(LEFT, TOP, LEFT, bottom, "axis")
        self.line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, "seconds since the VMs' start",
                  "middle")
        self.add(f'<text transform="translate(20 {(TOP + bottom) / 2}) rotate(-90)" '
                 'text-anchor="middle">MiB of host memory</text>')

    def level(self, mib, kind, text):
        self.line(LEFT, self.y(mib), WIDTH - RIGHT, self.y(mib), kind)
        self.text(WIDTH - RIGHT - 6, self.y(mib) - 6, text, "end")

    def legend(self, entries):
        x = LEFT
        for fill, text in entries:
            self.add(f'<rect x="{x}" y="{TOP - 30}" width="14" height="14" rx="2" '
                     f'fill="{fill}"/>')
            self.text(x + 20, TOP - 18, text)
            x += 44 + 7.2 * len(text)

    def document(self):
        return "\n".join([
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *self.lines, "</svg>", ""])


def _phases(samples):
    """(time, text): when all workloads had come to a phase."""
    order = ["boot", "fill", "run", "verify", "done"]
    names = {"fill": "filling", "run": "running", "verify": "checking all", "done": "done"}
    reached = 0
    for sample in samples:
        now = min(order.index(vm.phase) for vm in sample.vms.values())
        if now > reached:
            reached = now
            yield sample.time, names[order[now]]


def _draw_memory(plot, samples):
    times = [sample.time for sample in samples]
    base = [0.0] * len(samples)
    entries = []
    for fill, name in zip(FILLS, samples[0].vms):
        top = [low + sample.vms[name].ram / MIB for low, sample in zip(base, samples)]
        plot.area(times, base, top, fill)
        entries.append((fill, f"{name}: resident"))
        base = top
    plot.area(times, base, [sample.counted / MIB for sample in samples], STORE)
    return [*entries, (STORE, "stored, compressed (both), and ledgers")]


def render(plan, samples):
    """The plot as text."""
    wanted = 2 * plan.workload
    highest = max([wanted, plan.budget, *(sample.counted / MIB for sample in samples)])
    plot = Plot(samples[-1].time, highest * 1.16)
    plot.grid()
    entries = _draw_memory(plot, samples)
    for time, text in _phases(samples):
        plot.line(plot.x(time), TOP, plot.x(time), HEIGHT - BOTTOM, "mark")
        if plot.x(time) < WIDTH - RIGHT - 60:
            plot.text(plot.x(time) + 5, TOP + 14, text, kind="faint")
    plot.level(wanted, "wanted", f"the workloads fill {wanted} MiB")
    plot.level(plan.budget, "budget", f"budget {plan.budget} MiB")
    plot.axes()
    plot.legend(entries)
    plot.text(LEFT, 30, f"Two VMs of {plan.memory} MiB share {plan.budget} MiB of host memory",
              kind="title")
    return plot.document()
