/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A picture of a simulation: for each rule, what each VM's limit was over time, upon each other,
 * and thinly what it worked with.
 */
#include <math.h>

#include "sim.h"
#include "vm/size.h"

#define WIDTH  720.0
#define HEIGHT 150.0
#define LEFT   70.0
#define TOP    40.0
#define GAP    40.0

/* Points in a curve, at most. */
#define POINTS 360

static const char *const colours[] = { "#4477aa", "#ee6677", "#228833", "#ccbb44",
				       "#66ccee", "#aa3377", "#bbbbbb", "#997700" };

static const char *colour(unsigned int vm)
{
	return colours[vm % (sizeof(colours) / sizeof(colours[0]))];
}

/* The top of VM @vm's part at a second: limits, or working sets, of all up to it. */
static double stacked(const struct sim_trace *trace, const struct sim_result *result,
		      unsigned int vms, unsigned int second, bool working)
{
	double total = 0;

	for (unsigned int i = 0; i < vms; i++)
		total += working ? trace->vm[i].working_bytes[second]
				 : fmin(result->vm[i].limit[second],
					fmax(result->vm[i].resident[second],
					     trace->vm[i].working_bytes[second]));
	return total;
}

/** struct panel - where one rule's picture is */
struct panel {
	const struct sim_trace *trace;
	const struct sim_result *result;
	double top;
	double most; /* bytes at its top */
	FILE *file;
};

static void point(const struct panel *panel, unsigned int second, double bytes)
{
	fprintf(panel->file, "%.1f,%.1f ",
		LEFT + WIDTH * second / fmax(panel->trace->seconds - 1, 1),
		panel->top + HEIGHT * (1 - fmin(bytes / panel->most, 1)));
}

static unsigned int stride(const struct sim_trace *trace)
{
	return trace->seconds / POINTS + 1;
}

static void band(const struct panel *panel, unsigned int vm)
{
	unsigned int step = stride(panel->trace), last = (panel->trace->seconds - 1) / step * step;

	fprintf(panel->file, "<polygon fill=\"%s\" points=\"", colour(vm));
	for (unsigned int s = 0; s < panel->trace->seconds; s += step)
		point(panel, s, stacked(panel->trace, panel->result, vm + 1, s, false));
	for (unsigned int s = last + step; s >= step; s -= step)
		point(panel, s - step, stacked(panel->trace, panel->result, vm, s - step, false));
	fprintf(panel->file, "\"><title>%s: speed %.2f</title></polygon>\n",
		panel->trace->vm[vm].name, panel->result->vm[vm].speed);
}

static void demand(const struct panel *panel)
{
	fprintf(panel->file, "<polyline fill=\"none\" stroke=\"black\" stroke-dasharray=\"3 2\" "
			     "points=\"");
	for (unsigned int s = 0; s < panel->trace->seconds; s += stride(panel->trace))
		point(panel, s, stacked(panel->trace, panel->result, panel->trace->vms, s, true));
	fprintf(panel->file, "\"/>\n");
}

static void budget_line(const struct panel *panel, double budget)
{
	double y = panel->top + HEIGHT * (1 - budget / panel->most);
	char size[SIZE_TEXT];

	fprintf(panel->file,
		"<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"red\"/>\n"
		"<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
		LEFT, LEFT + WIDTH, y, y, LEFT - 4, y + 4, size_format((uint64_t)budget, size));
}

static void draw(const struct panel *panel, double budget)
{
	fprintf(panel->file,
		"<text x=\"%.0f\" y=\"%.0f\">%s: slowdown %.2f, worst %.2f, %.0f restores a "
		"second, fairness %.3f</text>\n",
		LEFT, panel->top - 6, mv_policy_rule_name(panel->result->rule),
		panel->result->slowdown, panel->result->worst,
		panel->result->restores / panel->trace->seconds, panel->result->fairness);
	for (unsigned int vm = 0; vm < panel->trace->vms; vm++)
		band(panel, vm);
	demand(panel);
	budget_line(panel, budget);
}

int sim_write_svg(const struct sim_trace *trace, const struct sim_host *host,
		  const struct sim_result *results, unsigned int count, FILE *file)
{
	double budget = (double)host->policy.budget_bytes, most = budget;

	for (unsigned int s = 0; s < trace->seconds; s++)
		most = fmax(most, stacked(trace, results, trace->vms, s, true));
	fprintf(file,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
		"font-family=\"sans-serif\" font-size=\"12\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
		"<text x=\"%.0f\" y=\"16\">Memory of %u VMs over %u s; dashed: what they work "
		"with; red: the budget</text>\n",
		LEFT + WIDTH + 20, TOP + count * (HEIGHT + GAP), LEFT, trace->vms, trace->seconds);
	for (unsigned int i = 0; i < count; i++) {
		const struct panel panel = { trace, &results[i], TOP + i * (HEIGHT + GAP),
					     most * 1.05, file };

		draw(&panel, budget);
	}
	fprintf(file, "</svg>\n");
	return ferror(file) ? -1 : 0;
}
