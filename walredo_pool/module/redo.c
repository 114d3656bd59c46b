/*-------------------------------------------------------------------------
 *
 * redo.c
 *	  Applies WAL records to one page with PostgreSQL's own redo functions.
 *
 * A redo function reaches its pages through the buffer manager, under the
 * names that the record's block references give.  We rewrite those names:
 *
 *	 wanted		a relation whose only block is the wanted page, placed in a
 *				buffer before the first record;
 *	 others		a relation for all other pages.  One that the record makes
 *				anew, or of which it carries a full image, is let be made, for
 *				redo functions may insist on it, and thrown away.  Any other
 *				is an empty page that looks as if the record had been applied
 *				already, which redo functions leave alone.
 *
 * To let the latter be missing instead would not do: redo of BRIN takes the
 * number of a block from its buffer, whether there is one or not.
 *
 * Both relations are empty files in the global tablespace, made and opened
 * once, so that nothing is opened afterwards.  What counts is their sizes as
 * cached by smgr, which PostgreSQL believes during recovery.  Any page that a
 * redo function might read is put into a buffer first, hence the storage
 * manager is never asked for one.  Block numbers are kept, for redo functions
 * compute with them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/bufmask.h"
#include "access/rmgr.h"
#include "access/visibilitymapdefs.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/bufmgr.h"
#include "storage/fsm_internals.h"
#include "storage/lwlock.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "pg_compat.h"
#include "walredo.h"
#include "walredo_protocol.h"

typedef enum StandIn
{
	WANTED,
	OTHERS
} StandIn;

#define STAND_INS 2

/* No block of the stand-ins can have this number, nor the one above. */
#define STAND_IN_BLOCKS MaxBlockNumber

/*
 * Blocks other than the wanted one that may be in buffers when a record
 * begins.  A record adds at most three for each of its block references, and
 * all must fit into shared_buffers: one that had to be evicted would be
 * written to a file.
 */
#define OTHER_BLOCKS_MAX 64
#define OTHER_BLOCKS_PER_RECORD_MAX (3 * (XLR_MAX_BLOCK_ID + 1))

/* Decoding space that is kept from one record to the next. */
#define DECODE_BYTES_KEPT (1024 * 1024)

/* Heap blocks whose bits share a page of the visibility map. */
#define HEAP_BLOCKS_PER_VM_PAGE \
	((BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) * (BITS_PER_BYTE / BITS_PER_HEAPBLOCK))

/* Levels of the free space map's tree of pages. */
#define FSM_PAGE_LEVELS ((SlotsPerFSMPage >= 1626) ? 3 : 4)

static SMgrRelation stand_in[STAND_INS];
static XLogReaderState *reader;
static DecodedXLogRecord *decoded;
static size_t decoded_size;
static PGAlignedBlock image_page;
static PGAlignedBlock redone_page;

static RedoTarget target;
static Buffer target_buffer = InvalidBuffer;
static int	other_blocks;

/*
 * The map pages that were put into buffers last: records of one page mostly
 * need the same two again.
 */
static struct
{
	BlockNumber fsm;
	BlockNumber vm;
}			last_maps[STAND_INS];

static RelLocator
stand_in_locator(StandIn which)
{
	return stand_in[which]->smgr_rnode.node;
}

static void
forget_maps(void)
{
	for (int i = 0; i < STAND_INS; i++)
		last_maps[i].fsm = last_maps[i].vm = InvalidBlockNumber;
}

/*
 * Make the stand-in relations and everything else that outlives a request.
 */
void
redo_startup(void)
{
	if (NBuffers < 1 + OTHER_BLOCKS_MAX + OTHER_BLOCKS_PER_RECORD_MAX)
		elog(FATAL, "shared_buffers is %d pages, too few for redo", NBuffers);

	for (int i = 0; i < STAND_INS; i++)
	{
		RelLocator	locator = REL_LOCATOR(GLOBALTABLESPACE_OID, InvalidOid, i + 1);

		stand_in[i] = smgropen(locator, InvalidBackendId);
		for (ForkNumber fork = MAIN_FORKNUM; fork <= MAX_FORKNUM; fork++)
		{
			smgrcreate(stand_in[i], fork, true);
			stand_in[i]->smgr_cached_nblocks[fork] = STAND_IN_BLOCKS;
		}
	}

	forget_maps();
	reader = ALLOCATE_READER();
	if (reader == NULL)
		elog(FATAL, "out of memory");
	RmgrStartup();
}

/*
 * Which block of the free space map holds the given heap block's slot?
 */
static BlockNumber
fsm_block(BlockNumber heap_block)
{
	BlockNumber leaf = heap_block / SlotsPerFSMPage;
	BlockNumber pages = 0;

	/* The pages of a level come before the first page of the level below. */
	for (int level = 0; level < FSM_PAGE_LEVELS; level++)
	{
		pages += leaf + 1;
		leaf /= SlotsPerFSMPage;
	}
	return pages - 1;
}

/*
 * Get a block into a buffer, of zeros if it was not in one, and lock it.
 */
static Buffer
lock_block(StandIn which, ForkNumber fork, BlockNumber block)
{
	other_blocks++;
	return ReadBufferWithoutRelcache(stand_in_locator(which), fork, block,
									 RBM_ZERO_AND_LOCK, NULL, true);
}

/*
 * Redo of heap records makes pages of the visibility map and the free space
 * map as needed.  See to it that it need not look for them in a file.
 */
static void
put_map_page(StandIn which, ForkNumber fork, BlockNumber block, BlockNumber *last)
{
	if (*last == block)
		return;
	UnlockReleaseBuffer(lock_block(which, fork, block));
	*last = block;
}

/*
 * Get a page that looks as if everything up to end had been done to it.
 */
static Buffer
put_done_page(ForkNumber fork, BlockNumber block, XLogRecPtr end)
{
	Buffer		buffer = lock_block(OTHERS, fork, block);
	Page		page = BufferGetPage(buffer);

	if (PageIsNew(page))
		PageInit(page, BLCKSZ, 0);
	PageSetLSN(page, end);
	UnlockReleaseBuffer(buffer);
	return buffer;
}

static void
forget_blocks(void)
{
	DROP_RELATIONS_BUFFERS(stand_in, STAND_INS);
	target_buffer = InvalidBuffer;
	other_blocks = 0;
	forget_maps();
}

/*
 * Start a request.  base is the page before the first record, NULL for zeros.
 */
void
redo_begin(const RedoTarget *new_target, const char *base)
{
	target = *new_target;
	if (target.block >= STAND_IN_BLOCKS)
		elog(ERROR, "block number %u is out of range", target.block);
	target_buffer = ReadBufferWithoutRelcache(stand_in_locator(WANTED), MAIN_FORKNUM,
											  target.block, RBM_ZERO_AND_LOCK, NULL, true);
	if (base)
		memcpy(BufferGetPage(target_buffer), base, BLCKSZ);
	UnlockReleaseBuffer(target_buffer);
}

/*
 * The page as it is now; valid until redo_end.
 */
Page
redo_page(void)
{
	return BufferGetPage(target_buffer);
}

/*
 * Forget the pages of the request.
 */
void
redo_end(void)
{
	forget_blocks();
}

/*
 * Clean up after an error, as the end of an aborted transaction would.
 */
void
redo_abort(void)
{
	LWLockReleaseAll();
	AbortBufferIO();
	UnlockBuffers();
	ResourceOwnerRelease(CurrentResourceOwner, RESOURCE_RELEASE_BEFORE_LOCKS, false, true);
	ResourceOwnerRelease(CurrentResourceOwner, RESOURCE_RELEASE_LOCKS, false, true);
	ResourceOwnerRelease(CurrentResourceOwner, RESOURCE_RELEASE_AFTER_LOCKS, false, true);

	for (int i = 0; i < STAND_INS; i++)
	{
		/* A relcache entry that the redo function made and could not free. */
		if (stand_in[i]->smgr_owner)
			smgrclearowner(stand_in[i]->smgr_owner, stand_in[i]);
		for (ForkNumber fork = MAIN_FORKNUM; fork <= MAX_FORKNUM; fork++)
			XLogDropRelation(stand_in_locator(i), fork);
	}
	forget_blocks();
}

/*
 * Check what decoding takes for granted, and that the record is of a kind
 * whose redo does nothing but change the pages it names.
 */
static void
check_record(const XLogRecord *record, size_t len)
{
	pg_crc32c	crc;

	if (len < SizeOfXLogRecord || record->xl_tot_len != len)
		elog(ERROR, "record has %zu bytes, but its header says otherwise", len);

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (const char *) record + SizeOfXLogRecord, len - SizeOfXLogRecord);
	COMP_CRC32C(crc, (const char *) record, offsetof(XLogRecord, xl_crc));
	FIN_CRC32C(crc);
	if (!EQ_CRC32C(crc, record->xl_crc))
		elog(ERROR, "record has a wrong checksum");

	if (RmgrIdIsCustom(record->xl_rmid))
	{
		/* Our owner has been told by whom this is promised. */
		if (!RmgrIdExists(record->xl_rmid))
			elog(ERROR, "custom resource manager %u is not loaded", record->xl_rmid);
		return;
	}
	switch (record->xl_rmid)
	{
		case RM_XLOG_ID:
			{
				uint8		info = record->xl_info & ~XLR_INFO_MASK;

				if (info == XLOG_FPI || info == XLOG_FPI_FOR_HINT)
					return;
				break;
			}
		case RM_HEAP_ID:
		case RM_HEAP2_ID:
		case RM_BTREE_ID:
		case RM_HASH_ID:
		case RM_GIN_ID:
		case RM_GIST_ID:
		case RM_SEQ_ID:
		case RM_SPGIST_ID:
		case RM_BRIN_ID:
		case RM_GENERIC_ID:
			return;
	}
	elog(ERROR, "record of resource manager %u, info %02X does not change pages only",
		 record->xl_rmid, record->xl_info);
}

static void
decode_record(XLogRecord *record, size_t len, XLogRecPtr end)
{
	size_t		size = DecodeXLogRecordRequiredSpace(len);
	char	   *message;

	if (decoded_size < size || (decoded_size > DECODE_BYTES_KEPT && size <= DECODE_BYTES_KEPT))
	{
		if (decoded)
			pfree(decoded);
		decoded = NULL;
		decoded_size = 0;
		decoded = MemoryContextAllocHuge(TopMemoryContext, Max(size, DECODE_BYTES_KEPT));
		decoded_size = Max(size, DECODE_BYTES_KEPT);
	}

	/* The record's own position only appears in messages. */
	if (!DecodeXLogRecord(reader, decoded, record, end, &message))
		elog(ERROR, "%s", message ? message : "record cannot be decoded");
	decoded->next_lsn = end;
	reader->record = decoded;
	reader->ReadRecPtr = end;
	reader->EndRecPtr = end;
}

/*
 * Which of the record's block references names the wanted page?  -1 if none.
 */
static int
find_target(void)
{
	for (int id = 0; id <= decoded->max_block_id; id++)
	{
		DecodedBkpBlock *blk = &decoded->blocks[id];
		RelLocator	locator = BLOCK_LOCATOR(blk);

		if (blk->in_use && blk->blkno == target.block && blk->forknum == target.fork &&
			locator.relNode == target.rel && locator.dbNode == target.db &&
			locator.spcNode == target.spc)
			return id;
	}
	return -1;
}

/*
 * Two references to one buffer would make redo wait for itself.
 */
static void
check_distinct(int id, const StandIn *places)
{
	DecodedBkpBlock *blk = &decoded->blocks[id];

	for (int other = 0; other < id; other++)
	{
		DecodedBkpBlock *prior = &decoded->blocks[other];

		if (prior->in_use && places[other] == places[id] &&
			prior->forknum == blk->forknum && prior->blkno == blk->blkno)
			elog(ERROR, "record names two pages that redo cannot tell apart");
	}
}

/*
 * Let the wanted block's reference lead to its buffer, and the others to where
 * they do no harm.
 */
static void
rewrite_blocks(int target_id)
{
	StandIn		places[XLR_MAX_BLOCK_ID + 1];

	for (int id = 0; id <= decoded->max_block_id; id++)
	{
		DecodedBkpBlock *blk = &decoded->blocks[id];
		bool		replaced = (blk->flags & BKPBLOCK_WILL_INIT) != 0 ||
			(blk->has_image && blk->apply_image);

		if (!blk->in_use)
			continue;
		if (blk->blkno >= STAND_IN_BLOCKS)
			elog(ERROR, "block number %u is out of range", blk->blkno);
		places[id] = id == target_id ? WANTED : OTHERS;

		/* Redo of init forks writes them to disk at once; ours must not. */
		if (id == target_id || blk->forknum == INIT_FORKNUM)
			blk->forknum = MAIN_FORKNUM;
		check_distinct(id, places);
		BLOCK_LOCATOR(blk) = stand_in_locator(places[id]);

		if (id == target_id)
			blk->prefetch_buffer = target_buffer;
		else if (!replaced)
			blk->prefetch_buffer = put_done_page(blk->forknum, blk->blkno, reader->EndRecPtr);
		else
		{
			blk->prefetch_buffer = InvalidBuffer;
			other_blocks++;
		}
	}

	/*
	 * Redo of heap records also uses the free space map and the visibility
	 * map, which are not among the blocks: the former of the block's relation,
	 * the latter of block 0's.
	 */
	if (decoded->header.xl_rmid == RM_HEAP_ID || decoded->header.xl_rmid == RM_HEAP2_ID)
	{
		for (int id = 0; id <= decoded->max_block_id; id++)
		{
			DecodedBkpBlock *blk = &decoded->blocks[id];

			if (!blk->in_use || blk->forknum != MAIN_FORKNUM || !decoded->blocks[0].in_use)
				continue;
			put_map_page(places[id], FSM_FORKNUM, fsm_block(blk->blkno),
						 &last_maps[places[id]].fsm);
			put_map_page(places[0], VISIBILITYMAP_FORKNUM, blk->blkno / HEAP_BLOCKS_PER_VM_PAGE,
						 &last_maps[places[0]].vm);
		}
	}
}

/*
 * If the record carries an image of the page as it must be afterwards, put it
 * into image_page.
 */
static bool
restore_check_image(int id)
{
	DecodedBkpBlock *blk = &decoded->blocks[id];

	if (!blk->has_image || blk->apply_image)
		return false;
	if (!RestoreBlockImage(reader, id, image_page.data))
		elog(ERROR, "%s", reader->errormsg_buf);
	return true;
}

/*
 * Compare the page with image_page, without what WAL does not promise.
 */
static void
compare_with_image(void)
{
	void		(*mask) (char *pagedata, BlockNumber blkno);

	mask = RmgrTable[decoded->header.xl_rmid].rm_mask;
	memcpy(redone_page.data, redo_page(), BLCKSZ);
	if (mask)
	{
		mask(redone_page.data, target.block);
		mask(image_page.data, target.block);
	}
	for (int at = 0; at < BLCKSZ; at++)
	{
		if (redone_page.data[at] != image_page.data[at])
			elog(ERROR, "page differs at byte %d from the image for consistency checking", at);
	}
}

/*
 * Does redo of the resource manager do anything to a page that it has restored
 * from an image?  That of GiST gives the left page of a split the record's LSN,
 * which the image cannot have (gistRedoClearFollowRight), and that of hash
 * indexes sets flags again (hash_xlog_split_allocate_page).  Of extensions we
 * do not know.
 */
static bool
redo_follows_image(RmgrId rmid)
{
	return rmid == RM_GIST_ID || rmid == RM_HASH_ID || RmgrIdIsCustom(rmid);
}

static void
apply_decoded(int target_id)
{
	DecodedBkpBlock *blk = &decoded->blocks[target_id];
	RmgrId		rmid = decoded->header.xl_rmid;

	if (blk->has_image && blk->apply_image && !redo_follows_image(rmid))
	{
		/*
		 * Their redo functions leave a page alone that was restored from its
		 * image, so there is nothing to call them for.
		 */
		if (!RestoreBlockImage(reader, target_id, redo_page()))
			elog(ERROR, "%s", reader->errormsg_buf);
		if (!PageIsNew(redo_page()))
			PageSetLSN(redo_page(), reader->EndRecPtr);
		return;
	}
	if (rmid == RM_XLOG_ID)
	{
		/* A hint-bit record may name pages of which it has no image. */
		if ((decoded->header.xl_info & ~XLR_INFO_MASK) != XLOG_FPI_FOR_HINT)
			elog(ERROR, "record should contain a full-page image");
		return;
	}
	rewrite_blocks(target_id);
	RmgrTable[rmid].rm_redo(reader);

	/* Redo notes a page that it needed and that was all zeros. */
	if (XLogHaveInvalidPages())
		elog(ERROR, "record changes a page that was never initialized");
}

/*
 * Apply one record, of len bytes and aligned like any palloc'd memory, to the
 * page.  Throws an error if it cannot be applied; then call redo_abort.
 */
void
redo_record(char *bytes, size_t len, XLogRecPtr end)
{
	XLogRecord *record = (XLogRecord *) bytes;
	int			target_id;
	bool		compare;

	check_record(record, len);
	decode_record(record, len, end);
	target_id = find_target();
	if (target_id < 0)
		elog(ERROR, "record does not name the page");

	/* Before redo, which is free to change the decoded record. */
	compare = target.verify && restore_check_image(target_id);
	apply_decoded(target_id);
	if (compare)
		compare_with_image();

	if (other_blocks > OTHER_BLOCKS_MAX)
	{
		memcpy(redone_page.data, redo_page(), BLCKSZ);
		forget_blocks();
		redo_begin(&target, redone_page.data);
	}
}
