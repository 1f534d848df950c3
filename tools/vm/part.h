/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parts of a whole as people write them.
 */
#ifndef VM_PART_H
#define VM_PART_H

/**
 * part_parse() - a part of 1
 * @text: "75%" or "0.75"
 * @max:  the greatest that it may be
 * @part: set on success
 *
 * Return: 0; -EINVAL where it is no part from 0 to @max.
 */
int part_parse(const char *text, double max, double *part);

#endif /* VM_PART_H */
