/*-------------------------------------------------------------------------
 *
 * pg_compat.h
 *	  Everything in which the supported versions of PostgreSQL differ.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_COMPAT_H
#define PG_COMPAT_H

#include "storage/relfilenode.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 160000
#error "zenith_walredo knows the redo interface of PostgreSQL 15 only"
#endif

/* RelFileNode became RelFileLocator, with other field names, in version 16. */
typedef RelFileNode RelLocator;

#define REL_LOCATOR(spc, db, rel) ((RelLocator) {(spc), (db), (rel)})
#define BLOCK_LOCATOR(blk) ((blk)->rnode)
#define DROP_RELATIONS_BUFFERS(rels, n) DropRelFileNodesAllBuffers((rels), (n))

/* How to open a reader that is only used to decode records given to it. */
#define ALLOCATE_READER() \
	XLogReaderAllocate(wal_segment_size, NULL, XL_ROUTINE(NULL), NULL)

#endif							/* PG_COMPAT_H */
