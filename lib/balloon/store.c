/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all page stores share. The stores themselves live in files of their own.
 */
#include <memvirt/store.h>

void mv_store_destroy(struct mv_store *store)
{
	if (store)
		store->ops->destroy(store);
}
