/*-------------------------------------------------------------------------
 *
 * walredo.h
 *	  What the files of the redo module use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WALREDO_H
#define WALREDO_H

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "storage/bufpage.h"
#include "common/relpath.h"

/* The page that a request is about. */
typedef struct RedoTarget
{
	Oid			spc;
	Oid			db;
	Oid			rel;
	ForkNumber	fork;
	BlockNumber block;
	bool		verify;			/* compare with images for consistency? */
} RedoTarget;

/* redo.c */
extern void redo_startup(void);
extern void redo_begin(const RedoTarget *target, const char *base);
extern void redo_record(char *bytes, size_t len, XLogRecPtr end);
extern Page redo_page(void);
extern void redo_end(void);
extern void redo_abort(void);

/* serve.c */
extern void serve(int in_fd, int out_fd) pg_attribute_noreturn();

/* sandbox.c */
extern void sandbox_enter(void);

#endif							/* WALREDO_H */
